package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"berth/api"
	"berth/crash"
	"berth/images"
	"berth/reconciler"
	"berth/spec"
	"berth/store"
)

// A rollout is a record in its stack: which revision it leads to, which stable
// one a failure goes back to, and how far it is. The planner sees it, decides,
// and asks with an action for what follows; only these functions change it.

// underWay says that a rollout has not ended.
func underWay(r *store.Rollout) bool { return r != nil && r.Ended.IsZero() }

// beginRollout puts into s the rollout that leads to next. What an earlier one
// touched and did not finish is touched by this one too: both go back to the
// same stable revision.
func (a *Agent) beginRollout(c *change, s *store.Stack, cur *store.Stack, rev, next *store.Revision, actor string) {
	now := time.Now()
	r := &store.Rollout{
		Revision: next.Number, From: s.Stable, State: api.RolloutProgressing, Actor: actor, Started: now, Since: now,
	}
	if cur != nil {
		r.Epochs, r.Renewals = cur.Epochs, cur.Renewals
	}
	r.Touched = a.touched(c, s, cur, rev, next)
	if cur != nil && underWay(cur.Rollout) {
		for name := range cur.Rollout.Touched {
			r.Touched[name] = true
		}
		if cur.Rollout.From != 0 {
			r.Epochs, r.Renewals = cur.Rollout.Epochs, cur.Rollout.Renewals
		}
		c.annotate(s.Name, cur.Rollout.Revision, stateSuperseded, fmt.Sprintf("revision %d took over", next.Number))
	}
	s.Rollout = r
}

// stateSuperseded is the state of a revision whose rollout another one ended.
const stateSuperseded = "superseded"

// touched are the services whose tasks two revisions replace, or change in a way
// that may make them fail.
func (a *Agent) touched(c *change, s, cur *store.Stack, rev, next *store.Revision) map[string]bool {
	out := map[string]bool{}
	var before map[string]string
	if rev != nil {
		before = keys(view{networks: c.w.networks}, cur, rev)
	}
	networks := maps.Clone(c.w.networks)
	for name, n := range c.networks {
		networks[name] = n
		if n == nil {
			delete(networks, name)
		}
	}
	after := keys(view{networks: networks}, s, next)
	for name, key := range after {
		is := next.Stack.Services[name]
		if before[name] != key {
			out[name] = true
		} else if was := rev.Stack.Services[name]; risky(&was, &is) || !maps.Equal(inPlaceContents(rev, name), inPlaceContents(next, name)) {
			out[name] = true
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			out[name] = true
		}
	}
	return out
}

// risky says that what changes in place may make a task fail: its limits, or
// what it is tested with.
func risky(was, is *spec.Service) bool {
	of := func(s *spec.Service) []byte {
		return encoded([]any{s.Resources, s.Healthcheck, s.Readiness, s.Liveness})
	}
	return !bytes.Equal(of(was), of(is))
}

// rolloutOf is the rollout of s as the planner sees it; nil: it has ended.
func rolloutOf(s *store.Stack) *reconciler.Rollout {
	if !underWay(s.Rollout) {
		return nil
	}
	r := &reconciler.Rollout{
		Stable: s.Rollout.From != 0, Touched: s.Rollout.Touched, Since: s.Rollout.Since,
		State: map[string]reconciler.RolloutState{
			api.RolloutPaused: reconciler.Paused, api.RolloutRollingBack: reconciler.RollingBack,
			api.RolloutRollbackPaused: reconciler.RollbackPaused,
		}[s.Rollout.State],
	}
	if s.Rollout.Canary != nil {
		r.Canary = s.Rollout.Canary.Service
	}
	return r
}

// Defaults of a rollout for a silent file (DESIGN.md, Rollout).
const (
	defaultGrace       = 10 * time.Second
	defaultDrain       = 30 * time.Second
	defaultParallelism = 1
	defaultMonitor     = 10 * time.Second
)

