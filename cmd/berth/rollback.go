package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"berth/api"
)

func newRollback(a *app) *cobra.Command {
	var noWait bool
	var expect uint64
	cmd := &cobra.Command{
		Use:   "rollback [REVISION]",
		Short: "Go back to an earlier revision",
		Long: `Make an earlier revision of the stack the wanted one, whole: without
REVISION the last stable one before the current. Nothing is pulled that
is here, and tasks of it that are still kept are used again. Wait until
it serves. Volumes and what is in them stay as they are.

The Compose file is not looked at: the next up brings what it says.` + exitStatus(
			"3    not ready in time, or paused"),
		Example: `  berth rollback
  berth rollback 7`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeRevisions,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.RollbackRequest{Wait: !noWait, Actor: actor(), ExpectRevision: expect}
			if len(args) == 1 {
				n, err := strconv.ParseUint(args[0], 10, 64)
				if err != nil || n == 0 {
					return hinted{fmt.Errorf("%q is no revision: want a number", args[0]), "`berth history` lists them"}
				}
				req.Revision = n
			}
			return a.rollback(cmd.Context(), req)
		},
	}
	noWaitFlag(cmd, &noWait)
	expectRevisionFlag(cmd.Flags(), &expect)
	return cmd
}

func (a *app) rollback(ctx context.Context, req api.RollbackRequest) error {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	return a.carryRollout(ctx, client.Rollback(ctx, name, req))
}
