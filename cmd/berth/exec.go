package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"berth/api"
)

type execOptions struct {
	detach, noTTY, tty, interactive, privileged bool
	index                                       int
	user, workdir                               string
	env                                         []string
}

func newExec(a *app) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "exec [flags] SERVICE COMMAND [ARG...]",
		Short: "Run a command in a running container",
		Long: `Run a command in a running container of a service. On a terminal the
command gets one, unless -T is given.` + exitStatus(
			"126  the command could not be run",
			"127  there is no such command",
			"N    the exit code of the command"),
		Example: `  berth exec web sh
  berth exec -T db pg_dump shop > shop.sql
  berth exec --index 2 -u root -e DEBUG=1 web env`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeExec,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("tty") && o.tty {
				if !isTerminal(a.stdin) {
					return hinted{errors.New("-t needs a terminal, and stdin is none"), "leave -t out"}
				}
			}
			return a.exec(cmd.Context(), o, args[0], args[1:])
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // flags behind SERVICE are the command's
	f.BoolVarP(&o.detach, "detach", "d", false, "return when the command runs")
	f.BoolVarP(&o.noTTY, "no-tty", "T", false, "give the command no terminal")
	f.BoolVarP(&o.tty, "tty", "t", true, "give the command a terminal; the default on one")
	f.BoolVarP(&o.interactive, "interactive", "i", true, "pass stdin on; the default")
	f.BoolVar(&o.privileged, "privileged", false, "give the command all capabilities")
	f.IntVar(&o.index, "index", 0, "in the task with this `NUMBER` (default: the first that runs)")
	f.StringVarP(&o.user, "user", "u", "", "as this `USER`: NAME or UID, with :GROUP")
	f.StringVarP(&o.workdir, "workdir", "w", "", "in this `FOLDER`")
	f.StringArrayVarP(&o.env, "env", "e", nil, "`KEY=VALUE`, or KEY to pass on this one's value")
	return cmd
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) exec(ctx context.Context, o execOptions, service string, command []string) error {
	client, task, err := a.serviceTask(ctx, service, o.index)
	if err != nil {
		return err
	}
	req := api.ExecRequest{
		Args: command, Env: environment(o.env), User: o.user, WorkingDir: o.workdir,
		TTY:   o.tty && !o.noTTY && !o.detach && isTerminal(a.stdin) && isTerminal(a.stdout),
		Stdin: o.interactive && !o.detach, Privileged: o.privileged, Detach: o.detach,
	}
	streams := api.Streams{Stdout: a.stdout, Stderr: a.stderr}
	if req.Stdin {
		streams.Stdin = a.stdin
	}
	code, err := a.execOn(ctx, client, task.ID, req, streams)
	if err != nil {
		return started(err)
	}
	if code != 0 {
		return exit{code: code}
	}
	return nil
}

// execOn runs the command with the terminal in raw mode or, without one, with
// signals passed on.
func (a *app) execOn(ctx context.Context, client *api.Client, task string, req api.ExecRequest, s api.Streams) (int, error) {
	if req.TTY {
		in, out := a.stdin.(*os.File), a.stdout.(*os.File)
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return 0, fmt.Errorf("set the terminal to raw mode: %w", err)
		}
		defer term.Restore(int(in.Fd()), before) //nolint:errcheck // nothing is left to be done about it
		resize, stop := watchSize(out, false)
		defer stop()
		s.Resize = resize
		if cols, rows, err := term.GetSize(int(out.Fd())); err == nil {
			req.Cols, req.Rows = uint16(cols), uint16(rows) //nolint:gosec // a terminal is not that large
		}
		return client.Exec(ctx, task, req, s)
	}
	running, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	names, stop := passSignals(2, func() { cancel(exit{code: exitInterrupted}) })
	defer stop()
	s.Signals = names
	return client.Exec(running, task, req, s)
}

// watchSize tells the size of a terminal whenever it changes; with now, as it
// is, too.
func watchSize(f *os.File, now bool) (<-chan api.WindowSize, func()) {
	changed := make(chan os.Signal, 1)
	if now {
		changed <- syscall.SIGWINCH
	}
	signal.Notify(changed, syscall.SIGWINCH)
	sizes := make(chan api.WindowSize)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-changed:
			}
			cols, rows, err := term.GetSize(int(f.Fd()))
			if err != nil {
				continue
			}
			select {
			case <-done:
				return
			case sizes <- api.WindowSize{Rows: uint16(rows), Cols: uint16(cols)}: //nolint:gosec // a terminal is not that large
			}
		}
	}()
	return sizes, func() { signal.Stop(changed); close(done) }
}

// passSignals gives the names of signals that this process gets, to be passed
// on to the command. With the last one the command had its chance, and giveUp is
// called.
func passSignals(last int, giveUp func()) (<-chan string, func()) {
	got := make(chan os.Signal, 4)
	signal.Notify(got, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	names := make(chan string)
	done := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			var name string
			select {
			case <-done:
				return
			case s := <-got:
				if n >= last {
					giveUp()
				}
				name = map[os.Signal]string{os.Interrupt: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT"}[s]
			}
			select {
			case <-done:
				return
			case names <- name:
			}
		}
	}()
	return names, func() { signal.Stop(got); close(done) }
}

// runningTask finds the task of a service to act in: the one with that
// number, or the first that runs.
func runningTask(stack api.StackStatus, service string, index int) (api.Task, error) {
	known := false
	var running []api.Task
	for _, t := range stack.Tasks {
		if t.Service != service {
			continue
		}
		known = true
		if t.State == api.TaskRunning && (index == 0 || t.Slot == index) {
			running = append(running, t)
		}
	}
	// During a rollout a slot has two: the newer one is meant.
	// One-off tasks are for where nothing else runs.
	slices.SortFunc(running, func(x, y api.Task) int {
		return cmp.Or(later(x.OneOff)-later(y.OneOff), cmp.Compare(x.Slot, y.Slot), y.CreatedAt.Compare(x.CreatedAt))
	})
	_, inFile := stack.Stack.Services[service]
	switch {
	case len(running) > 0:
		return running[0], nil
	case !known && !inFile:
		return api.Task{}, fmt.Errorf("no such service in stack %s: %s", stack.Name, service)
	case index > 0:
		return api.Task{}, hinted{fmt.Errorf("%s-%d does not run", service, index), "berth ps -a " + service}
	}
	return api.Task{}, hinted{fmt.Errorf("no container of %s runs", service), "berth ps -a " + service}
}

func later(b bool) int {
	if b {
		return 1
	}
	return 0
}

// environment completes KEY to KEY=VALUE from this process's environment; a
// KEY that is not set here is left out.
func environment(env []string) []string {
	var full []string
	for _, e := range env {
		if key, _, given := strings.Cut(e, "="); !given {
			value, set := os.LookupEnv(key)
			if !set {
				continue
			}
			e = key + "=" + value
		}
		full = append(full, e)
	}
	return full
}
