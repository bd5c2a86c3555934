package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

type psOptions struct {
	all      bool
	replaced bool
	quiet    bool
	services bool
	noTrunc  bool
	orphans  bool
	format   string
	filter   []string
	status   []string
}

func newPs(a *app) *cobra.Command {
	var o psOptions
	cmd := &cobra.Command{
		Use:   "ps [SERVICE...]",
		Short: "List the containers of a stack",
		Long: `List the containers of a stack that run; with --all also those that have
exited. Tasks that a newer one replaced and that are kept for logs and
rollback are shown with --replaced.

With --format json it prints one object a line, with the fields of
docker compose ps, and Ready, Revision, Restarts and ServiceLabels.
A service that fits no node (deploy.placement) has a row that says why.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.ps(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "also containers that do not run")
	f.BoolVar(&o.replaced, "replaced", false, "also what newer tasks replaced")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "ids only")
	f.BoolVar(&o.services, "services", false, "names of services only")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "do not cut commands")
	f.BoolVar(&o.orphans, "orphans", true, "also services that the file no longer has")
	f.StringVar(&o.format, "format", formatTable, "`FORMAT`: table, json or a Go template")
	f.StringArrayVar(&o.filter, "filter", nil, "`status=STATE`: only containers in this state")
	f.StringArrayVar(&o.status, "status", nil, "only containers in this `STATE`: created, running, paused, restarting, removing, exited, pending")
	return cmd
}

func (a *app) ps(ctx context.Context, o psOptions, services []string) error {
	if err := checkListFormat(o.format); err != nil {
		return err
	}
	states, err := filterValues(o.filter, "status")
	if err != nil {
		return err
	}
	o.status = append(o.status, states...)
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	stack, err := client.Stack(ctx, name)
	if api.HasCode(err, api.CodeNotFound) && len(services) == 0 {
		stack, err = api.StackStatus{}, nil // a stack that is not up has no containers, as with Compose
	}
	if err != nil {
		return err
	}
	for _, service := range services {
		if !slices.ContainsFunc(stack.Services, func(s api.ServiceStatus) bool { return s.Service == service }) {
			return fmt.Errorf("no such service in stack %s: %s", name, service)
		}
	}
	tasks := o.choose(stack, services)
	if !o.quiet {
		tasks = append(tasks, o.pending(stack, services)...)
	}
	switch {
	case o.services:
		return a.printLines(tasks, func(t api.Task) string { return t.Service })
	case o.quiet:
		return a.printLines(tasks, func(t api.Task) string { return t.ID })
	case cli.IsTemplate(o.format):
		rows := cli.PSRows(tasks, time.Now())
		return rows.Write(a.stdout, o.format)
	case o.format == formatJSON:
		return cli.WritePSJSON(a.stdout, tasks, time.Now())
	}
	return cli.WritePS(a.stdout, tasks, time.Now(), o.noTrunc)
}

// choose gives the tasks to be listed, by service and slot.
func (o psOptions) choose(stack api.StackStatus, services []string) []api.Task {
	tasks := slices.DeleteFunc(slices.Clone(stack.Tasks), func(t api.Task) bool {
		running := t.State == api.TaskRunning || t.State == api.TaskPaused || t.State == api.TaskRestarting
		_, inFile := stack.Stack.Services[t.Service]
		switch {
		case !wanted(services, t.Service), !wanted(o.status, t.State), !inFile && !o.orphans:
			return true
		case t.OneOff:
			return !o.all
		case running:
			return false
		case !t.Current:
			return !o.replaced
		}
		return !o.all && !o.replaced && len(o.status) == 0
	})
	slices.SortStableFunc(tasks, func(x, y api.Task) int {
		return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Slot, y.Slot), y.CreatedAt.Compare(x.CreatedAt))
	})
	return tasks
}

// pending gives a row to each service that fits no node, so that it has no
// task that could be listed.
func (o psOptions) pending(stack api.StackStatus, services []string) []api.Task {
	var out []api.Task
	for _, s := range stack.Services {
		if s.Phase == api.PhasePending && wanted(services, s.Service) && wanted(o.status, api.TaskPending) {
			svc := stack.Stack.Services[s.Service]
			out = append(out, api.Task{
				Name: stack.Name + "-" + s.Service, Stack: stack.Name, Service: s.Service, Image: svc.Image,
				State: api.TaskPending, Reason: s.Reason, ServiceLabels: svc.DeployLabels,
			})
		}
	}
	return out
}

// printLines prints a text per task, each once.
func (a *app) printLines(tasks []api.Task, text func(api.Task) string) error {
	said := map[string]bool{}
	for _, t := range tasks {
		line := text(t)
		if !said[line] {
			said[line] = true
			if _, err := fmt.Fprintln(a.stdout, cli.Escape(line)); err != nil {
				return err
			}
		}
	}
	return nil
}
