package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

type eventsOptions struct {
	json         bool
	all          bool
	since, until string
}

func newEvents(a *app) *cobra.Command {
	var o eventsOptions
	cmd := &cobra.Command{
		Use:   "events [SERVICE...]",
		Short: "Show what happens to a stack as it happens",
		Long: `Show events of a stack: tasks that are created, start, become healthy,
die; revisions that are applied; networks and volumes. It ends with
--until, else it goes on until Ctrl-C.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.events(cmd.Context(), o, args) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "one JSON object a line, as docker compose prints them and more")
	cmd.Flags().BoolVar(&o.all, "all", false, "of every stack of the machine")
	cmd.Flags().StringVar(&o.since, "since", "", "from this `TIME` on: 2006-01-02T15:04:05Z, or 10m for ten minutes ago")
	cmd.Flags().StringVar(&o.until, "until", "", "up to this `TIME`")
	return cmd
}

func (a *app) events(ctx context.Context, o eventsOptions, services []string) error {
	q := api.EventQuery{Services: services, Since: o.since, Until: o.until, Follow: o.until == ""}
	if q.Since == "" && q.Follow {
		q.Since = time.Now().UTC().Format(time.RFC3339Nano)
	}
	if !o.all {
		name, err := a.stackName(ctx)
		if err != nil {
			return err
		}
		q.Stack = name
	}
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	for e, err := range client.Events(ctx, q) {
		if err != nil {
			return err
		}
		if o.json {
			err = cli.WriteEventJSON(a.stdout, e)
		} else {
			err = cli.WriteEvent(a.stdout, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
