package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

type lintOptions struct {
	strict bool
	format string
}

func newLint(a *app) *cobra.Command {
	var o lintOptions
	cmd := &cobra.Command{
		Use:   "lint",
		Short: "Check the Compose file",
		Long: `Check the Compose file: mistakes, warnings, and attributes that Berth
does not honour, each with its place. No agent is needed.

With --format json it prints {"errors":[…],"warnings":[…],"ignored":[…]}.` + exitStatus(
			"1    the file has errors; with --strict also attributes that are",
			"     not honoured"),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.lint(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.strict, "strict", false, "take attributes that are not honoured for errors")
	cmd.Flags().StringVar(&o.format, "format", formatText, "`FORMAT`: text or json")
	return cmd
}

func (a *app) lint(ctx context.Context, o lintOptions) error {
	if err := checkFormat(o.format, formatText, formatJSON); err != nil {
		return err
	}
	options, err := a.options()
	if err != nil {
		return err
	}
	result, err := a.read(ctx, options)
	if err != nil {
		return err
	}
	found := result.Diagnostics
	if o.strict {
		found = found.Strict()
	}
	if o.format == formatJSON {
		text, err := found.JSON()
		if err != nil {
			return err
		}
		if _, err := a.stdout.Write(a.secrets.JSON(text)); err != nil {
			return err
		}
	} else {
		screen := a.out()
		if err := a.printInFull(screen, found); err != nil {
			return err
		}
		if len(found) == 0 {
			fmt.Fprintln(screen, "no findings")
		}
	}
	if found.Errors() {
		return exit{code: exitError}
	}
	return nil
}
