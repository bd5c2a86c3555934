package main

import (
	"context"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

type statsOptions struct {
	noStream bool
	all      bool
	format   string
}

func newStats(a *app) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:   "stats [SERVICE...]",
		Short: "Show what containers use of the machine",
		Long: `Show processor, memory, network and disk use of the containers of a
stack, every second, until Ctrl-C. On a pipe, or with --no-stream, it
prints one round and ends.

With --format json it prints one object a line, as docker compose does.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.stats(cmd.Context(), o, args) },
	}
	cmd.Flags().BoolVar(&o.noStream, "no-stream", false, "one round only")
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "containers that do not run, too")
	cmd.Flags().Bool("no-trunc", true, "names are never cut; accepted for scripts")
	cmd.Flags().StringVar(&o.format, "format", formatTable, "`FORMAT`: table or json")
	return cmd
}

func (a *app) stats(ctx context.Context, o statsOptions, services []string) error {
	if err := checkFormat(o.format, formatTable, formatJSON); err != nil {
		return err
	}
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	screen := a.out()
	follow := !o.noStream && (o.format == formatJSON || screen.Live)
	live := cli.NewLiveStats(screen)
	var samples []api.TaskStats
	for s, err := range client.Stats(ctx, name, services, follow) {
		if err != nil {
			return err
		}
		switch {
		case o.format == formatJSON:
			err = cli.WriteStatsJSON(screen, s)
		case follow:
			err = live.Add(s)
		default:
			samples = append(samples, s)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case o.format == formatJSON:
		return nil
	case o.all && !follow:
		if samples, err = withEnded(ctx, client, name, services, samples); err != nil {
			return err
		}
	case follow:
		return live.Draw()
	}
	return cli.WriteStats(screen, samples)
}

// withEnded adds a sample of zeros for each container that does not run.
func withEnded(ctx context.Context, client *api.Client, stack string, services []string, samples []api.TaskStats) ([]api.TaskStats, error) {
	status, err := client.Stack(ctx, stack)
	if err != nil {
		return nil, err
	}
	for _, t := range status.Tasks {
		if t.Current && t.State == api.TaskExited && wanted(services, t.Service) {
			samples = append(samples, api.TaskStats{Task: t.ID, Name: t.Name, Service: t.Service})
		}
	}
	return samples, nil
}