// updateOf fills the defaults of update_config in, or those of
// rollback_config while rolling back: then all at once, as what is gone back
// to has been watched before, and a failure pauses.
func updateOf(s *spec.Service, rollback bool) reconciler.Update {
	u := reconciler.Update{Parallelism: defaultParallelism, Monitor: defaultMonitor}
	from := s.Update
	if rollback {
		u = reconciler.Update{OnFailure: reconciler.ActionPause}
		from = s.Rollback
	}
	if from == nil {
		return u
	}
	if from.Parallelism != nil {
		u.Parallelism = *from.Parallelism
	}
	if from.Delay != nil {
		u.Delay = *from.Delay
	}
	if from.Monitor != nil {
		u.Monitor = *from.Monitor
	}
	u.MaxFailureRatio = from.MaxFailureRatio
	switch from.FailureAction {
	case "rollback":
		u.OnFailure = reconciler.ActionRollback
	case "pause":
		u.OnFailure = reconciler.ActionPause
	case "continue":
		u.OnFailure = reconciler.ActionContinue
	}
	return u
}

// errMoved says that a stack was changed between two looks at it.
var errMoved = errors.New("the stack has changed since")

// goBack makes an earlier revision the wanted one. failed is the revision that
// it leaves because of why; 0: nothing failed, the user asks.
func (a *Agent) goBack(stack string, to, failed uint64, why, actor string) error {
	target, err := a.revision(stack, to)
	if err != nil {
		return fmt.Errorf("roll back to revision %d: %w", to, err)
	}
	a.contents.RLock()
	defer a.contents.RUnlock()
	cur, rev := a.w.stack(stack)
	if cur == nil || cur.Removing != nil || failed != 0 && (cur.Revision != failed || !underWay(cur.Rollout)) {
		return nil // a plan made before
	}
	s := *cur
	s.Revision = to
	now := time.Now()
	r := &store.Rollout{
		Revision: to, From: to, Failed: failed, State: api.RolloutRollingBack, Reason: why,
		Started: now, Since: now, Actor: actor,
	}
	if underWay(cur.Rollout) {
		r.Touched = maps.Clone(cur.Rollout.Touched)
		if cur.Rollout.From == to {
			s.Epochs, s.Renewals = cur.Rollout.Epochs, cur.Rollout.Renewals
		}
	}
	chosen, err := a.ports.hold(stack, &target.Stack, s.Ports)
	if err != nil {
		// What still runs is what to keep: the ports that are free are served.
		a.log.Error("take the published ports for a rollback", "stack", stack, "err", err)
		chosen = s.Ports
	}
	s.Ports = chosen
	crash.At("rollback.commit")
	err = a.w.commit(func(c *change) error {
		if c.w.stacks[stack] != cur {
			return errMoved
		}
		if err := a.resources(c, &s, target); err != nil {
			return err
		}
		if r.Touched == nil {
			r.Touched = map[string]bool{}
		}
		for name := range a.touched(c, &s, cur, rev, target) {
			r.Touched[name] = true
		}
		s.Rollout = r
		switch {
		case failed != 0:
			c.annotate(stack, failed, api.RolloutRolledBack, why)
		case underWay(cur.Rollout):
			c.annotate(stack, cur.Rollout.Revision, stateSuperseded, fmt.Sprintf("rolled back to revision %d", to))
		}
		c.putStack(s)
		c.putRevision(stack, *target)
		return nil
	})
	if err != nil {
		return err
	}
	crash.At("rollback.committed")
	a.ports.keep(stack, &target.Stack, chosen)
	a.log.Warn("rolling back", "stack", stack, "from", cur.Revision, "to", to, "why", why)
	a.events.emit(apiEvent{Type: "stack", Action: "rollback", Stack: stack, Revision: to, Message: why})
	a.loop.forgive(stack)
	a.loop.wake()
	return nil
}

