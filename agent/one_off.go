package agent

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"berth/api"
	"berth/crash"
	"berth/reconciler"
	"berth/spec"
	"berth/store"
)

// A one-off task fills no slot: somebody asked for it, it runs once. Its record
// holds what it needs of its stack, as no revision may have its service the way
// it was asked for. It is committed before anything is made, like any other
// task: a dead agent's is adopted if it ran, and else noted as lost.

// runOneOff brings up what a one-off task depends on, makes the task, and
// reports it.
func (a *Agent) runOneOff(ctx context.Context, req *api.RunRequest, report func(api.Progress)) (*api.Done, error) {
	if err := checkRun(req); err != nil {
		return nil, err
	}
	if err := a.prepareStack(ctx, req, report); err != nil {
		return nil, err
	}
	t, err := a.makeOneOff(ctx, req, report)
	if err != nil {
		return nil, err
	}
	if req.Start {
		if t, err = a.startOneOff(ctx, t); err != nil {
			return nil, err
		}
	}
	made := a.apiTask(a.w.view(), t)
	report(api.Progress{Task: &made})
	return &api.Done{Outcome: api.OutcomeDone}, nil
}

// containerName is what Docker allows as one.
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

func checkRun(req *api.RunRequest) error {
	if err := validName(req.Stack.Name); err != nil {
		return err
	}
	switch {
	case req.Spec.Name == "":
		return invalid("a task to run needs the name of its service")
	case req.Name != "" && (!containerName.MatchString(req.Name) || len(req.Name) > 63):
		return invalid("task name %q: use letters, digits, _, . and -, beginning with a letter or digit, at most 63", req.Name)
	}
	return nil
}

// prepareStack makes the stack be there, with what the task depends on running
// as its conditions ask.
func (a *Agent) prepareStack(ctx context.Context, req *api.RunRequest, report func(api.Progress)) error {
	deps := req.Spec.DependsOn
	if req.NoDeps {
		deps = nil
	}
	services := closure(&req.Stack, deps)
	cur, _ := a.w.stack(req.Stack.Name)
	if cur != nil && len(services) == 0 {
		return nil
	}
	st := req.Stack
	st.Services = map[string]spec.Service{}
	for _, name := range services {
		st.Services[name] = req.Stack.Services[name]
	}
	applied, err := a.apply(ctx, &api.ApplyRequest{Stack: st, Services: services, Pull: req.Pull, Auth: req.Auth, Actor: req.Actor}, report)
	if err != nil || len(deps) == 0 {
		return err
	}
	a.loop.settle(ctx)
	return a.awaitDependencies(ctx, applied, services, deps, report)
}

// closure are the services that deps name and all that those depend on.
func closure(st *spec.Stack, deps []spec.Dependency) []string {
	seen := map[string]bool{}
	var visit func([]spec.Dependency)
	visit = func(deps []spec.Dependency) {
		for _, d := range deps {
			if s, ok := st.Services[d.Service]; ok && !seen[d.Service] {
				seen[d.Service] = true
				visit(s.DependsOn)
			}
		}
	}
	visit(deps)
	return sortedKeys(seen)
}

