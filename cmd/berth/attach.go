package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"berth/api"
)

type attachOptions struct {
	detachKeys        string
	noStdin, sigProxy bool
	index             int
}

func newAttach(a *app) *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use:   "attach SERVICE",
		Short: "Join this terminal to the program of a running container",
		Long: `Join stdin, stdout and stderr to the main program of a running container
of a service, from now on. Signals are passed on to it. stdin reaches it
if the service has stdin_open. On a terminal the detach keys leave it
running.` + exitStatus("N    the exit code of the program"),
		Example: `  berth attach web
  berth attach --no-stdin --index 2 web`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.attach(cmd.Context(), o, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.detachKeys, "detach-keys", defaultDetachKeys, "`KEYS` that leave the container running")
	f.IntVar(&o.index, "index", 0, "the task with this `NUMBER` (default: the first that runs)")
	f.BoolVar(&o.noStdin, "no-stdin", false, "do not pass stdin on")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "pass signals on")
	return cmd
}

func (a *app) attach(ctx context.Context, o attachOptions, service string) error {
	client, task, err := a.serviceTask(ctx, service, o.index)
	if err != nil {
		return err
	}
	detail, err := client.InspectTask(ctx, task.ID)
	if err != nil {
		return err
	}
	code, err := a.join(ctx, joining{
		tty:   detail.Service.TTY && isTerminal(a.stdin) && isTerminal(a.stdout),
		stdin: !o.noStdin && detail.Service.StdinOpen, sigProxy: o.sigProxy, detachKeys: o.detachKeys,
		call: func(ctx context.Context, s api.Streams) (int, error) { return client.Attach(ctx, task.ID, s) },
	})
	switch {
	case err != nil:
		return fmt.Errorf("attach to %s: %w", task.Name, err)
	case code != 0:
		return exit{code: code}
	}
	return nil
}

// serviceTask is a running task of a service of this stack, and the agent.
func (a *app) serviceTask(ctx context.Context, service string, index int) (*api.Client, api.Task, error) {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return nil, api.Task{}, err
	}
	stack, err := client.Stack(ctx, name)
	if err != nil {
		return nil, api.Task{}, err
	}
	task, err := runningTask(stack, service, index)
	return client, task, err
}
