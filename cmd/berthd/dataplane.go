package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"berth/dataplane"
)

func newDataplane(o *agentOptions) *cobra.Command {
	return &cobra.Command{
		Use:    "dataplane",
		Short:  "Serve DNS and loopback proxies to containers",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Whoever else runs as the same user shall not look into it.
			if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
				return fmt.Errorf("close the process to others: %w", err)
			}
			return dataplane.Run(cmd.Context(), dataplane.Options{
				SnapshotPath: dataplane.SnapshotPath(abs(o.run)),
				Log:          slog.New(slog.NewTextHandler(os.Stderr, nil)),
			})
		},
	}
}
