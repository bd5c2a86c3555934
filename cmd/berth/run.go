package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

type runOptions struct {
	detach, remove, noTTY, tty, interactive bool
	noDeps, servicePorts, aliases           bool
	quietPull, quiet                        bool
	build, quietBuild, removeOrphans        bool
	pull, name                              string

	overrides runOverrides
}

func newRun(a *app) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [flags] SERVICE [COMMAND] [ARG...]",
		Short: "Run a command in a new container of a service",
		Long: `Run a command once, in a container of its own that has the settings,
networks and volumes of a service. What the service depends on is
started first. The container is no replica: it takes no traffic of the
service, publishes no ports unless asked to, is never restarted, and is
kept when it has ended, unless --rm is given. ` + "`berth down`" + ` removes it.

On a terminal the command gets one, unless -T is given. Signals are
passed on to it.` + exitStatus(
			"126  the command could not be run",
			"127  there is no such command",
			"N    the exit code of the command"),
		Example: `  berth run --rm web sh
  berth run --rm -T -e DEBUG=1 web ./manage.py migrate
  berth run --rm -p 8081:80 --name try web
  pg_dump shop | berth run --rm -T db psql -h db`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeExec,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.overrides.entrypointSet = cmd.Flags().Changed("entrypoint")
			if len(args) > 1 {
				o.overrides.command = args[1:]
			}
			return a.run(cmd.Context(), &o, args[0])
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // flags behind SERVICE are the command's
	f.BoolVarP(&o.detach, "detach", "d", false, "print the container's id and return")
	f.BoolVar(&o.remove, "rm", false, "remove the container when it has ended")
	f.BoolVarP(&o.noTTY, "no-tty", "T", false, "give the command no terminal")
	f.BoolVarP(&o.tty, "tty", "t", true, "give the command a terminal; the default on one")
	f.BoolVarP(&o.interactive, "interactive", "i", true, "pass stdin on; the default")
	f.BoolVar(&o.noDeps, "no-deps", false, "do not start what the service depends on")
	f.BoolVarP(&o.servicePorts, "service-ports", "P", false, "publish the service's ports")
	f.BoolVar(&o.aliases, "use-aliases", false, "answer to the service's names, too")
	f.BoolVar(&o.quietPull, "quiet-pull", false, "show no progress of pulls")
	f.BoolVar(&o.build, "build", false, "build images before, also those that are here")
	f.BoolVar(&o.quietBuild, "quiet-build", false, "show no progress of builds")
	f.BoolVar(&o.removeOrphans, "remove-orphans", false, "accepted for scripts: up ends services that the file no longer has")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress at all")
	f.StringVar(&o.pull, "pull", "", "pull images, `WHEN`: always, missing, never (default: as the file says)")
	f.StringVar(&o.name, "name", "", "`NAME` of the container")
	o.overrides.add(f)
	return cmd
}

func (a *app) run(ctx context.Context, o *runOptions, service string) error {
	if err := checkPullPolicy(o.pull); err != nil {
		return err
	}
	if o.removeOrphans {
		fmt.Fprintln(a.stderr, "warning: run leaves services that the file no longer has; `berth up` ends them")
	}
	a.greet(ctx)
	result, err := a.load(ctx, []string{service}, o.noDeps)
	if err != nil {
		return err
	}
	tty := o.tty && !o.noTTY && !o.detach && isTerminal(a.stdin) && isTerminal(a.stdout)
	req := api.RunRequest{
		Stack: *result.Stack, Spec: result.Stack.Services[service],
		Name: o.name, Remove: o.remove, Aliases: o.aliases, NoDeps: o.noDeps, Pull: o.pull, Start: o.detach, Actor: actor(),
	}
	req.Spec.TTY, req.Spec.StdinOpen = tty || o.detach && req.Spec.TTY, o.interactive && !o.detach
	if !o.servicePorts {
		req.Spec.Ports = nil
	}
	if err := o.overrides.apply(ctx, a, &req); err != nil {
		return err
	}
	if req.Auth, err = a.stackCredentials(ctx, &req.Stack); err != nil {
		fmt.Fprintln(a.stderr, "warning: no credentials are sent: "+cli.Escape(err.Error()))
	}
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	when, err := buildWhen(o.build, false)
	if err != nil {
		return err
	}
	if err := a.ensureBuilt(ctx, client, &req.Stack, when, o.pull, o.quietBuild || o.quiet); err != nil {
		return err
	}
	task, err := a.makeTask(client.Run(ctx, req), o)
	if err != nil {
		return started(err)
	}
	if o.detach {
		_, err := fmt.Fprintln(a.stdout, task.ID)
		return err
	}
	code, err := a.join(ctx, joining{
		tty: tty, stdin: o.interactive, sigProxy: true, detachKeys: defaultDetachKeys,
		call: func(ctx context.Context, s api.Streams) (int, error) { return client.Start(ctx, task.ID, s) },
	})
	switch {
	case err != nil:
		return started(err)
	case code != 0:
		return exit{code: code}
	}
	return nil
}

// makeTask shows the progress of a run and gives the task that was made.
func (a *app) makeTask(stream iter.Seq2[api.Progress, error], o *runOptions) (task api.Task, err error) {
	how := a.global.progress
	if o.quiet {
		how = cli.ProgressQuiet
	}
	progress, err := cli.NewProgress(a.err(), how)
	if err != nil {
		return task, err
	}
	defer progress.Close()
	for p, err := range stream {
		switch {
		case err != nil:
			return task, err
		case p.Task != nil:
			task = *p.Task
		case p.Pull != nil && o.quietPull:
		case p.Done != nil:
			return task, nil
		default:
			progress.Handle(p)
		}
	}
	return task, api.ErrCut
}

// started gives the error of a program that could not be started the exit code
// that a shell would give it.
func started(err error) error {
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeStart {
		return exit{e.ExitCode, err}
	}
	return err
}

// here is the folder where relative paths on the command line start.
func here() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the current folder: %w", err)
	}
	return dir, nil
}
