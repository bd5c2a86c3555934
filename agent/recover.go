package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"berth/crash"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

// recover brings records and machine together at the agent's start: tasks
// that ran are adopted, those that died while no agent ran or in a reboot are
// noted as lost, half-made ones are taken back, and whatever no record claims
// is removed. It keeps the traffic as it was: nothing is withdrawn that still
// runs.
func (a *Agent) recover(ctx context.Context) error {
	list, err := a.containers.List(ctx)
	if err != nil {
		return fmt.Errorf("look for running containers: %w", err)
	}
	there := map[string]runtime.Status{}
	for _, st := range list {
		there[st.ID] = st
	}
	v := a.w.view()
	known := map[string]bool{}
	for _, t := range v.tasks {
		known[t.ID] = true
		st, ok := there[t.ID]
		a.adopt(ctx, t, st, ok)
	}
	for id := range there {
		if !known[id] {
			a.log.Warn("removing a container that no record claims", "id", id)
			if err := a.unmake(ctx, &store.Task{ID: id, Stack: "orphan", Service: id}); err != nil {
				a.log.Error("remove a container that no record claims", "id", id, "err", err)
			}
		}
	}
	if err := a.w.flush(); err != nil {
		return err
	}
	crash.At("recover.adopted")
	// What is left over or out of date must not keep what runs from its agent.
	if err := a.sweep(ctx); err != nil {
		a.log.Error("remove what no record claims", "err", err)
	}
	crash.At("recover.swept")
	if err := a.resumeTraffic(ctx); err != nil {
		a.log.Error("put the rules in force", "err", err) // watchReality tries again
	}
	crash.At("recover.resumed")
	return ctx.Err()
}

// adopt makes the record of one task say what is there.
func (a *Agent) adopt(ctx context.Context, t *store.Task, st runtime.Status, there bool) {
	if t.State == store.StateRemoved || t.State == store.StateExited {
		return
	}
	started := there && t.State == store.StatePending && a.hasStarted(ctx, t, st)
	switch {
	case started:
		// It ran, and the note of that was lost with the agent. If it has
		// exited since, the exits channel tells how.
		begun := *t
		a.begin(&begun)
		a.w.note(t.ID, func(t *store.Task) {
			t.State, t.Started = store.StateRunning, st.StartedAt
			t.Health, t.Readiness, t.Liveness = begun.Health, begun.Readiness, begun.Liveness
		})
	case t.State == store.StatePending:
		if err := a.unmake(ctx, t); err != nil {
			// Its end is noted all the same: the loop removes it, and tries again
			// what failed now.
			a.log.Error("take back a half-made task", "task", t.Name(), "err", err)
		}
		a.lose(t, "the agent ended while it was created")
	case !there:
		a.lose(t, "the machine was restarted, or it was removed by hand")
	case st.State == runtime.StateExited || st.State == runtime.StateUnknown:
		// The exits channel delivers it, with its code.
	case !t.StopAt.IsZero():
		// Whether its signal was sent before the agent died is not known: it is
		// sent again, with its grace. It stays one that was told to stop: it
		// must not come back into the traffic.
		a.w.note(t.ID, func(t *store.Task) { t.StopAt, t.KilledAt = time.Now(), time.Time{} })
		if stopHeld(t) {
			return // its pre_stop hooks go first
		}
		if err := a.signal(ctx, t, a.stopSignal(t)); err != nil {
			a.log.Error("stop a task again", "task", t.Name(), "err", err)
		}
	default:
		// The note that it got well may be lost: what was found wrong with it is
		// found again, if it is still so.
		a.w.note(t.ID, func(t *store.Task) {
			for _, which := range tests {
				if s := which.state(t); *s == unhealthy {
					*s = starting
				}
			}
		})
	}
}

// hasStarted says whether the program of a container was started. A start that
// was cut off is ended: it may have come to pass, and a one-shot that is taken
// back and made anew would run twice.
func (a *Agent) hasStarted(ctx context.Context, t *store.Task, st runtime.Status) bool {
	if st.State != runtime.StateCreated || st.StartedAt.IsZero() {
		return st.State == runtime.StateRunning || st.State == runtime.StatePaused || !st.StartedAt.IsZero()
	}
	err := a.containers.Start(ctx, t.ID)
	if err != nil && !errors.Is(err, runtime.ErrNotRunning) { // which has ended since
		a.log.Warn("end the start of a task", "task", t.Name(), "err", err)
		return false
	}
	return true
}

func (a *Agent) lose(t *store.Task, reason string) {
	a.w.note(t.ID, func(t *store.Task) {
		t.State, t.ExitCode, t.Lost, t.Rotation, t.Published = store.StateExited, -1, true, false, false
		t.Finished, t.Reason = time.Now(), reason
	})
}

