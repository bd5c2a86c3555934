package main

import (
	"github.com/spf13/cobra"

	"berth/api"
)

func newRm(a *app) *cobra.Command {
	var force, stop, volumes bool
	cmd := &cobra.Command{
		Use:   "rm [SERVICE...]",
		Short: "Remove stopped containers of services",
		Long: `Remove the containers of services that do not run. The services stay in
the stack; up creates their containers again.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !a.agreed(force, "Remove the stopped containers?") {
				return nil
			}
			return a.act(cmd.Context(), api.ActionRequest{Action: api.ActionRemove, Services: args, Stop: stop, Volumes: volumes})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.Flags().BoolVarP(&stop, "stop", "s", false, "stop those that run first")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "also remove their anonymous volumes")
	return cmd
}
