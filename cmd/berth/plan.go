package main

import (
	"context"

	"github.com/spf13/cobra"

	"berth/cli"
)

type planOptions struct {
	upOptions
	format string
}

func newPlan(a *app) *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan [SERVICE...]",
		Short: "Show what up would do",
		Long: `Show what up would create, replace and remove, why, and where in the
file the cause stands. Nothing is changed. It is the agent's own plan:
up carries out the very same one.` + exitStatus("2    something would change"),
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
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	plan, err := client.Plan(ctx, req)
	if err != nil {
		return err
	}
	if o.format == formatJSON {
		err = cli.WriteJSON(a.stdout, plan)
	} else {
		err = cli.WritePlan(a.out(), plan)
	}
	if err != nil {
		return err
	}
	if plan.Changed {
		return exit{code: exitChanges}
	}
	return nil
}
