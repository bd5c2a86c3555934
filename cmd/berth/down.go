package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

type downOptions struct {
	volumes       bool
	images        string
	removeOrphans bool
	timeout       int
}

func newDown(a *app) *cobra.Command {
	var o downOptions
	cmd := &cobra.Command{
		Use:   "down [SERVICE...]",
		Short: "Stop and remove a stack",
		Long: `Stop the containers of a stack, dependents first, and remove them with
the stack's networks. Named volumes stay unless --volumes is given;
external volumes and networks always stay. The Compose file is not
needed when -p names the stack.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.down(cmd.Context(), o, timeoutFlag(cmd, o.timeout), args)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.volumes, "volumes", "v", false, "also remove the stack's volumes, with their data")
	f.StringVar(&o.images, "rmi", "", "also remove images, `WHICH`: local (those without a registry) or all")
	f.BoolVar(&o.removeOrphans, "remove-orphans", false, "also services that the file no longer has")
	f.IntVarP(&o.timeout, "timeout", "t", 0, "`SECONDS` to wait before a container is killed")
	return cmd
}

// timeoutFlag is the value of --timeout in seconds, or nil when it was not
// given.
func timeoutFlag(cmd *cobra.Command, seconds int) *time.Duration {
	if !cmd.Flags().Changed("timeout") {
		return nil
	}
	d := time.Duration(seconds) * time.Second
	return &d
}

func (a *app) down(ctx context.Context, o downOptions, timeout *time.Duration, services []string) error {
	if o.images != "" && o.images != "local" && o.images != "all" {
		return fmt.Errorf("--rmi %q: want local or all", o.images)
	}
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	err = a.carry(client.Down(ctx, name, api.DownRequest{
		Volumes: o.volumes, Images: o.images, RemoveOrphans: o.removeOrphans, Timeout: timeout, Services: services,
	}))
	if api.HasCode(err, api.CodeNotFound) {
		fmt.Fprintf(a.stderr, "warning: nothing to remove: there is no stack %s\n", cli.Escape(name))
		return nil
	}
	return err
}
