package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newExplain(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "explain [SERVICE...]",
		Short: "Say why a service is not running or not ready",
		Long: `Say of each task of a service whether it is ready and, if not, why: what
its probe answers, how it ended, when it is restarted, and the last
lines that it logged. Then what stands in the way of the service: what
it waits for, and what that waits for in turn, an image that can't be
pulled, a port that somebody else has, a rollout that paused or went
back. Without SERVICE explain all services of the stack.

With --format json it prints one array of objects with stack, service,
status, summary, tasks and causes.` + exitStatus(),
		Example: `  berth explain api
  berth -p shop explain`,
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.explain(cmd.Context(), format, args) },
	}
	cmd.Flags().StringVar(&format, "format", formatText, "`FORMAT`: text or json")
	return cmd
}

func (a *app) explain(ctx context.Context, format string, services []string) error {
	if err := checkFormat(format, formatText, formatJSON); err != nil {
		return err
	}
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	if len(services) == 0 {
		stack, err := client.Stack(ctx, name)
		if err != nil {
			return err
		}
		for _, s := range stack.Services {
			services = append(services, s.Service)
		}
	}
	all := make([]api.Explanation, 0, len(services))
	for _, service := range services {
		e, err := client.Explain(ctx, name, service)
		if err != nil {
			return err
		}
		all = append(all, e)
	}
	if format == formatJSON {
		return cli.WriteJSON(a.stdout, all)
	}
	for i, e := range all {
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if err := cli.WriteExplanation(a.out(), e); err != nil {
			return err
		}
	}
	return nil
}
