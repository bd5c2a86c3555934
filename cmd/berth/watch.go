package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"berth/api"
	"berth/archive"
	"berth/cli"
)

type watchOptions struct {
	noUp, quiet, prune bool
}

func newWatch(a *app) *cobra.Command {
	var o watchOptions
	cmd := &cobra.Command{
		Use:   "watch [SERVICE...]",
		Short: "Bring changed source files into running containers",
		Long: `Bring the services up, then watch the files that their develop.watch
names, until Ctrl-C. A change is synced into the containers, restarts
them, runs a command in them or rebuilds the image, as the file says.

What was synced stays with the service: a new container gets it too,
until the image changes, berth up --force-recreate or berth down.` + exitStatus(),
		Example: `  berth watch
  berth watch --no-up web
  berth up --watch`,
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.watchCommand(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.noUp, "no-up", false, "the services are up: only watch")
	f.BoolVar(&o.quiet, "quiet", false, "show no progress of builds")
	f.BoolVar(&o.prune, "prune", true, "remove images that a rebuild has replaced")
	return cmd
}

func (a *app) watchCommand(ctx context.Context, o watchOptions, services []string) error {
	client := a.dial()
	w, err := a.newWatching(ctx, client, o, services)
	if err != nil {
		return err
	}
	if !o.noUp {
		up := upOptions{detach: true, quietPull: o.quiet}
		if err := a.up(ctx, up, services); err != nil {
			return err
		}
	}
	if _, err := a.agent(ctx); err != nil {
		return err
	}
	if err := w.run(ctx); err != nil {
		return err
	}
	return exit{code: exitInterrupted}
}

// newWatching reads what the Compose file wants to be watched, and notes changes
// from now on: what changes while the services come up is not missed. Findings in the
// file are told by what brings the services up.
func (a *app) newWatching(ctx context.Context, client *api.Client, o watchOptions, services []string) (*watching, error) {
	load, err := a.options()
	if err != nil {
		return nil, err
	}
	load.Services = services
	result, err := a.read(ctx, load)
	if err != nil {
		return nil, err
	}
	if result.Stack == nil {
		return nil, a.printFindings(result.Diagnostics)
	}
	rules, err := watchRules(result.Project, services)
	if err != nil {
		return nil, err
	}
	files, err := newFileWatch(rules)
	if err != nil {
		return nil, err
	}
	return &watching{app: a, client: client, stack: result.Stack.Name, rules: rules, files: files, options: o}, nil
}

// watching acts on changes of files.
type watching struct {
	*app
	client  *api.Client
	stack   string
	rules   []watchRule
	files   *fileWatch
	options watchOptions

	mu sync.Mutex // one batch at a time
}

// run watches until ctx ends.
func (w *watching) run(ctx context.Context) error {
	for _, r := range w.rules {
		if !r.initial || !r.syncs() {
			continue
		}
		list, err := r.files()
		if err != nil {
			return err
		}
		w.report(w.sync(ctx, &r, list))
	}
	w.say("watching")
	return w.files.run(ctx, func(changed []string) { w.act(ctx, changed) })
}

func (w *watching) say(format string, args ...any) {
	fmt.Fprintln(w.stderr, cli.Escape(fmt.Sprintf(format, args...)))
}

// report tells of what failed; the watch goes on.
func (w *watching) report(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		printError(w.stderr, &w.secrets, err)
	}
}

// act carries out what the rules say of changed files: per service all syncs,
// then commands, then one restart; a rebuild makes them needless.
func (w *watching) act(ctx context.Context, changed []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var services []string
	todo := map[string][]*watchRule{}
	files := map[*watchRule][]string{}
	for i := range w.rules {
		r := &w.rules[i]
		files[r] = slices.DeleteFunc(slices.Clone(changed), func(f string) bool { return !r.matches(f) })
		if len(files[r]) == 0 {
			continue
		}
		if todo[r.service] == nil {
			services = append(services, r.service)
		}
		todo[r.service] = append(todo[r.service], r)
	}
	for _, name := range services {
		w.report(w.service(ctx, name, todo[name], files))
	}
}