// setRollout changes the rollout of a stack that is under way. revision guards
// against a decision about an earlier one.
func (a *Agent) setRollout(stack string, revision uint64, f func(*change, *store.Stack, *store.Rollout)) error {
	crash.At("rollout.change")
	return a.w.commit(func(c *change) error {
		cur := c.w.stacks[stack]
		if cur == nil || cur.Revision != revision || !underWay(cur.Rollout) {
			return nil
		}
		s, r := *cur, *cur.Rollout
		s.Rollout = &r
		f(c, &s, &r)
		c.putStack(s)
		return nil
	})
}

// pauseRollout stops a rollout from replacing further slots.
func (a *Agent) pauseRollout(stack string, revision uint64, why string) error {
	err := a.setRollout(stack, revision, func(_ *change, _ *store.Stack, r *store.Rollout) {
		r.Reason = why
		switch r.State {
		case api.RolloutRollingBack:
			r.State = api.RolloutRollbackPaused
		case api.RolloutProgressing, api.RolloutCanary:
			r.State = api.RolloutPaused
		}
	})
	if err == nil {
		crash.At("rollout.paused")
		a.events.emit(apiEvent{Type: "stack", Action: "rollout_pause", Stack: stack, Revision: revision, Message: why})
		a.loop.wake()
	}
	return err
}

// completeRollout makes the wanted revision the stable one.
func (a *Agent) completeRollout(stack string, revision uint64) error {
	state := api.RolloutComplete
	err := a.setRollout(stack, revision, func(c *change, s *store.Stack, r *store.Rollout) {
		if r.State == api.RolloutRollingBack {
			state = api.RolloutRolledBack
		}
		r.State, r.Ended = state, time.Now()
		s.Stable = revision
		rev := c.w.revisions[stack]
		s.Completed = a.completed(c, s, rev)
		c.annotate(stack, revision, api.RolloutComplete, "")
		c.prune(stack, revision)
		a.dropVIPs(c, stack, &rev.Stack)
	})
	if err == nil {
		crash.At("rollout.completed")
		a.events.emit(apiEvent{Type: "stack", Action: "rollout_" + state, Stack: stack, Revision: revision})
		a.loop.wake()
	}
	return err
}

// keptCompletions is how many completed versions of a one-shot are remembered.
const keptCompletions = 2 * keptRevisions

// completed adds the versions of one-shots that have run to their end.
func (a *Agent) completed(c *change, s *store.Stack, rev *store.Revision) map[string][]string {
	out := maps.Clone(s.Completed)
	if out == nil {
		out = map[string][]string{}
	}
	for _, t := range c.w.tasks {
		svc, ok := rev.Stack.Services[t.Service]
		done := t.State == store.StateExited && t.ExitCode == 0 && t.Reason == ""
		if !ok || !svc.OneShot || t.Stack != s.Name || !done || slices.Contains(out[t.Service], t.Key) {
			continue
		}
		list := append(slices.Clone(out[t.Service]), t.Key)
		out[t.Service] = list[max(0, len(list)-keptCompletions):]
	}
	return out
}

// runs says for each one-shot of next in which revision it has to run: again
// when it, or a service that waits for its end, has changed.
func runs(v view, rev, next *store.Revision) map[string]uint64 {
	changed := func(name string) bool {
		now := next.Stack.Services[name]
		before, ok := rev.Stack.Services[name]
		return !ok || spec.Hash(&before, identity(v, rev, name)) != spec.Hash(&now, identity(v, next, name))
	}
	out := map[string]uint64{}
	for name, s := range next.Stack.Services {
		if !s.OneShot {
			continue
		}
		out[name] = next.Number
		if rev == nil || changed(name) {
			continue
		}
		again := false
		for other, o := range next.Stack.Services {
			waits := slices.ContainsFunc(o.DependsOn, func(d spec.Dependency) bool {
				return d.Service == name && d.Condition == spec.DependsCompleted
			})
			again = again || waits && !o.OneShot && changed(other)
		}
		if !again {
			out[name] = rev.Runs[name]
		}
	}
	return out
}

