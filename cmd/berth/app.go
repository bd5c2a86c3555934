package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"berth/api"
	"berth/cli"
	"berth/redact"
	"berth/remote"
	"berth/spec"
)

// app is what the commands share: the streams, the global flags, and how to
// get from them to a stack and to an agent.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	global         globals
	greeted        chan greeting // the answer to greet, if that was called
	// secrets are the values that were loaded here: what is printed of files and
	// errors has them redacted.
	secrets redact.Set
}

// greeting is what the agent said of itself.
type greeting struct {
	info api.Info
	err  error
}

// greet asks who listens, beside what the command does first. It starts no
// agent: the command may yet find a mistake of the user's.
func (a *app) greet(ctx context.Context) {
	a.greeted = make(chan greeting, 1)
	client := a.dial()
	go func() {
		info, err := client.Info(ctx)
		a.greeted <- greeting{info, err}
	}()
}

// whoListens is the agent's answer, asked for now or by greet.
func (a *app) whoListens(ctx context.Context, client *api.Client) (api.Info, error) {
	if a.greeted == nil {
		return client.Info(ctx)
	}
	g := <-a.greeted
	a.greeted = nil
	return g.info, g.err
}

// out is where results go; err is for progress, warnings and errors.
func (a *app) out() cli.Screen { return cli.NewScreen(a.stdout, a.global.ansi) }
func (a *app) err() cli.Screen { return cli.NewScreen(a.stderr, a.global.ansi) }

// dial is a client for the agent, whether one listens or not.
func (a *app) dial() *api.Client { return api.NewClient(api.Socket(a.global.run)) }

// apiVersion is the version of the API that this program speaks.
const apiVersion = 1

// agent is a client for an agent that listens; it starts one if none does,
// and says so.
func (a *app) agent(ctx context.Context) (*api.Client, error) {
	client := a.dial()
	info, err := a.whoListens(ctx, client)
	if errors.Is(err, api.ErrNoAgent) {
		if err := a.startAgent(ctx); err != nil {
			return nil, err
		}
		info, err = client.Info(ctx)
	}
	if err != nil {
		return nil, err
	}
	if info.API != apiVersion {
		return nil, hinted{
			fmt.Errorf("the agent (%s) speaks version %d of the API, this berth (%s) speaks %d", info.Version, info.API, version, apiVersion),
			"install berth and berthd of one version, then restart the agent; containers go on running",
		}
	}
	return client, nil
}

func (a *app) startAgent(ctx context.Context) error {
	program, err := cli.FindAgentProgram()
	if err != nil {
		return err
	}
	started, err := cli.StartAgent(ctx, cli.AgentOptions{
		Program: program, Root: a.global.root, Run: a.global.run, Config: a.global.config,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "started the agent (pid %d, log %s)\n", started.Pid, started.Log)
	return nil
}

// options are what the global flags say about the Compose files, for commands
// that only look at them; load is for those that need the contents too.
func (a *app) options() (spec.Options, error) {
	o := spec.Options{
		ProjectDir:  a.global.projectDir,
		ProjectName: a.global.project,
		Files:       a.global.files,
		Profiles:    a.global.profiles,
		EnvFiles:    a.global.envFiles,
		Inspect:     true,

		AllResources: a.global.allResources,
	}
	o.Remote, o.Fetch = remote.Is, a.fetch
	for _, file := range o.Files {
		if file == "-" && o.Stdin == nil {
			text, err := io.ReadAll(a.stdin)
			if err != nil {
				return o, fmt.Errorf("read the Compose file from stdin: %w", err)
			}
			o.Stdin = text
		}
	}
	return o, nil
}

// fetch gives the local file of a remote Compose file, and says that it asks.
func (a *app) fetch(ctx context.Context, ref string) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", hinted{fmt.Errorf("fetch a remote Compose file: %w", err), "set HOME or XDG_CACHE_HOME"}
	}
	return remote.Fetcher{Cache: filepath.Join(dir, "berth", "remote")}.File(ctx, ref)
}

// read is spec.Load that learns the values of the secrets.
func (a *app) read(ctx context.Context, o spec.Options) (*spec.Result, error) {
	result, err := spec.Load(ctx, o)
	if err == nil {
		a.secrets.Name(result.Names()...)
		a.secrets.Add(result.SecretValues()...)
	}
	return result, err
}

