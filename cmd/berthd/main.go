// Command berthd is Berth's agent: it keeps the stacks of one machine. It is
// also the dataplane, and the small init of containers that ask for one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	_ "berth/runtime/initproc" // berthd is that program too
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var o agentOptions
	defer o.redact.Guard()
	err := newRoot(&o).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", o.redact.Text(err.Error()))
		os.Exit(1) //nolint:gocritic // there is no panic to guard against any more
	}
}

func newRoot(o *agentOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "berthd",
		Short: "Run Berth's agent",
		Long: `berthd keeps the stacks of this machine: it starts what a stack wants,
replaces what changed, and brings back what died. It serves its API on
RUN/api.sock. Containers do not depend on it: it may be restarted at any
time.

EXIT STATUS
  0  ended by SIGTERM or SIGINT
  1  could not start; the reason is one line on stderr`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return runAgent(cmd.Context(), o) },
	}
	o.flags(cmd.PersistentFlags())
	cmd.AddCommand(newDataplane(o), newDoctor(o), newStop(o))
	return cmd
}

func env(key, otherwise string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return otherwise
}

func abs(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}