func (a *Agent) rolloutStatus(stack string) (*api.Rollout, error) {
	s, rev := a.w.stack(stack)
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	out := &api.Rollout{Stack: stack, Revision: s.Revision, From: s.Stable, State: api.RolloutComplete}
	if r := s.Rollout; r != nil {
		out.Revision, out.From, out.Failed, out.State, out.Reason = r.Revision, r.From, r.Failed, r.State, r.Reason
		out.StartedAt, out.EndedAt, out.Actor = r.Started, r.Ended, r.Actor
		if r.Canary != nil {
			out.Canary = &api.Canary{Service: r.Canary.Service, Percent: r.Canary.Percent}
		}
	}
	if plan, _ := a.loop.plan(stack); plan != nil {
		for _, st := range plan.Services {
			out.Services = append(out.Services, a.serviceStatus(st, rev))
		}
	}
	return out, nil
}

func conflict(hint, format string, args ...any) error {
	return &api.Error{Status: http.StatusConflict, Code: api.CodeConflict, Detail: fmt.Sprintf(format, args...), Hint: hint}
}

// rolloutAction pauses, resumes, undoes or promotes the rollout of a stack.
func (a *Agent) rolloutAction(ctx context.Context, stack string, req *api.RolloutRequest, report func(api.Progress)) (*api.Done, error) {
	s, _ := a.w.stack(stack)
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	if !underWay(s.Rollout) {
		if req.Action == api.RolloutUndo && stateOf(s) != api.RolloutRolledBack { // not twice
			return a.rollback(ctx, stack, &api.RollbackRequest{Wait: req.Wait, Actor: req.Actor}, report)
		}
		return nil, conflict("see `berth rollout status`", "no rollout of stack %s is under way: the last one is %s", stack, strings.ReplaceAll(or(stateOf(s), "complete"), "_", " "))
	}
	revision, state, who := s.Revision, s.Rollout.State, or(req.Actor, "the user")
	switch req.Action {
	case api.RolloutPause:
		if state == api.RolloutPaused || state == api.RolloutRollbackPaused {
			return &api.Done{Outcome: api.OutcomeDone, Detail: "it is paused already"}, nil
		}
		return &api.Done{Outcome: api.OutcomeDone}, a.pauseRollout(stack, revision, "asked for by "+who)
	case api.RolloutResume:
		if state != api.RolloutPaused && state != api.RolloutRollbackPaused {
			return nil, conflict("see `berth rollout status`", "the rollout of stack %s is not paused but %s", stack, state)
		}
	case api.RolloutPromote:
		if s.Rollout.Canary == nil {
			return nil, conflict("start one with `berth canary SERVICE 10%`", "stack %s has no canary", stack)
		}
	case api.RolloutUndo, api.RolloutAbort:
		return a.undo(ctx, s, req, report)
	default:
		return nil, invalid("no such action: %s", req.Action)
	}
	a.retryFailed(stack, sortedKeys(s.Rollout.Touched))
	err := a.setRollout(stack, revision, func(_ *change, _ *store.Stack, r *store.Rollout) {
		r.Since, r.Reason = time.Now(), ""
		switch {
		case req.Action == api.RolloutPromote:
			r.State, r.Canary = api.RolloutProgressing, nil
		case state == api.RolloutRollbackPaused:
			r.State = api.RolloutRollingBack
		case r.Canary != nil:
			r.State = api.RolloutCanary
		default:
			r.State = api.RolloutProgressing
		}
	})
	if err != nil {
		return nil, err
	}
	crash.At("rollout.resumed")
	a.loop.wake()
	if req.Action == api.RolloutPromote {
		if err := a.traffic.sync(ctx); err != nil {
			return nil, err
		}
	}
	return a.followIf(ctx, req.Wait, stack, revision, report)
}

