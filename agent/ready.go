package agent

import (
	"time"

	"berth/store"
)

// readiness says whether t may take traffic, and if not, why. Only a running
// task may.
func (a *Agent) readiness(t *store.Task) (ready bool, reason string) {
	// A task that served before it got a test serves on until that fails.
	passes := t.Health == "" || t.Health == healthy || t.Health == starting && t.Published
	switch {
	case t.State != store.StateRunning:
		return false, t.Reason
	case !passes:
		return false, a.probes.reason(t.ID)
	case !a.listens.ready(t):
		return false, "it does not listen on its ports yet"
	}
	return true, ""
}

// unhealthy says that the healthcheck of t has failed for good.
func (a *Agent) unhealthy(t *store.Task) bool { return t.Health == unhealthy }

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
