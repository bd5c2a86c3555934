package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newHistory(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the revisions of a stack",
		Long: `List the revisions of a stack that are kept, newest first: which one is
wanted (current), to which a failure goes back (stable), how the rollout
of each ended, who made it, the services that differ from the revision
before, and their images. "not here" is an image that has to be pulled
to go back.

With --format json it prints one array of objects with revision, state,
reason, current, stable, created_at, actor, images and changes.` + exitStatus(),
		Example: `  berth history
  berth rollback 7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.history(cmd.Context(), format) },
	}
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table or json")
	return cmd
}

func (a *app) history(ctx context.Context, format string) error {
	if err := checkFormat(format, formatTable, formatJSON); err != nil {
		return err
	}
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	revisions, err := client.History(ctx, name)
	if err != nil {
		return err
	}
	if format == formatJSON {
		if revisions == nil {
			revisions = []api.Revision{}
		}
		return cli.WriteJSON(a.stdout, revisions)
	}
	return cli.WriteHistory(a.stdout, revisions, time.Now())
}
