package main

import (
	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newInspect(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect CONTAINER...",
		Short: "Show everything about containers",
		Long: `Show everything that the agent knows about containers, named by name or
by a unique prefix of their id, as one JSON array.` + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTasks,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			found := make([]api.TaskInspect, 0, len(args))
			for _, name := range args {
				task, err := client.InspectTask(cmd.Context(), name)
				if err != nil {
					return err
				}
				found = append(found, task)
			}
			return cli.WriteJSON(a.stdout, found)
		},
	}
}