func (w *watching) service(ctx context.Context, name string, rules []*watchRule, files map[*watchRule][]string) error {
	if slices.ContainsFunc(rules, func(r *watchRule) bool { return r.action == types.WatchActionRebuild }) {
		return w.rebuild(ctx, name)
	}
	restart := false
	for _, r := range rules {
		if r.syncs() {
			if err := w.sync(ctx, r, files[r]); err != nil {
				return err
			}
		}
		if r.action == types.WatchActionSyncExec {
			if err := w.exec(ctx, r); err != nil {
				return err
			}
		}
		restart = restart || r.action == types.WatchActionRestart || r.action == types.WatchActionSyncRestart
	}
	if !restart {
		return nil
	}
	w.say("%s: restarting", name)
	return w.carry(w.client.Action(ctx, w.stack, api.ActionRequest{Action: api.ActionRestart, Services: []string{name}}))
}

// tasks are the running tasks of a service.
func (w *watching) tasks(ctx context.Context, service string) ([]api.Task, error) {
	stack, err := w.client.Stack(ctx, w.stack)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(stack.Tasks, func(t api.Task) bool {
		return t.Service != service || t.OneOff || t.State != api.TaskRunning && t.State != api.TaskPaused
	}), nil
}

// sync brings files into every container of the rule's service, and takes away
// those that are gone.
func (w *watching) sync(ctx context.Context, r *watchRule, files []string) error {
	tasks, err := w.tasks(ctx, r.service)
	if err != nil {
		return err
	}
	var items []archive.Item
	var gone []string
	for _, file := range files {
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, r.place(file))
			continue
		}
		items = append(items, archive.Item{Path: file, As: r.place(file)[1:]})
	}
	if len(files) == 0 {
		return nil
	}
	w.say("%s: syncing %s", r.service, count(len(files), "file"))
	if len(tasks) == 0 {
		return hinted{fmt.Errorf("no container of %s runs", r.service), "berth ps -a " + r.service}
	}
	for _, t := range tasks {
		for _, path := range gone {
			if err := w.client.SyncRemoved(ctx, t.ID, path); err != nil {
				return fmt.Errorf("sync %s: %w", t.Name, err)
			}
		}
		if err := w.send(ctx, t.ID, items); err != nil {
			return fmt.Errorf("sync %s: %w", t.Name, err)
		}
	}
	return nil
}

func (w *watching) send(ctx context.Context, task string, items []archive.Item) error {
	if len(items) == 0 {
		return nil
	}
	root, err := archive.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	r, p := io.Pipe()
	go func() { p.CloseWithError(root.PackItems(p, items)) }()
	defer r.Close()
	return w.client.Sync(ctx, task, r)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// exec runs the command of sync+exec in every container.
func (w *watching) exec(ctx context.Context, r *watchRule) error {
	tasks, err := w.tasks(ctx, r.service)
	if err != nil {
		return err
	}
	req := api.ExecRequest{Args: r.exec.Command, User: r.exec.User, WorkingDir: r.exec.WorkingDir, Privileged: r.exec.Privileged}
	for key, value := range r.exec.Environment {
		if value != nil {
			req.Env = append(req.Env, key+"="+*value)
		}
	}
	slices.Sort(req.Env)
	for _, t := range tasks {
		code, err := w.client.Exec(ctx, t.ID, req, api.Streams{Stdout: w.stderr, Stderr: w.stderr})
		if err != nil {
			return fmt.Errorf("run the command of %s: %w", t.Name, err)
		}
		if code != 0 {
			return fmt.Errorf("the command of %s exited %d", t.Name, code)
		}
	}
	return nil
}

// rebuild builds the image of a service and replaces its containers.
func (w *watching) rebuild(ctx context.Context, name string) error {
	w.say("%s: rebuilding", name)
	if err := w.up(ctx, upOptions{detach: true, build: true, noDeps: true, quietPull: w.options.quiet}, []string{name}); err != nil {
		return err
	}
	if !w.options.prune {
		return nil
	}
	if _, err := w.client.PruneImages(ctx, api.ImagePrune{}); err != nil && !api.HasCode(err, api.CodeConflict) {
		return fmt.Errorf("remove replaced images: %w", err)
	}
	return nil
}
