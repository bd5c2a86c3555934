package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"berth/api"
)

func newCommit(a *app) *cobra.Command {
	var req api.CommitRequest
	var index int
	cmd := &cobra.Command{
		Use:   "commit SERVICE [REPOSITORY[:TAG]]",
		Short: "Make an image of a container",
		Long: `Make an image of what a running container of a service has written over
its own, and print its id. What is in volumes is not in it; what the
service sets in the image's place (command, environment, user) is.` + exitStatus(),
		Example: `  berth commit web shop/web:debug
  berth commit -m 'with tools' -c 'CMD ["sh"]' web tools`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				req.Reference = args[1]
			}
			return a.commit(cmd.Context(), args[0], index, req)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&req.Author, "author", "a", "", "the `AUTHOR`, such as \"Ada <ada@example.org>\"")
	f.StringArrayVarP(&req.Changes, "change", "c", nil, "apply this `INSTRUCTION` of a Dockerfile")
	f.IntVar(&index, "index", 0, "the task with this `NUMBER` (default: the first that runs)")
	f.StringVarP(&req.Message, "message", "m", "", "the `MESSAGE` in the image's history")
	f.BoolVarP(&req.Pause, "pause", "p", true, "freeze the container meanwhile")
	return cmd
}

func (a *app) commit(ctx context.Context, service string, index int, req api.CommitRequest) error {
	client, task, err := a.serviceTask(ctx, service, index)
	if err != nil {
		return err
	}
	image, err := client.Commit(ctx, task.ID, req)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, image.ID)
	return err
}
