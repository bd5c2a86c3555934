package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

type lsOptions struct {
	all    bool
	quiet  bool
	format string
	filter []string
}

func newLs(a *app) *cobra.Command {
	var o lsOptions
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List stacks",
		Long: `List the stacks of this machine with how many tasks they have in which
state. Stacks of which nothing runs are listed with --all.

With --format json it prints one array, as docker compose does, of
objects with Name, Status, ConfigFiles and Revision.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.ls(cmd.Context(), o) },
	}
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "also stacks of which nothing runs")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "names only")
	cmd.Flags().StringVar(&o.format, "format", formatTable, "`FORMAT`: table, json or a Go template")
	cmd.Flags().StringArrayVar(&o.filter, "filter", nil, "`name=NAME`: only this stack")
	return cmd
}

func (a *app) ls(ctx context.Context, o lsOptions) error {
	if err := checkListFormat(o.format); err != nil {
		return err
	}
	names, err := filterValues(o.filter, "name")
	if err != nil {
		return err
	}
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	stacks, err := client.Stacks(ctx)
	if err != nil {
		return err
	}
	stacks = slices.DeleteFunc(stacks, func(s api.StackSummary) bool {
		idle := s.States[api.TaskRunning]+s.States[api.TaskRestarting]+s.States[api.TaskPaused] == 0
		return idle && !o.all && !s.Removing || len(names) > 0 && !slices.Contains(names, s.Name)
	})
	switch {
	case o.quiet:
		for _, s := range stacks {
			fmt.Fprintln(a.stdout, cli.Escape(s.Name))
		}
		return nil
	case cli.IsTemplate(o.format):
		rows := cli.LSRows(stacks)
		return rows.Write(a.stdout, o.format)
	case o.format == formatJSON:
		return cli.WriteLSJSON(a.stdout, stacks)
	}
	return cli.WriteLS(a.stdout, stacks)
}
