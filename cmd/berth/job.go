package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newJob(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job",
		Short: "Run jobs, and see how their runs ended",
		Long: `A job (jobs at the top level of the Compose file) is a container that
runs to its end, when a schedule of it fires or somebody asks for it. The
agent keeps the schedules from the moment the stack is up, and the newest
ten runs of each job with their logs.` + exitStatus(),
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJobRun(a), newJobLs(a), newJobHistory(a), newJobLogs(a))
	return cmd
}

func newJobRun(a *app) *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:   "run JOB",
		Short: "Run a job now",
		Long: `Run a job of the stack that is up now, wait for its end and print its
log. What it depends on must be as it asks within two minutes.` + exitStatus("N    the exit code of the run"),
		Example: `  berth job run backup
  berth job run -d backup`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runJob(cmd.Context(), args[0], detach) },
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for its end")
	return cmd
}

func (a *app) runJob(ctx context.Context, job string, detach bool) error {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	var task api.Task
	for p, err := range client.RunJob(ctx, name, job, api.JobRunRequest{Detach: detach, Actor: actor()}) {
		switch {
		case err != nil:
			return err
		case p.Error != nil:
			return p.Error
		case p.Task != nil:
			task = *p.Task
		}
	}
	if detach {
		_, err := fmt.Fprintln(a.stdout, task.Name)
		return err
	}
	if err := a.jobLog(ctx, client, name, job, task.ID); err != nil {
		return err
	}
	if task.ExitCode != 0 {
		return exit{code: task.ExitCode}
	}
	return nil
}

// jobLog prints the log of one run; an empty task is all runs.
func (a *app) jobLog(ctx context.Context, client *api.Client, stack, job, task string) error {
	printer := cli.NewLogPrinter(a.out(), cli.LogStyle{NoPrefix: task != ""})
	for e, err := range client.Logs(ctx, stack, api.LogQuery{Services: []string{job}, Tail: -1}) {
		if err != nil {
			return err
		}
		if task != "" && e.Task != task {
			continue
		}
		if err := printer.Print(cli.LogName(stack, e.Name), e); err != nil {
			return err
		}
	}
	return nil
}

func newJobLs(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the jobs of a stack",
		Long: `List the jobs of the stack that is up: their schedules, when they run
next and how the newest run ended. With --format json it prints one
object a line.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listJobs(cmd.Context(), format) },
	}
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table or json")
	return cmd
}

func (a *app) listJobs(ctx context.Context, format string) error {
	if err := checkFormat(format, formatTable, formatJSON); err != nil {
		return err
	}
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	jobs, err := client.Jobs(ctx, name)
	if err != nil {
		return err
	}
	t := cli.Table{Head: []string{"NAME", "IMAGE", "SCHEDULE", "NEXT", "LAST RUN"}}
	for _, j := range jobs {
		if format == formatJSON {
			if err := cli.WriteJSONLine(a.stdout, j); err != nil {
				return err
			}
			continue
		}
		next, last := "", "never"
		if !j.Next.IsZero() {
			next = "in " + units.HumanDuration(time.Until(j.Next))
		}
		if len(j.Runs) > 0 {
			last = fmt.Sprintf("%d %s", j.Runs[0].Number, runEnd(j.Runs[0]))
		}
		if j.Trouble != "" {
			last = "not run: " + j.Trouble
		}
		t.Add(j.Name, j.Image, strings.Join(j.Schedule, "; "), next, last)
	}
	if format == formatJSON {
		return nil
	}
	return t.Write(a.stdout)
}

func runEnd(r api.JobRun) string {
	switch r.State {
	case api.RunRunning:
		return "running"
	case api.RunSucceeded:
		return "succeeded " + units.HumanDuration(time.Since(r.FinishedAt)) + " ago"
	}
	return r.Reason + " " + units.HumanDuration(time.Since(r.FinishedAt)) + " ago"
}

func newJobHistory(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "history JOB",
		Short: "List the newest runs of a job",
		Long: `List the newest ten runs of a job, the newest first: when it began, how
long it took, how it ended and whether a schedule or a person asked for
it. With --format json it prints one object a line.` + exitStatus(),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.jobHistory(cmd.Context(), args[0], format) },
	}
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table or json")
	return cmd
}

func (a *app) jobHistory(ctx context.Context, name, format string) error {
	if err := checkFormat(format, formatTable, formatJSON); err != nil {
		return err
	}
	_, _, job, err := a.findJob(ctx, name)
	if err != nil {
		return err
	}
	t := cli.Table{Head: []string{"RUN", "STARTED", "DURATION", "EXIT", "ASKED BY", "RESULT"}}
	for _, r := range job.Runs {
		if format == formatJSON {
			if err := cli.WriteJSONLine(a.stdout, r); err != nil {
				return err
			}
			continue
		}
		by, took, code := "schedule", "", ""
		if r.Fire.IsZero() {
			by = "person"
		}
		if r.State != api.RunRunning {
			took, code = r.FinishedAt.Sub(r.StartedAt).Round(100*time.Millisecond).String(), strconv.Itoa(r.ExitCode)
		}
		t.Add(strconv.Itoa(r.Number), r.StartedAt.Local().Format("2006-01-02 15:04:05"), took, code, by, r.State)
	}
	if format == formatJSON {
		return nil
	}
	return t.Write(a.stdout)
}

func (a *app) findJob(ctx context.Context, name string) (string, *api.Client, api.Job, error) {
	stack, client, err := a.stackAgent(ctx)
	if err != nil {
		return "", nil, api.Job{}, err
	}
	jobs, err := client.Jobs(ctx, stack)
	if err != nil {
		return "", nil, api.Job{}, err
	}
	i := slices.IndexFunc(jobs, func(j api.Job) bool { return j.Name == name })
	if i < 0 {
		return "", nil, api.Job{}, fmt.Errorf("no job %s in stack %s", name, stack)
	}
	return stack, client, jobs[i], nil
}

func newJobLogs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "logs JOB [RUN]",
		Short: "Print the log of a run of a job, or of all",
		Long: `Print what the newest runs of a job wrote; with the number of a run, as
history lists it, what that one did.` + exitStatus(),
		Example: `  berth job logs backup
  berth job logs backup 17`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			stack, client, job, err := a.findJob(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			task := ""
			if len(args) == 2 {
				i := slices.IndexFunc(job.Runs, func(r api.JobRun) bool { return strconv.Itoa(r.Number) == args[1] })
				if i < 0 {
					return fmt.Errorf("job %s has no run %s that is remembered; see berth job history %s", job.Name, args[1], job.Name)
				}
				task = job.Runs[i].Task
			}
			return a.jobLog(cmd.Context(), client, stack, job.Name, task)
		},
	}
}
