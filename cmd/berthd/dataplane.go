package main

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"berth/dataplane"
)

func newDataplane(o *agentOptions) *cobra.Command {
	return &cobra.Command{
		Use:    "dataplane",
		Short:  "Serve DNS and loopback proxies to containers",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			run := abs(o.run)
			return dataplane.Run(cmd.Context(), dataplane.Options{
				SnapshotPath: filepath.Join(run, "dataplane.json"),
				Log:          slog.New(slog.NewTextHandler(os.Stderr, nil)),
			})
		},
	}
}
