package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"berth/dataplane"
)

func newDataplane(o *agentOptions) *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use:    "dataplane",
		Short:  "Serve DNS and loopback proxies to containers",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Whoever else runs as the same user shall not look into it.
			if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
				return fmt.Errorf("close the process to others: %w", err)
			}
			snapshot := dataplane.SnapshotPath(abs(o.run))
			if folder != "" {
				snapshot = filepath.Join(folder, filepath.Base(snapshot))
			}
			return dataplane.Run(cmd.Context(), dataplane.Options{
				SnapshotPath: snapshot,
				Log:          slog.New(slog.NewTextHandler(os.Stderr, nil)),
			})
		},
	}
	cmd.Flags().StringVar(&folder, "folder", "", "folder of the snapshot, if it can't be reached below --run")
	return cmd
}
