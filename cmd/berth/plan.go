package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

type planOptions struct {
	upOptions
	format string
	out    string
}

func newPlan(a *app) *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan [SERVICE...]",
		Short: "Show what up would do",
		Long: `Show what up would create, replace and remove, why, and where in the
file the cause stands. Nothing is changed. It is the agent's own plan:
up carries out the very same one.

With --out the plan is also written to a file, which up --plan carries
out exactly, or refuses if something has moved since. The file holds the
contents of the configs and secrets of the stack: only its owner may
read it; keep it so, and delete it when it is done.` + exitStatus("2    something would change"),
		Example: `  berth plan
  berth plan --out plan.json; berth up -d --plan plan.json`,
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return a.plan(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", formatText, "`FORMAT`: text or json")
	f.StringVar(&o.out, "out", "", "also write the plan to this `FILE`, for up --plan")
	expectRevisionFlag(f, &o.expectRevision)
	f.BoolVar(&o.forceRecreate, "force-recreate", false, "as for up")
	f.BoolVar(&o.noRecreate, "no-recreate", false, "as for up")
	f.BoolVar(&o.removeOrphans, "remove-orphans", false, "as for up")
	f.BoolVarP(&o.renewVolumes, "renew-anon-volumes", "V", false, "as for up")
	f.BoolVar(&o.noDeps, "no-deps", false, "as for up")
	f.StringVar(&o.pull, "pull", "", "as for up, `WHEN`: always, missing, never")
	f.StringArrayVar(&o.scale, "scale", nil, "`SERVICE=NUM`, as for up")
	return cmd
}

func (a *app) plan(ctx context.Context, o planOptions, services []string) error {
	if err := checkFormat(o.format, formatText, formatJSON); err != nil {
		return err
	}
	result, err := a.load(ctx, services, o.noDeps)
	if err != nil {
		return err
	}
	req, err := o.request(result.Stack, services)
	if err != nil {
		return err
	}
	changed, err := a.printPlan(ctx, req, o.format, func(plan api.Plan) error {
		if o.out == "" {
			return nil
		}
		return writePlanFile(o.out, planFile{Services: services, Request: req, Plan: plan})
	})
	if err != nil {
		return err
	}
	if o.out != "" {
		fmt.Fprintf(a.stderr, "written to %s: `berth up --plan %s` carries out exactly this\n", cli.Escape(o.out), cli.Escape(o.out))
	}
	if changed {
		return exit{code: exitChanges}
	}
	return nil
}

// printPlan prints what the agent would do. keep, if any, gets it before.
func (a *app) printPlan(ctx context.Context, req api.ApplyRequest, format string, keep func(api.Plan) error) (changed bool, err error) {
	client, err := a.agent(ctx)
	if err != nil {
		return false, err
	}
	plan, err := client.Plan(ctx, req)
	if err == nil && keep != nil {
		err = keep(plan)
	}
	switch {
	case err != nil:
		return false, err
	case format == formatJSON:
		return plan.Changed, cli.WriteJSON(a.stdout, plan)
	}
	return plan.Changed, cli.WritePlan(a.out(), plan)
}
