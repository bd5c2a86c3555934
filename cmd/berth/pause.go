package main

import (
	"github.com/spf13/cobra"

	"berth/api"
)

func newPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "pause [SERVICE...]",
		Short: "Freeze the containers of services",
		Long: `Freeze every process in the running containers of the services. They
keep their memory and their addresses; connections to them wait.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), api.ActionRequest{Action: api.ActionPause, Services: args})
		},
	}
}

func newUnpause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "unpause [SERVICE...]",
		Short:             "Let frozen containers of services go on",
		Long:              `Let the containers of the services go on that berth pause has frozen.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), api.ActionRequest{Action: api.ActionUnpause, Services: args})
		},
	}
}