// load loads the stack, limited to services if there are any. Warnings are
// printed, one line each; mistakes in the file are printed with their place
// and end the command.
func (a *app) load(ctx context.Context, services []string, noDeps bool) (*spec.Result, error) {
	o, err := a.options()
	if err != nil {
		return nil, err
	}
	o.Services, o.NoDeps, o.Inspect = services, noDeps, false
	result, err := a.read(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := a.printFindings(result.Diagnostics); err != nil {
		return nil, err
	}
	return result, nil
}

// printFindings prints what Load found, and gives the exit if it found
// errors: then only those are printed, in full.
func (a *app) printFindings(found spec.Diagnostics) error {
	screen := a.err()
	if found.Errors() {
		if err := a.printInFull(screen, found.Filter(spec.Error)); err != nil {
			return err
		}
		return exit{code: exitError}
	}
	for _, d := range found {
		line := d.Severity.String() + ": " + cli.Escape(d.Error())
		if d.Hint != "" {
			line += "; " + cli.Escape(d.Hint)
		}
		fmt.Fprintln(screen, screen.Paint(cli.Dim, a.secrets.Text(line)))
	}
	return nil
}

// printInFull prints findings with the lines that they are about.
func (a *app) printInFull(screen cli.Screen, found spec.Diagnostics) error {
	var text strings.Builder
	if err := found.Format(&text, screen.Colour); err != nil {
		return err
	}
	_, err := io.WriteString(screen, a.secrets.Text(text.String()))
	return err
}

// stackNames are the names that the Compose specification allows a project.
var stackNames = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

// stackName is the stack that a command is about which needs no file: the one
// named by -p or COMPOSE_PROJECT_NAME, else the one of the Compose file.
func (a *app) stackName(ctx context.Context) (string, error) {
	if name := cmp.Or(a.global.project, os.Getenv("COMPOSE_PROJECT_NAME")); name != "" && len(a.global.files) == 0 {
		if !stackNames.MatchString(name) {
			return "", fmt.Errorf("%q can't be the name of a stack: want lower-case letters, digits, - and _", name)
		}
		return name, nil
	}
	o, err := a.options()
	if err != nil {
		return "", err
	}
	result, err := a.read(ctx, o)
	if err != nil {
		return "", err
	}
	if err := result.Diagnostics.Err(); err != nil {
		return "", hinted{err, "-p NAME names a stack without its file; `berth ls` lists the stacks"}
	}
	return result.Stack.Name, nil
}

// stackAgent is stackName and agent, which most commands begin with.
func (a *app) stackAgent(ctx context.Context) (string, *api.Client, error) {
	name, err := a.stackName(ctx)
	if err != nil {
		return "", nil, err
	}
	client, err := a.agent(ctx)
	return name, client, err
}

// show shows a stream of progress until it ends and gives its Done.
func (a *app) show(stream iter.Seq2[api.Progress, error]) (api.Done, error) {
	screen := a.err()
	if environBool("COMPOSE_STATUS_STDOUT") {
		screen = a.out()
	}
	progress, err := cli.NewProgress(screen, a.global.progress)
	if err != nil {
		return api.Done{}, err
	}
	defer progress.Close()
	for p, err := range stream {
		if err != nil {
			return api.Done{}, err
		}
		progress.Handle(p)
		if p.Done != nil {
			return *p.Done, nil
		}
	}
	return api.Done{}, api.ErrCut
}

// carry is show for work that either is done or is an error.
func (a *app) carry(stream iter.Seq2[api.Progress, error]) error {
	done, err := a.show(stream)
	if err != nil {
		return err
	}
	return a.over(done)
}

// over is outcome; what there is to say of a success is printed.
func (a *app) over(d api.Done) error {
	if d.Outcome == api.OutcomeDone && d.Detail != "" {
		fmt.Fprintln(a.stderr, cli.Escape(d.Detail))
		if d.Hint != "" {
			fmt.Fprintln(a.stderr, "hint: "+cli.Escape(d.Hint))
		}
	}
	return outcome(d)
}

// outcome turns the end of a stream of progress into an exit.
func outcome(d api.Done) error {
	text := d.Detail
	code := exitError
	switch d.Outcome {
	case api.OutcomeDone:
		return nil
	case api.OutcomeNotReady:
		code = exitNotReady
		text = cmp.Or(text, "not ready in time")
	case api.OutcomeRolledBack:
		code = exitRolledBack
		text = cmp.Or(text, "rolled back")
	case api.OutcomePaused:
		code = exitNotReady
		if text = "the rollout has paused"; d.Detail != "" {
			text += ": " + d.Detail
		}
		d.Hint = cmp.Or(d.Hint, "`berth rollout resume` goes on, `berth rollout undo` goes back")
	case api.OutcomeSuperseded:
		text = cmp.Or(text, "a newer revision took over")
	default:
		text = cmp.Or(text, "failed")
	}
	return exit{code, hinted{errors.New(text), d.Hint}}
}

// absolute makes a flag's path absolute, so that an agent started in
// another folder means the same.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the absolute path of %s: %w", path, err)
	}
	return abs, nil
}