func stateOf(s *store.Stack) string {
	if s.Rollout == nil {
		return ""
	}
	return s.Rollout.State
}

// undo takes the rollout back that is under way.
func (a *Agent) undo(ctx context.Context, s *store.Stack, req *api.RolloutRequest, report func(api.Progress)) (*api.Done, error) {
	r := s.Rollout
	switch {
	case r.State == api.RolloutRollingBack || r.State == api.RolloutRollbackPaused:
		return nil, conflict("see `berth rollout status`", "stack %s is rolling back to revision %d already", s.Name, r.Revision)
	case r.From == 0:
		return nil, conflict("", "stack %s has no stable revision to go back to", s.Name)
	}
	if err := a.goBack(s.Name, r.From, s.Revision, "undone by "+or(req.Actor, "the user"), req.Actor); err != nil {
		return nil, err
	}
	done, err := a.followIf(ctx, req.Wait, s.Name, r.From, report)
	return done, err
}

// followIf follows the rollout to revision if the client waits for it.
func (a *Agent) followIf(ctx context.Context, wait bool, stack string, revision uint64, report func(api.Progress)) (*api.Done, error) {
	if !wait {
		return &api.Done{Outcome: api.OutcomeDone}, nil
	}
	a.loop.settle(ctx)
	return a.follow(ctx, stack, revision, nil, report)
}

// revisions reads all kept revisions of a stack, oldest first.
func (a *Agent) revisions(stack string) ([]store.Revision, error) {
	var out []store.Revision
	err := a.db.View(func(tx store.Tx) error {
		return store.Each(tx, store.Revisions, stack+"/", func(_ string, r store.Revision) error {
			out = append(out, r)
			return nil
		})
	})
	return out, err
}

func (a *Agent) history(stack string) ([]api.Revision, error) {
	s, _ := a.w.stack(stack)
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	list, err := a.revisions(stack)
	if err != nil {
		return nil, err
	}
	v := a.w.view()
	var out []api.Revision
	for i, r := range list {
		line := api.Revision{
			Number: r.Number, State: r.State, Reason: r.Reason, Current: r.Number == s.Revision, Stable: r.Number == s.Stable,
			CreatedAt: r.Created, Actor: r.Actor, Images: map[string]api.RevisionImage{},
		}
		if underWay(s.Rollout) && s.Rollout.Revision == r.Number {
			line.State, line.Reason = s.Rollout.State, s.Rollout.Reason
		}
		for name, svc := range r.Stack.Services {
			_, err := a.images.Resolve(r.Digests[name])
			line.Images[name] = api.RevisionImage{Reference: svc.Image, Digest: r.Digests[name], Here: err == nil}
			if i == 0 {
				continue
			}
			before, was := list[i-1].Stack.Services[name]
			if !was || differ(&before, &svc, identity(v, &list[i-1], name), identity(v, &r, name)) {
				line.Changes = append(line.Changes, name)
			}
		}
		if i > 0 {
			for name := range list[i-1].Stack.Services {
				if _, still := r.Stack.Services[name]; !still {
					line.Changes = append(line.Changes, name)
				}
			}
		}
		slices.Sort(line.Changes)
		out = append(out, line)
	}
	slices.Reverse(out)
	return out, nil
}

// differ says that two versions of a service are not the same to its tasks.
func differ(x, y *spec.Service, xID, yID spec.Identity) bool {
	return slices.ContainsFunc(spec.Diff(x, y, xID, yID), func(c spec.Change) bool {
		return c.Class != spec.ClassIgnored || c.Path == "replicas"
	})
}