// awaitDependencies waits until the conditions of deps hold, or never will.
func (a *Agent) awaitDependencies(ctx context.Context, applied *api.Applied, services []string, deps []spec.Dependency, report func(api.Progress)) error {
	watch := newWatcher(a, services)
	for {
		plan, changed := a.loop.plan(applied.Stack)
		v := a.w.view()
		s, r := v.stacks[applied.Stack], v.revisions[applied.Stack]
		switch {
		case s == nil || s.Removing != nil:
			return conflict("", "stack %s is being removed", applied.Stack)
		case s.Revision != applied.Revision && s.Rollout != nil && s.Rollout.Failed == applied.Revision:
			return conflict("", "what %s depends on did not come up: %s", applied.Stack, s.Rollout.Reason)
		}
		if plan != nil && plan.Revision == r.Number {
			watch.report(plan, r, report)
			for _, st := range plan.Services {
				if watch.cares(st.Service) && st.Phase == reconciler.PhaseFailing && st.Failures >= crashLoop {
					return conflict("", "%s: %s", st.Service, st.Reason)
				}
			}
		}
		why, final := reconciler.Unmet(a.desired(v, s, r), a.observed(v, s, r), deps, time.Now())
		switch {
		case why == "":
			return nil
		case final:
			return conflict("", "%s", why)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// makeOneOff records a task and makes its container, which is not started. The
// stack must be there.
func (a *Agent) makeOneOff(ctx context.Context, req *api.RunRequest, report func(api.Progress)) (*store.Task, error) {
	part := partOf(&req.Stack, oneOffSpec(req))
	r := &store.Revision{Stack: part, Digests: map[string]string{}}
	if err := a.checkStack(r); err != nil {
		return nil, err
	}
	if err := a.checkMachine(r); err != nil {
		return nil, err
	}
	if err := a.pullAll(ctx, &api.ApplyRequest{Pull: req.Pull, Auth: req.Auth}, r, report); err != nil {
		return nil, err
	}
	id, err := a.recordOneOff(ctx, req, r)
	if err != nil {
		return nil, err
	}
	a.events.task(a.w.task(id), "create", "")
	release := a.oneOffs.hold(id)
	defer release()
	// A client that goes away does not leave half a container.
	ctx = context.WithoutCancel(ctx)
	t := a.w.task(id)
	err = a.furnishOneOff(ctx, t)
	if err != nil {
		if rerr := a.removeOneOff(ctx, t); rerr != nil {
			a.log.Error("take back a task that could not be made", "task", t.Name(), "err", rerr)
		}
		return nil, notStarted(fmt.Errorf("%s: %w", t.Name(), err))
	}
	a.oneOffs.wait(id)
	return t, nil
}

// notStarted adds to an error of a program that can't be run the code that a
// shell would exit with.
func notStarted(err error) error {
	if !unstartable(err) {
		return err
	}
	return &api.Error{Status: http.StatusUnprocessableEntity, Code: api.CodeStart, Detail: err.Error(), ExitCode: startExit(err)}
}

// furnishOneOff makes networks and container of a recorded task.
func (a *Agent) furnishOneOff(ctx context.Context, t *store.Task) error {
	v := a.w.view()
	for _, e := range t.Endpoints {
		if n := v.networks[e.Network]; n != nil && !a.ensured.has(n) {
			if err := a.ensureNetwork(ctx, e.Network); err != nil {
				return err
			}
		}
	}
	return a.makeContainer(ctx, t)
}

// oneOffSpec is the service as a one-off task runs it: nothing in it that only
// one task may have, and no restart.
func oneOffSpec(req *api.RunRequest) *spec.Service {
	s := req.Spec
	s.Replicas, s.Restart, s.OneShot, s.ContainerName, s.MACAddress = 1, spec.RestartPolicy{Condition: spec.RestartNo}, false, "", ""
	s.DependsOn = nil
	if s.Image == "" {
		s.Image = req.Stack.ImageOf(s.Name) // it is only built
	}
	s.Networks = slices.Clone(s.Networks)
	for i := range s.Networks {
		at := &s.Networks[i]
		at.IPv4, at.IPv6, at.MAC = "", "", ""
		if !req.Aliases {
			at.Aliases = nil
		}
	}
	return &s
}

// partOf is a stack with one service, and of the rest what that uses.
func partOf(st *spec.Stack, s *spec.Service) spec.Stack {
	out := *st
	out.Services = map[string]spec.Service{s.Name: *s}
	u := usedBy(&out, func(string) bool { return true })
	out.Networks = only(st.Networks, u.networks)
	out.Volumes = only(st.Volumes, u.volumes)
	out.Configs = only(st.Configs, u.configs)
	out.Secrets = only(st.Secrets, u.secrets)
	return out
}

func only[V any](m map[string]V, used map[string]bool) map[string]V {
	out := map[string]V{}
	for key, v := range m {
		if used[key] {
			out[key] = v
		}
	}
	return out
}

// recordOneOff commits the intent: id, name, addresses, volumes, ports, and the
// networks that are not there yet.
func (a *Agent) recordOneOff(ctx context.Context, req *api.RunRequest, r *store.Revision) (id string, err error) {
	a.contents.RLock()
	defer a.contents.RUnlock()
	st := &r.Stack
	if err := a.keepAllContents(ctx, st, "", a.secrets.Put, func(api.Progress) {}); err != nil {
		return "", err
	}
	if err := noteUses(st, a.secrets.Get); err != nil {
		return "", err
	}
	if err := a.checkContents(r, a.secrets.Get); err != nil {
		return "", err
	}
	svc := st.Services[req.Spec.Name]
	id = withLetter(randomID())
	t := store.Task{
		ID: id, Stack: st.Name, Service: svc.Name, Attempt: 1, Image: svc.Image, Digest: r.Digests[svc.Name], Spec: svc,
		OneOff: &store.OneOff{
			Name:   cmp.Or(req.Name, fmt.Sprintf("%s-%s-run-%s", st.Name, svc.Name, id)),
			Remove: req.Remove, Aliases: req.Aliases, Stack: *st, Job: req.Job, Fire: req.Fire,
		},
		State: store.StatePending, Created: time.Now(),
	}
	own := &t.OneOff.Stack
	own.Services, own.Jobs, own.Positions, own.Files, own.EnvFiles = nil, nil, nil, nil, nil
	if t.Spec.Ports, err = a.holdOneOff(&t); err != nil {
		return "", placed(st, "services."+svc.Name+".ports", err)
	}
	crash.At("oneoff.record")
	if err = a.w.commit(func(c *change) error { return a.putOneOff(c, &t, r) }); err != nil {
		a.ports.release(ofTask + t.Name())
		return "", err
	}
	crash.At("oneoff.recorded")
	return id, nil
}

// putOneOff puts t and what it needs into c.
func (a *Agent) putOneOff(c *change, t *store.Task, r *store.Revision) error {
	s := c.w.stacks[t.Stack]
	if s == nil || s.Removing != nil {
		return conflict("", "stack %s is being removed", t.Stack)
	}
	for _, o := range c.w.tasks {
		if o.Name() == t.Name() && o.State != store.StateRemoved {
			return conflict("choose another --name", "the name %s is taken by another task (%s)", t.Name(), o.ID)
		}
	}
	for _, key := range sortedKeys(r.Stack.Networks) {
		if n := r.Stack.Networks[key]; ours(n) && c.network(n.Name) == nil {
			if err := a.recordNetwork(c, t.Stack, n); err != nil {
				return placed(&r.Stack, "networks."+key, err)
			}
		}
	}
	t.Revision = s.Revision
	if t.OneOff.Job != "" {
		putJob(c, s, t.OneOff.Job, func(j *store.JobState) {
			j.Runs++
			j.Fired, j.Trouble = later(j.Fired, t.OneOff.Fire), ""
			t.OneOff.Run = j.Runs
		})
	}
	if err := runningParents(c, t); err != nil {
		return err
	}
	if err := a.giveAddresses(c, t, r, &t.Spec); err != nil {
		return err
	}
	if err := a.giveVolumes(c, s, r, t, t.ID); err != nil {
		return err
	}
	c.putTask(*t)
	return nil
}

// runningTask is the newest task of a service that runs; "": none does.
func runningTask(c *change, stack, service string) string {
	var found *store.Task
	for _, t := range c.w.tasks {
		if t.Stack == stack && t.Service == service && t.OneOff == nil && t.State == store.StateRunning &&
			(found == nil || t.Created.After(found.Created)) {
			found = t
		}
	}
	if found == nil {
		return ""
	}
	return found.ID
}

// startOneOff starts a task that was made. A program that can't be started is
// an error, and the task has exited.
func (a *Agent) startOneOff(ctx context.Context, t *store.Task) (*store.Task, error) {
	ctx = context.WithoutCancel(ctx)
	release := a.oneOffs.hold(t.ID)
	defer release()
	if !a.oneOffs.begin(t.ID) {
		return nil, conflict("", "%s was started before, or taken back", t.Name())
	}
	if err := a.startTask(ctx, t, nil); err != nil {
		return nil, err
	}
	cur := a.w.task(t.ID)
	switch {
	case cur == nil:
		return nil, conflict("", "%s has been removed", t.Name())
	case cur.State == store.StateExited && cur.Started.IsZero() && cur.Reason != "":
		return nil, &api.Error{Status: http.StatusUnprocessableEntity, Code: api.CodeStart, Detail: cur.Reason, ExitCode: cur.ExitCode}
	}
	if cur.OneOff.Aliases || len(cur.Spec.Ports) > 0 {
		return cur, a.publishOneOff(ctx, cur)
	}
	if err := a.traffic.sync(ctx); err != nil { // its name
		a.log.Error("name a one-off task", "task", t.Name(), "err", err)
	}
	return cur, nil
}

func (a *Agent) publishOneOff(ctx context.Context, t *store.Task) error {
	if t.OneOff.Aliases {
		return a.publish(ctx, t)
	}
	if err := a.traffic.sync(ctx); err != nil {
		return fmt.Errorf("publish %s: %w", t.Name(), err)
	}
	return nil
}

// awaitEnd waits until t has ended. Its record stays until then.
func (a *Agent) awaitEnd(ctx context.Context, t *store.Task) (*store.Task, error) {
	release := a.oneOffs.hold(t.ID)
	defer release()
	for {
		_, changed := a.loop.plan(t.Stack)
		cur := a.w.task(t.ID)
		switch {
		case cur == nil:
			return nil, notFound("task %s has been removed", t.Name())
		case !cur.Live():
			return cur, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
