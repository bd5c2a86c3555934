package agent

import (
	"context"
	"fmt"
	"time"

	"berth/api"
	"berth/reconciler"
	"berth/store"
)

// leastDeadline is how long a stack may at least go without any progress before
// it is said not to become ready (DESIGN.md, Rollout).
const leastDeadline = 120 * time.Second

// deadline is leastDeadline, or longer if a health test of the services, or the
// end of one of their tasks, may rightly take longer.
func (a *Agent) deadline(s *store.Stack, r *store.Revision, w *watcher) time.Duration {
	d := leastDeadline
	for name, svc := range r.Stack.Services {
		if !w.cares(name) {
			continue
		}
		d = max(d, grace(s, &svc)+defaultDrain+time.Minute)
		c := a.healthcheck(&store.Task{Digest: r.Digests[name], Spec: svc})
		if c != nil {
			d = max(d, c.startPeriod+time.Duration(c.retries)*c.interval+time.Minute)
		}
	}
	return d
}

// follow reports the services of a stack until each wanted one is ready,
// completed, or has failed. services empty means all. It only watches: when
// ctx ends the rollout goes on.
func (a *Agent) follow(ctx context.Context, stack string, revision uint64, services []string, report func(api.Progress)) (*api.Done, error) {
	watch := newWatcher(a, services)
	limit := leastDeadline
	if s, r := a.w.stack(stack); s != nil {
		limit = a.deadline(s, r, watch)
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		plan, changed := a.loop.plan(stack)
		s, r := a.w.stack(stack)
		var young time.Duration
		switch {
		case s == nil || s.Removing != nil:
			return &api.Done{Outcome: api.OutcomeSuperseded, Detail: "the stack is being removed"}, nil
		case r.Number > revision:
			return &api.Done{Outcome: api.OutcomeSuperseded, Detail: fmt.Sprintf("revision %d took over", r.Number)}, nil
		}
		if plan != nil && plan.Revision == revision {
			if watch.report(plan, r, report) {
				deadline.Reset(limit)
			}
			done := watch.outcome(plan)
			if done != nil && done.Outcome == api.OutcomeDone {
				young = a.youngest(stack, watch)
			}
			if done != nil && young <= 0 {
				return done, nil
			}
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

// proof is how long a task without a healthcheck must have run before a
// rollout is called done: a program that dies at once is not a success.
const proof = 100 * time.Millisecond

// youngest is the time until the youngest such task has proven itself.
func (a *Agent) youngest(stack string, w *watcher) time.Duration {
	var left time.Duration
	for _, t := range a.w.view().tasks {
		if t.Stack == stack && w.cares(t.Service) && t.State == store.StateRunning && t.Health == "" {
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
}

// outcome is nil while something may still change for the better.
func (w *watcher) outcome(plan *reconciler.Plan) *api.Done {
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
