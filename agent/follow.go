package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/api"
	"berth/reconciler"
	"berth/store"
)

// patience is how long a rollout that a client follows may go on without any
// progress, as the client sees it: longer than the planner's own deadlines, so
// that it is the one to decide where it can.
func (a *Agent) patience(s *store.Stack, r *store.Revision, w *watcher) time.Duration {
	d := leastDeadline
	for name, svc := range r.Stack.Services {
		if w.cares(name) {
			u := updateOf(&svc, false)
			d = max(d, a.deadline(&svc, r.Digests[name]), grace(s, &svc)+drain(&svc)+u.Monitor+u.Delay+svc.MinReady+time.Minute)
		}
	}
	return d + 5*time.Second
}

// follow reports the services of a stack until each wanted one is ready,
// completed, or has failed, and the rollout to revision has ended or waits for
// the user. services empty means all. It only watches: when ctx ends the
// rollout goes on.
func (a *Agent) follow(ctx context.Context, stack string, revision uint64, services []string, report func(api.Progress)) (*api.Done, error) {
	watch := newWatcher(a, services)
	limit := leastDeadline
	if s, r := a.w.stack(stack); s != nil {
		limit = a.patience(s, r, watch)
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		plan, changed := a.loop.plan(stack)
		s, r := a.w.stack(stack)
		done, moved := watch.look(plan, s, r, revision, report)
		if moved {
			deadline.Reset(limit)
		}
		var young time.Duration
		if done != nil && done.Outcome == api.OutcomeDone {
			young = a.youngest(stack, watch)
		}
		if done != nil && young <= 0 {
			return done, nil
		}
		var later <-chan time.Time
		if young > 0 {
			later = time.After(young)
		}
		select {
		case <-changed:
		case <-later:
		case <-deadline.C:
			return &api.Done{
				Outcome: api.OutcomeNotReady, Detail: watch.unready(plan, r),
				Hint: fmt.Sprintf("no progress for %s; see `berth ps` and `berth logs`", limit),
			}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// look reports what is new and says how the rollout to revision ended; nil: it
// goes on.
func (w *watcher) look(plan *reconciler.Plan, s *store.Stack, r *store.Revision, revision uint64, report func(api.Progress)) (done *api.Done, moved bool) {
	switch {
	case s == nil || s.Removing != nil:
		return &api.Done{Outcome: api.OutcomeSuperseded, Detail: "the stack is being removed"}, false
	case s.Revision != revision && (s.Rollout == nil || s.Rollout.Failed != revision):
		return &api.Done{Outcome: api.OutcomeSuperseded, Detail: fmt.Sprintf("revision %d took over", r.Number)}, false
	}
	if plan != nil && plan.Revision == r.Number {
		if s.Revision != revision && !w.back {
			w.back = true
			report(api.Progress{Message: fmt.Sprintf("%s: rolling back to revision %d", s.Rollout.Reason, s.Revision)})
		}
		moved = w.report(plan, r, report)
	}
	if s.Revision != revision {
		return w.wentBack(s, revision), moved
	}
	if plan == nil || plan.Revision != revision {
		return nil, moved
	}
	return w.outcome(plan, s), moved
}

// wentBack is how the rollback ended that left revision.
func (w *watcher) wentBack(s *store.Stack, revision uint64) *api.Done {
	r := s.Rollout
	hint := fmt.Sprintf("berth logs --revision %d", revision)
	if service, _, found := strings.Cut(r.Reason, " of revision "); found {
		if dash := strings.LastIndexByte(service, '-'); dash > 0 {
			hint = fmt.Sprintf("berth logs %s --revision %d", service[:dash], revision)
		}
	}
	switch r.State {
	case api.RolloutRolledBack:
		took := r.Ended.Sub(r.Started).Seconds()
		return &api.Done{
			Outcome: api.OutcomeRolledBack, Hint: hint,
			Detail: fmt.Sprintf("%s\nrolled back to revision %d in %.1f s", r.Reason, r.Revision, took),
		}
	case api.RolloutRollbackPaused:
		return &api.Done{
			Outcome: api.OutcomeFailed, Hint: "see `berth rollout status`; then `berth rollout resume`, or `berth up` with a better file",
			Detail: "the rollback met a failure, too: " + r.Reason,
		}
	}
	return nil
}

// proof is how long a task without a healthcheck must have run before a
// rollout is called done: a program that dies at once is not a success.
const proof = 100 * time.Millisecond

// youngest is the time until the youngest such task has proven itself.
func (a *Agent) youngest(stack string, w *watcher) time.Duration {
	var left time.Duration
	for _, t := range a.w.view().tasks {
		if t.Stack == stack && w.cares(t.Service) && t.OneOff == nil && t.State == store.StateRunning && t.Health == "" {
			left = max(left, proof-time.Since(t.Started))
		}
	}
	return left
}

// crashLoop is the number of failures in a row, 25 s of back-off, after which
// waiting for a service is given up. A program that crashes until its database
// is there has come up by then.
const crashLoop = 9

// watcher turns plans into reports of what changed.
type watcher struct {
	a        *Agent
	services map[string]bool
	started  time.Time
	changes  map[string]string // service: created, replaced …
	last     map[string]api.ServiceStatus
	back     bool // the revision failed: services go back to the stable one
	best     map[string]int
}

func newWatcher(a *Agent, services []string) *watcher {
	w := &watcher{
		a: a, services: map[string]bool{}, started: time.Now(),
		changes: map[string]string{}, last: map[string]api.ServiceStatus{}, best: map[string]int{},
	}
	for _, s := range services {
		w.services[s] = true
	}
	return w
}

func (w *watcher) cares(service string) bool { return len(w.services) == 0 || w.services[service] }

// report sends the statuses that differ from the last ones and says whether
// the rollout moved on.
func (w *watcher) report(plan *reconciler.Plan, r *store.Revision, report func(api.Progress)) (moved bool) {
	for _, st := range plan.Services {
		if !w.cares(st.Service) && !st.Removed {
			continue
		}
		cur := w.a.serviceStatus(st, r)
		w.note(&cur, st)
		if n := cur.Updated + cur.Ready - cur.Old; n > w.best[st.Service] {
			w.best[st.Service], moved = n, true
		}
		if last, seen := w.last[st.Service]; seen && sameStatus(last, cur) {
			continue
		}
		w.last[st.Service] = cur
		report(api.Progress{Service: &cur})
	}
	return moved
}

// sameStatus says that two statuses differ at most in the time that passed.
func sameStatus(x, y api.ServiceStatus) bool {
	x.Elapsed = y.Elapsed
	if x.Position != nil && y.Position != nil && *x.Position == *y.Position {
		x.Position = y.Position
	}
	return x == y
}

// note says what happens to the service, from how it looked at first.
func (w *watcher) note(cur *api.ServiceStatus, st reconciler.Status) {
	cur.Elapsed = time.Since(w.started)
	change, known := w.changes[st.Service]
	if !known {
		switch {
		case st.Removed:
			change = "removed"
		case st.Old > 0:
			change = "replaced"
		case st.Phase == reconciler.PhaseReady || st.Phase == reconciler.PhaseCompleted || st.Phase == reconciler.PhaseStopped:
			change = "unchanged"
		default:
			change = "created"
		}
		w.changes[st.Service] = change
	}
	cur.Change = change
	if w.back && change != "unchanged" {
		cur.Change = "back"
	}
}

// outcome is nil while something may still change for the better.
func (w *watcher) outcome(plan *reconciler.Plan, s *store.Stack) *api.Done {
	if r := s.Rollout; underWay(r) && (w.touches(r) || r.State == api.RolloutCanary) {
		switch {
		case r.State == api.RolloutPaused || r.State == api.RolloutRollbackPaused:
			return &api.Done{
				Outcome: api.OutcomePaused, Detail: r.Reason,
				Hint: "`berth rollout resume` goes on, `berth rollout undo` goes back",
			}
		case r.State == api.RolloutCanary:
			return w.canaryOutcome(plan, r)
		case slices.ContainsFunc(plan.Actions, func(a reconciler.Action) bool {
			return a.Kind == reconciler.RollBack || a.Kind == reconciler.PauseRollout
		}):
			return nil // decided, and not done yet
		case r.From != 0:
			// New tasks are watched for a while: only then it is done.
			if done := w.serviceOutcome(plan); done != nil && done.Outcome != api.OutcomeDone {
				return done
			}
			return nil
		}
	}
	return w.serviceOutcome(plan)
}

// touches says that the rollout replaces a service that the client waits for.
func (w *watcher) touches(r *store.Rollout) bool {
	for name := range r.Touched {
		if w.cares(name) {
			return true
		}
	}
	return false
}

// canaryOutcome is done when the new task takes its part of the traffic.
func (w *watcher) canaryOutcome(plan *reconciler.Plan, r *store.Rollout) *api.Done {
	for _, st := range plan.Services {
		if st.Service == r.Canary.Service && st.Fresh > 0 {
			return &api.Done{
				Outcome: api.OutcomeDone,
				Detail:  fmt.Sprintf("%d%% of the new connections to %s go to revision %d", r.Canary.Percent, r.Canary.Service, r.Revision),
				Hint:    fmt.Sprintf("`berth canary %s promote` goes on, `berth canary %s abort` goes back", r.Canary.Service, r.Canary.Service),
			}
		}
	}
	return nil
}

func (w *watcher) serviceOutcome(plan *reconciler.Plan) *api.Done {
	var failed *api.Done
	for _, st := range plan.Services {
		if st.Removed {
			if st.Old > 0 {
				return nil
			}
			continue
		}
		if !w.cares(st.Service) {
			continue
		}
		switch st.Phase {
		case reconciler.PhaseReady:
			if st.Ready < st.Replicas || st.Old > 0 {
				return nil
			}
		case reconciler.PhaseCompleted, reconciler.PhaseStopped:
		case reconciler.PhasePending:
			if st.Ready < st.Fits || st.Old > 0 {
				return nil
			}
			if failed == nil {
				failed = &api.Done{
					Outcome: api.OutcomeNotReady, Detail: st.Service + " fits no node: " + st.Reason,
					Hint: "give the node its labels in the agent's configuration (labels:), or correct deploy.placement",
				}
			}
		case reconciler.PhaseFailing:
			if st.Failures < crashLoop {
				return nil
			}
			return &api.Done{
				Outcome: api.OutcomeNotReady, Detail: st.Service + ": " + st.Reason,
				Hint: "it goes on trying; see `berth logs " + st.Service + "`",
			}
		case reconciler.PhaseFailed:
			if failed == nil {
				failed = &api.Done{
					Outcome: api.OutcomeFailed, Detail: st.Service + ": " + st.Reason,
					Hint: "berth logs " + st.Service,
				}
			}
		default:
			return nil
		}
	}
	if failed != nil {
		return failed
	}
	return &api.Done{Outcome: api.OutcomeDone}
}

// unready lists what is not ready and why.
func (w *watcher) unready(plan *reconciler.Plan, r *store.Revision) string {
	if plan == nil {
		return "nothing has happened yet"
	}
	out := ""
	for _, st := range plan.Services {
		if w.cares(st.Service) && st.Phase >= reconciler.PhaseStarting {
			if out != "" {
				out += "; "
			}
			out += st.Service + ": " + w.a.serviceStatus(st, r).Reason
		}
	}
	return out
}
