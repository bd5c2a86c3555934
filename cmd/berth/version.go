package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newVersion(a *app) *cobra.Command {
	var format string
	var short bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of berth and of the agent",
		Long: `Show the versions of berth and, if one listens, of the agent. It starts
no agent.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if short {
				fmt.Fprintln(a.stdout, version)
				return nil
			}
			return a.version(cmd.Context(), format)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", formatText, "`FORMAT`: text (or pretty) or json")
	cmd.Flags().BoolVar(&short, "short", false, "only the version of berth")
	return cmd
}

// versions is the output of `berth version --format json`.
type versions struct {
	Version string    `json:"version"`
	Agent   *api.Info `json:"agent,omitempty"`
}

func (a *app) version(ctx context.Context, format string) error {
	if err := checkFormat(format, formatText, "pretty", formatJSON); err != nil {
		return err
	}
	v := versions{Version: version}
	info, err := a.dial().Info(ctx)
	switch {
	case err == nil:
		v.Agent = &info
	case !errors.Is(err, api.ErrNoAgent) && !errors.Is(err, api.ErrForbidden):
		return err
	}
	if format == formatJSON {
		return cli.WriteJSON(a.stdout, v)
	}
	fmt.Fprintf(a.stdout, "berth %s\n", version)
	switch {
	case v.Agent != nil:
		fmt.Fprintf(a.stdout, "agent %s (pid %d, runtime %s, root %s)\n", info.Version, info.Pid, info.Runtime, info.Root)
	case errors.Is(err, api.ErrForbidden):
		fmt.Fprintln(a.stdout, "agent: not allowed to ask it")
	default:
		fmt.Fprintln(a.stdout, "agent: none is running")
	}
	return nil
}
