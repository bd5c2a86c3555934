package main

import (
	"github.com/spf13/cobra"

	"berth/api"
)

func newStop(a *app) *cobra.Command {
	var timeout int
	cmd := &cobra.Command{
		Use:   "stop [SERVICE...]",
		Short: "Stop services without removing them",
		Long: `Stop the services of a stack, dependents first. They stay stopped, also
over a restart of the machine, until start or up.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), api.ActionRequest{Action: api.ActionStop, Services: args, Timeout: timeoutFlag(cmd, timeout)})
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "`SECONDS` to wait before a container is killed")
	return cmd
}