// sweep removes kernel objects and files that no record claims.
func (a *Agent) sweep(ctx context.Context) error {
	v := a.w.view()
	tasks, networks := map[string]bool{}, map[string]bool{}
	for _, t := range v.tasks {
		if t.State != store.StateRemoved {
			tasks[t.ID] = true
		}
	}
	for _, n := range v.networks {
		networks[n.ID] = true
	}
	if err := a.networks.Sweep(ctx, networks, tasks); err != nil {
		return fmt.Errorf("sweep the networks: %w", err)
	}
	if err := errors.Join(a.sweepSubpaths(), a.sweepSynced(v)); err != nil {
		return err
	}
	for _, root := range []string{filepath.Join(a.cfg.Run, "tasks"), filepath.Join(a.cfg.Root, "tasks")} {
		entries, err := os.ReadDir(root)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep the tasks: %w", err)
		}
		for _, e := range entries {
			if tasks[e.Name()] {
				continue
			}
			err := a.images.Unmount(filepath.Join(a.cfg.Run, "tasks", e.Name(), "rootfs"))
			if err == nil {
				err = os.RemoveAll(filepath.Join(root, e.Name()))
			}
			if err != nil {
				a.log.Error("sweep what no task has", "task", e.Name(), "err", err)
			}
		}
	}
	a.sweepLogs(v)
	return a.sweepSecrets()
}

// sweepLogs removes the logs of tasks that have no record any more.
func (a *Agent) sweepLogs(v view) {
	known := map[string]bool{}
	for _, t := range v.tasks {
		known[t.ID] = true
	}
	entries, err := os.ReadDir(filepath.Join(a.cfg.Root, "logs"))
	if err != nil {
		return // there were never any
	}
	for _, e := range entries {
		if known[e.Name()] {
			continue
		}
		if err := a.containers.RemoveLog(e.Name()); err != nil {
			a.log.Error("sweep the log of a forgotten task", "task", e.Name(), "err", err)
		}
	}
}

// sweepSecrets deletes content that no kept revision uses. While a request
// brings new content it leaves the work to the next time.
func (a *Agent) sweepSecrets() error {
	if !a.contents.TryLock() {
		return nil
	}
	defer a.contents.Unlock()
	tasks, used := map[string]bool{}, map[string]bool{}
	for _, t := range a.w.view().tasks {
		if t.State == store.StateRemoved {
			continue
		}
		tasks[t.ID] = t.Live()
		if t.OneOff != nil {
			usedDigests(used, &t.OneOff.Stack)
		}
	}
	err := a.db.Update(func(tx store.Tx) error {
		err := store.Each(tx, store.Revisions, "", func(_ string, r store.Revision) error {
			usedDigests(used, &r.Stack)
			return nil
		})
		if err != nil {
			return err
		}
		return a.collectVersions(tx, used)
	})
	if err != nil {
		return err
	}
	return errors.Join(a.secrets.Sweep(tasks, used), a.forgetValues())
}

// usedDigests adds the contents that st has.
func usedDigests(used map[string]bool, st *spec.Stack) {
	for _, f := range st.Configs {
		used[f.Digest] = true
	}
	for _, f := range st.Secrets {
		used[f.Digest] = true
	}
}

// resumeTraffic makes bridges, rules and names as the records have them, and
// takes the published ports again.
func (a *Agent) resumeTraffic(ctx context.Context) error {
	v := a.w.view()
	for _, n := range v.networks {
		if err := a.networks.Ensure(ctx, netOf(n)); err != nil {
			// One network must not keep the others down: the loop tries again.
			a.log.Error("make a network", "network", n.Name, "err", err)
			continue
		}
		a.ensured.set(n.ID, true)
	}
	for name, s := range v.stacks {
		if s.Removing != nil {
			continue
		}
		if _, err := a.ports.hold(name, &v.revisions[name].Stack, s.Ports); err != nil {
			a.log.Error("take the published ports of a stack", "stack", name, "err", err)
		}
	}
	for _, t := range v.tasks {
		if t.OneOff != nil && t.Live() {
			if _, err := a.holdOneOff(t); err != nil {
				a.log.Error("take the published ports of a task", "task", t.Name(), "err", err)
			}
		}
	}
	return a.traffic.apply(ctx)
}

// revisionOf is the revision that a task was made from; of a one-off task what
// stands for it.
func (a *Agent) revisionOf(t *store.Task) (*store.Revision, error) {
	if t.OneOff != nil {
		return &store.Revision{Number: t.Revision, Stack: t.OneOff.Stack}, nil
	}
	return a.revision(t.Stack, t.Revision)
}

// revision reads a revision of a stack; the wanted one from memory.
func (a *Agent) revision(stack string, n uint64) (*store.Revision, error) {
	if _, r := a.w.stack(stack); r != nil && r.Number == n {
		return r, nil
	}
	var r store.Revision
	err := a.db.View(func(tx store.Tx) (err error) {
		r, err = store.Get[store.Revision](tx, store.Revisions, store.RevisionKey(stack, n))
		return err
	})
	return &r, err
}
