package main

import (
	"github.com/spf13/cobra"

	"berth/api"
)

func newRestart(a *app) *cobra.Command {
	var timeout int
	var noDeps bool
	cmd := &cobra.Command{
		Use:   "restart [SERVICE...]",
		Short: "Restart services as they are",
		Long: `Stop and start the services of a stack. Changes of the Compose file are
not applied: that is what up does.` + exitStatus("3    not ready in time"),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), api.ActionRequest{Action: api.ActionRestart, Services: args, Timeout: timeoutFlag(cmd, timeout), NoDeps: noDeps})
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "`SECONDS` to wait before a container is killed")
	cmd.Flags().BoolVar(&noDeps, "no-deps", false, "do not restart dependents (depends_on … restart: true)")
	return cmd
}
