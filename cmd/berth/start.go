package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
)

func newStart(a *app) *cobra.Command {
	var wait bool
	var waitTimeout int
	cmd := &cobra.Command{
		Use:   "start [SERVICE...]",
		Short: "Start stopped services",
		Long: `Start the services of a stack that were stopped, in the order of their
dependencies, and wait until they are ready. The Compose file is not
applied: that is what up does.` + exitStatus("3    not ready in time"),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if waitTimeout > 0 {
				limited, cancel := context.WithTimeoutCause(ctx, time.Duration(waitTimeout)*time.Second, errTimeout)
				defer cancel()
				ctx = limited
			}
			err := a.act(ctx, api.ActionRequest{Action: api.ActionStart, Services: args})
			if ctx.Err() != nil && context.Cause(ctx) == errTimeout { //nolint:errorlint // it is the cause itself
				return exit{exitNotReady, fmt.Errorf("not ready after %d s", waitTimeout)}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until the services are ready; the default")
	cmd.Flags().IntVar(&waitTimeout, "wait-timeout", 0, "`SECONDS` to wait at most")
	return cmd
}
