package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"berth/api"
)

func newWait(a *app) *cobra.Command {
	var down bool
	cmd := &cobra.Command{
		Use:   "wait SERVICE...",
		Short: "Wait until the containers of services have ended",
		Long: `Wait until the running containers of the services have ended, and say of
each how. A container that its restart policy follows with another one
has ended, too.` + exitStatus("N    the exit code of the container that ended last"),
		Example: `  berth wait tests
  berth wait --down-project tests`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.wait(cmd.Context(), args, down)
		},
	}
	cmd.Flags().BoolVar(&down, "down-project", false, "remove the stack when the first container has ended")
	return cmd
}

func (a *app) wait(ctx context.Context, services []string, down bool) error {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	stack, err := client.Stack(ctx, name)
	if err != nil {
		return err
	}
	tasks, err := waitable(stack, services)
	if err != nil {
		return err
	}
	code, err := a.await(ctx, client, tasks, down)
	if err != nil {
		return err
	}
	if down {
		if err := a.carry(client.Down(ctx, name, api.DownRequest{})); err != nil {
			return err
		}
	}
	if code != 0 {
		return exit{code: code}
	}
	return nil
}

// waitable are the tasks of services that run or have just ended.
func waitable(stack api.StackStatus, services []string) ([]api.Task, error) {
	var tasks []api.Task
	for _, service := range services {
		found := false
		for _, t := range stack.Tasks {
			if t.Service == service && t.Current {
				tasks, found = append(tasks, t), true
			}
		}
		if _, known := stack.Stack.Services[service]; !found && !known {
			return nil, fmt.Errorf("no such service in stack %s: %s", stack.Name, service)
		}
		if !found {
			return nil, hinted{fmt.Errorf("%s has no container to wait for", service), "berth ps -a " + service}
		}
	}
	return tasks, nil
}

// await says how each task ended, as they end, and gives the last code; of the
// first one if that is enough.
func (a *app) await(ctx context.Context, client *api.Client, tasks []api.Task, first bool) (code int, err error) {
	type end struct {
		task api.Task
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	ends := make(chan end, len(tasks))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, t := range tasks {
		wg.Go(func() {
			done, err := client.Wait(ctx, t.ID)
			ends <- end{done, err}
		})
	}
	for range tasks {
		e := <-ends
		if e.err != nil {
			return 0, e.err
		}
		if _, err := fmt.Fprintf(a.stdout, "container %q exited with status code %d\n", e.task.Name, e.task.ExitCode); err != nil {
			return 0, err
		}
		if code = e.task.ExitCode; first {
			break
		}
	}
	return code, nil
}
