package main

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/api"
)

func newScale(a *app) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "scale SERVICE=NUM...",
		Short: "Set how many tasks services have",
		Long: `Set how many tasks services have, beginning with a new revision of the
stack as it runs: the Compose file is not looked at, and the next up
brings what it says. Tasks that are taken away are drained first. Wait
until the services are ready.` + exitStatus("3    not ready in time"),
		Example: `  berth scale web=3
  berth scale web=3 worker=0`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeScale,
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := parseScale("", args)
			if err != nil {
				return err
			}
			return a.scale(cmd.Context(), api.ScaleRequest{Services: to, Wait: !noWait, Actor: actor()})
		},
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (a *app) scale(ctx context.Context, req api.ScaleRequest) error {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	return a.carryRollout(ctx, scaled(client.Scale(ctx, name, req), req.Services))
}

// scaled says of the services that they are scaled, where the agent only sees
// tasks come and go.
func scaled(stream iter.Seq2[api.Progress, error], to map[string]int) iter.Seq2[api.Progress, error] {
	return func(yield func(api.Progress, error) bool) {
		for p, err := range stream {
			if s := p.Service; s != nil && s.Change != "unchanged" {
				if n, ok := to[s.Service]; ok {
					s.Change = fmt.Sprintf("scaled to %d", n)
				}
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// parseScale reads SERVICE=NUM texts; what stands before them in a mistake is
// the flag that they are from.
func parseScale(flag string, texts []string) (map[string]int, error) {
	var to map[string]int
	for _, s := range texts {
		service, number, found := strings.Cut(s, "=")
		n, err := strconv.Atoi(number)
		if !found || service == "" || err != nil || n < 0 {
			return nil, fmt.Errorf("%s%q: want SERVICE=NUM", flag, s)
		}
		if to == nil {
			to = map[string]int{}
		}
		to[service] = n
	}
	return to, nil
}
