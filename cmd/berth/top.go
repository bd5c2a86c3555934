package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newTop(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "top [SERVICE...]",
		Short: "List the processes in containers",
		Long: `List the processes in the running containers of the services, with the
ids that they have on this machine.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.top(cmd.Context(), args) },
	}
}

func (a *app) top(ctx context.Context, services []string) error {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	stack, err := client.Stack(ctx, name)
	if err != nil {
		return err
	}
	for _, s := range services {
		if _, known := stack.Stack.Services[s]; !known {
			return fmt.Errorf("no such service in stack %s: %s", name, s)
		}
	}
	tasks := slices.DeleteFunc(slices.Clone(stack.Tasks), func(t api.Task) bool {
		return !wanted(services, t.Service) || t.State != api.TaskRunning && t.State != api.TaskPaused
	})
	slices.SortStableFunc(tasks, func(x, y api.Task) int {
		return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Slot, y.Slot))
	})
	table := cli.Table{Head: []string{"SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}}
	now := time.Now()
	for _, t := range tasks {
		list, err := client.Top(ctx, t.ID)
		var e *api.Error
		if errors.As(err, &e) && (e.Code == api.CodeConflict || e.Code == api.CodeNotFound) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return err
		}
		for _, p := range list {
			table.Add(t.Service, strconv.Itoa(max(1, t.Slot)), strconv.FormatUint(uint64(p.UID), 10), strconv.Itoa(p.PID), strconv.Itoa(p.PPID),
				strconv.Itoa(percent(p, now)), startTime(p.Started, now), cmp.Or(p.TTY, "?"), clockTime(p.CPU), p.Command)
		}
	}
	return table.Write(a.out())
}

// percent is the part of its life that a process spent on a processor.
func percent(p api.Process, now time.Time) int {
	age := now.Sub(p.Started)
	if age <= 0 {
		return 0
	}
	return int(100 * p.CPU / age)
}

// startTime is the time of day, or the day, as ps(1) writes STIME.
func startTime(t, now time.Time) string {
	if now.Sub(t) < 24*time.Hour {
		return t.Local().Format("15:04")
	}
	return t.Local().Format("Jan02")
}

func clockTime(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
}