// rollback makes an earlier revision the wanted one: the one that is asked
// for, or the newest before the current one that was stable.
func (a *Agent) rollback(ctx context.Context, stack string, req *api.RollbackRequest, report func(api.Progress)) (*api.Done, error) {
	release, err := a.applies.take(stack, or(req.Actor, "berth rollback"))
	if err != nil {
		return nil, err
	}
	var to *store.Revision
	cur, _ := a.w.stack(stack)
	err = a.expected(&api.ApplyRequest{Stack: spec.Stack{Name: stack}, ExpectRevision: req.ExpectRevision}, cur)
	if err == nil {
		to, err = a.rollbackTarget(stack, req.Revision)
	}
	if err == nil {
		err = a.fetchImages(ctx, to, report)
	}
	if err == nil {
		err = a.goBack(stack, to.Number, 0, "asked for by "+or(req.Actor, "the user"), req.Actor)
	}
	release()
	if err != nil {
		return nil, err
	}
	report(api.Progress{Applied: &api.Applied{Stack: stack, Revision: to.Number, Changed: true}})
	if err := a.traffic.sync(ctx); err != nil && ctx.Err() == nil {
		report(api.Progress{Warning: "ports and names are not up to date yet: " + err.Error()})
	}
	return a.followIf(ctx, req.Wait, stack, to.Number, report)
}

func (a *Agent) rollbackTarget(stack string, n uint64) (*store.Revision, error) {
	s, _ := a.w.stack(stack)
	switch {
	case s == nil:
		return nil, notFound("no stack %s", stack)
	case s.Removing != nil:
		return nil, conflict("", "stack %s is being removed", stack)
	case n == s.Revision:
		return nil, conflict("see `berth history`", "stack %s is at revision %d already", stack, n)
	}
	list, err := a.revisions(stack)
	if err != nil {
		return nil, err
	}
	for i := range slices.Backward(list) {
		r := &list[i]
		if r.Number == n || n == 0 && r.Number < s.Revision && r.State == api.RolloutComplete {
			return r, nil
		}
	}
	if n == 0 {
		return nil, conflict("see `berth history`", "stack %s has no earlier revision that was stable", stack)
	}
	return nil, notFound("stack %s has no revision %d any more; see `berth history`", stack, n)
}

// fetchImages pulls the images of a revision that are not here any more.
func (a *Agent) fetchImages(ctx context.Context, r *store.Revision, report func(api.Progress)) error {
	for _, name := range sortedKeys(r.Stack.Services) {
		digest, svc := r.Digests[name], r.Stack.Services[name]
		if _, err := a.images.Resolve(digest); err == nil {
			continue
		}
		ref, err := images.AtDigest(svc.Image, digest)
		if err != nil {
			return err
		}
		_, err = a.images.Pull(ctx, ref, images.PullOptions{
			Platform: svc.Platform,
			Progress: func(p images.Progress) { report(api.Progress{Pull: (*api.PullProgress)(&p)}) },
		})
		if err != nil {
			return imageError(fmt.Errorf("revision %d, service %s: %w", r.Number, name, err))
		}
	}
	return nil
}

// scaleStack sets replicas and leaves everything else as it is.
func (a *Agent) scaleStack(ctx context.Context, stack string, req *api.ScaleRequest, report func(api.Progress)) (*api.Done, error) {
	_, rev := a.w.stack(stack)
	if rev == nil {
		return nil, notFound("no stack %s", stack)
	}
	return a.applyAndFollow(ctx, &api.ApplyRequest{
		Stack: rev.Stack, NoRecreate: true, Scale: req.Services, Wait: req.Wait, Actor: req.Actor,
	}, report)
}

// rollBackFrom carries the planner's decision out that revision has failed.
func (a *Agent) rollBackFrom(ctx context.Context, stack string, revision uint64, why string) error {
	s, _ := a.w.stack(stack)
	if s == nil || s.Revision != revision || !underWay(s.Rollout) || s.Rollout.From == 0 {
		return nil // a plan made before
	}
	if err := a.goBack(stack, s.Rollout.From, revision, why, s.Rollout.Actor); err != nil {
		return err
	}
	return a.traffic.sync(ctx)
}
