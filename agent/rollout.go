package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"berth/api"
	"berth/crash"
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
	if rev != nil && len(rev.Stack.Services) == 0 {
		r.From = 0 // made for a one-off task: nothing served that one could go back to
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
