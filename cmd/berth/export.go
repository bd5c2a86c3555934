package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
)

func newExport(a *app) *cobra.Command {
	var output string
	var index int
	cmd := &cobra.Command{
		Use:   "export SERVICE",
		Short: "Write the file system of a container as a tar",
		Long: `Write the root file system of a running container of a service as a tar,
to stdout or to a file. What is mounted in it, volumes included, is left
out.` + exitStatus(),
		Example: `  berth export -o web.tar web
  berth export web | tar -t`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeService,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.export(cmd.Context(), args[0], index, output) },
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to this `FILE`")
	cmd.Flags().IntVar(&index, "index", 0, "of the task with this `NUMBER` (default: the first that runs)")
	return cmd
}

func (a *app) export(ctx context.Context, service string, index int, output string) error {
	if output == "" && isTerminal(a.stdout) {
		return hinted{errors.New("a tar is nothing for a terminal"), "give -o FILE, or redirect stdout"}
	}
	client, task, err := a.serviceTask(ctx, service, index)
	if err != nil {
		return err
	}
	return a.output(output, func(w io.Writer) error { return client.Export(ctx, task.ID, w) })
}

// output writes to a file, whole or not at all, or to stdout ("").
func (a *app) output(path string, write func(io.Writer) error) error {
	if path == "" {
		return write(a.stdout)
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o600), renameio.WithExistingPermissions())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer f.Cleanup() //nolint:errcheck // nothing is left after CloseAtomicallyReplace
	if err := write(f); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
