package agent

import (
	"time"

	"berth/store"
)

// readiness says whether t may take traffic, and if not, why. Only a running
// task may: one whose healthcheck and x-readiness pass, and that listens if it
// has neither.
func (a *Agent) readiness(t *store.Task) (ready bool, reason string) {
	if t.State != store.StateRunning {
		return false, t.Reason
	}
	if beginning(t) {
		return false, or(t.HookFailed, "its post_start hooks run")
	}
	for _, which := range []test{healthTest, readinessTest} {
		if !passes(t, which) {
			return false, a.probes.reason(t, which)
		}
	}
	if !a.listens.ready(t) {
		return false, a.listens.reason(t)
	}
	return true, ""
}

// passes says that a test of t does, or that t has none. A task that served
// before it got one serves on until that fails.
func passes(t *store.Task, which test) bool {
	state := *which.state(t)
	return state == "" || state == healthy || state == starting && t.Published
}

// fresh says that t has not taken traffic yet.
func fresh(t *store.Task) bool { return !t.Published && !t.Rotation && t.Withdrawn.IsZero() }

// doubtful says that the last answer to a test of t, which is fresh, was a bad
// one: whether that is a whim the next ones show.
func (a *Agent) doubtful(t *store.Task) bool {
	if !fresh(t) {
		return false
	}
	for _, which := range tests {
		if n, _ := a.probes.streak(t.ID, which); n > 0 {
			return true
		}
	}
	return false
}

// unhealthy says that the healthcheck or x-liveness of t has failed for good.
func (a *Agent) unhealthy(t *store.Task) bool {
	return t.Health == unhealthy || t.Liveness == unhealthy
}

// notPassed is the first test of t that keeps it from being well, if any does.
func notPassed(t *store.Task) (which test, ok bool) {
	for _, which := range tests {
		if s := *which.state(t); s == unhealthy || s == starting && which != livenessTest {
			return which, true
		}
	}
	return "", false
}

// tested says whether t has a test that decides on traffic, and whether it
// passes.
func tested(t *store.Task) (has, passes bool) {
	has = t.Health != "" || t.Readiness != ""
	return has, has && (t.Health == "" || t.Health == healthy) && (t.Readiness == "" || t.Readiness == healthy)
}

// noteReadiness records from when the tasks of v have been ready. It says
// whether any record changed.
func (a *Agent) noteReadiness(v view) (changed bool) {
	for _, t := range v.tasks {
		ready, _ := a.readiness(t)
		if ready == !t.ReadySince.IsZero() {
			continue
		}
		changed = true
		now := time.Now()
		a.w.note(t.ID, func(t *store.Task) {
			if !t.ReadySince.IsZero() {
				t.UnreadyAt = now
			}
			t.ReadySince = time.Time{}
			if ready && t.State == store.StateRunning { // it may have exited
				t.ReadySince = now
				if t.ReadyAt.IsZero() {
					t.ReadyAt = now
				}
			}
		})
	}
	return changed
}
