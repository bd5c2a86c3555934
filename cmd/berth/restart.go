package main

import (
	"github.com/spf13/cobra"

	"berth/api"
)

func newRestart(a *app) *cobra.Command {
	var timeout int
	cmd := &cobra.Command{
		Use:   "restart [SERVICE...]",
		Short: "Restart services as they are",
		Long: `Replace the containers of services by new ones of the same version, in
the order that up would: start-first unless the plan says otherwise, so
that clients notice nothing. Services that depend on them with
restart: true follow. Changes of the Compose file are not applied: that
is what up does.` + exitStatus("3    not ready in time"),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), api.ActionRequest{Action: api.ActionRestart, Services: args, Timeout: timeoutFlag(cmd, timeout)})
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "`SECONDS` to wait before a container is killed")
	return cmd
}
