package main

import (
	"github.com/spf13/cobra"

	"berth/api"
)

func newKill(a *app) *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use:   "kill [SERVICE...]",
		Short: "Send a signal to the containers of services",
		Long: `Send a signal to the main process of each running container of the
services. What ends by SIGKILL stays stopped; how a container that ends
by another signal is treated, its restart policy says.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), api.ActionRequest{Action: api.ActionKill, Services: args, Signal: signal})
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "SIGKILL", "the `SIGNAL`, by name or number")
	return cmd
}
