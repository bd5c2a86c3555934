package agent

import (
	"context"
	"time"

	"berth/crash"
	"berth/runtime"
	"berth/store"
)

// How often the agent looks by itself.
const (
	flushEvery   = 100 * time.Millisecond
	logsEvery    = 5 * time.Second
	realityEvery = 5 * time.Second

	dataplaneEvery = time.Second
)

// watchExits notes every exit, takes the task out of the traffic, and wakes
// the loop.
func (a *Agent) watchExits(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case st, ok := <-a.containers.Exits():
			if !ok {
				return
			}
			a.exited(ctx, st)
		}
	}
}

func (a *Agent) exited(ctx context.Context, st runtime.Status) {
	t := a.w.task(st.ID)
	if t == nil || t.State == store.StateExited || t.State == store.StateRemoved {
		return
	}
	// A container whose bundle is gone was removed by hand, not ended.
	_, err := a.containers.Status(ctx, st.ID)
	lost := err != nil && t.StopAt.IsZero()
	last := ""
	if st.ExitCode != 0 && t.StopAt.IsZero() {
		last = a.lastLine(ctx, st.ID)
	}
	served := false
	next := a.w.note(st.ID, func(t *store.Task) {
		// Said before anybody sees the exit, and starts what waited for it.
		if t.State == store.StatePending && !st.StartedAt.IsZero() {
			a.events.task(t, "start", "")
		}
		served = t.Rotation
		t.LastLine = last
		t.State, t.ExitCode, t.OOM, t.Lost = store.StateExited, st.ExitCode, st.OOMKilled, lost
		t.Finished, t.Rotation, t.Published = st.FinishedAt, false, false
		if t.Finished.IsZero() {
			t.Finished = time.Now()
		}
		if t.Started.IsZero() {
			t.Started = st.StartedAt
		}
		switch {
		case lost:
			t.Reason = "removed by hand"
		case t.HookFailed != "" && t.StopAt.IsZero():
			// The first start of this version fails for good, as with Docker
			// Compose; a later one follows the restart policy.
			t.Reason, t.LastLine, t.Unstartable = t.HookFailed, "", t.Restarts == 0
		case st.OOMKilled && st.ExitCode != 0:
			t.Reason = "out of memory"
		}
		if t.OOM {
			a.events.task(t, "oom", "")
		}
		a.events.task(t, "die", exitText(t))
	})
	if next == nil {
		return // its stack is gone
	}
	crash.At("exit.noted")
	if err := a.takeBack(next); err != nil {
		a.log.Error("take the secrets of an exited task away", "task", t.Name(), "err", err)
	}
	if served {
		go func() {
			if err := a.traffic.sync(ctx); err != nil && ctx.Err() == nil {
				a.log.Error("take an exited task out of the traffic", "task", t.Name(), "err", err)
			}
		}()
	}
	a.loop.wake()
}

// watchNetwork repairs what somebody else changed: a flushed table, a deleted
// bridge.
func (a *Agent) watchNetwork(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-a.networks.Changed():
			if !ok {
				return
			}
			a.log.Warn("somebody changed the firewall rules or a bridge; repairing")
			if err := a.repairNetwork(ctx); err != nil && ctx.Err() == nil {
				a.log.Error("repair the network", "err", err)
			}
		}
	}
}

func (a *Agent) repairNetwork(ctx context.Context) error {
	// Rules first: they are what isolates. Then every bridge by the plan.
	err := a.traffic.sync(ctx)
	v := a.w.view()
	for _, n := range v.networks {
		if !a.ensured.has(n) {
			continue
		}
		if e := a.networks.Ensure(ctx, netOf(n)); e != nil && err == nil {
			err = e
		}
	}
	a.loop.wake()
	return err
}

func (a *Agent) watchLogs(ctx context.Context) {
	a.every(ctx, logsEvery, func() {
		if err := a.containers.RotateLogs(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("rotate logs", "err", err)
		}
	})
}

func (a *Agent) watchFlush(ctx context.Context) {
	a.every(ctx, flushEvery, func() {
		if err := a.w.flush(); err != nil {
			a.log.Error("flush", "err", err)
		}
	})
}

// watchReality compares the records with what runs: the backstop for an event
// that never came.
func (a *Agent) watchReality(ctx context.Context) {
	a.every(ctx, realityEvery, func() {
		if err := a.compare(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("compare the records with what runs", "err", err)
		}
		if a.traffic.failed.Load() { // not every change has an action that tries again
			if err := a.traffic.sync(ctx); err != nil && ctx.Err() == nil {
				a.log.Error("bring rules and names up to date", "err", err)
			}
		}
	})
}

// watchDataplane starts a dataplane when there is none: an earlier agent's is
// not this one's child, and nobody tells when it ends.
func (a *Agent) watchDataplane(ctx context.Context) {
	a.every(ctx, dataplaneEvery, func() {
		if err := a.ensureDataplane(a.traffic.needed()); err != nil && ctx.Err() == nil {
			a.log.Error("start the dataplane", "err", err)
		}
	})
}

func (a *Agent) every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// compare finds running records without a container.
func (a *Agent) compare(ctx context.Context) error {
	started := time.Now()
	list, err := a.containers.List(ctx)
	if err != nil {
		return err
	}
	there := map[string]runtime.Status{}
	for _, st := range list {
		there[st.ID] = st
	}
	for _, t := range a.w.view().tasks {
		if t.State != store.StateRunning && t.State != store.StatePaused || t.Started.After(started) {
			continue
		}
		st, ok := there[t.ID]
		switch {
		case !ok:
			a.exited(ctx, runtime.Status{ID: t.ID, ExitCode: -1, FinishedAt: time.Now()})
		case st.State == runtime.StateExited || st.State == runtime.StateUnknown:
			a.exited(ctx, st)
		}
	}
	return nil
}
