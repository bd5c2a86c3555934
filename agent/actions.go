package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"berth/crash"
	"berth/reconciler"
	"berth/runtime"
	"berth/store"
)

// do carries one action out. Every action is idempotent: after a crash the
// next plan may ask for it again.
func (a *Agent) do(ctx context.Context, plan *reconciler.Plan, act reconciler.Action) error {
	switch act.Kind {
	case reconciler.EnsureNetwork:
		return a.ensureNetwork(ctx, act.Target)
	case reconciler.RemoveNetwork:
		return a.removeNetwork(ctx, act.Target)
	case reconciler.RemoveStack:
		return a.removeStack(ctx, act.Target)
	case reconciler.RollBack:
		return a.rollBackFrom(ctx, act.Target, plan.Revision, act.Cause)
	case reconciler.PauseRollout:
		return a.pauseRollout(act.Target, plan.Revision, act.Cause)
	case reconciler.CompleteRollout:
		return a.completeRollout(act.Target, plan.Revision)
	}
	t := a.w.task(act.Target)
	if t == nil || t.State == store.StateRemoved {
		return nil // a plan made before
	}
	switch act.Kind {
	case reconciler.PublishTask:
		return a.publish(ctx, t)
	case reconciler.WithdrawTask:
		return a.withdraw(ctx, t)
	case reconciler.UpdateTask:
		return a.updateTask(ctx, plan, t)
	case reconciler.StopTask:
		return a.stopTask(ctx, t)
	case reconciler.KillTask:
		return a.killTask(ctx, t)
	case reconciler.RemoveTask:
		return a.removeTask(ctx, t)
	}
	return fmt.Errorf("unknown action %d", act.Kind)
}

// publish puts t into the VIP map and DNS and returns when both are in force.
func (a *Agent) publish(ctx context.Context, t *store.Task) error {
	a.w.note(t.ID, func(t *store.Task) { t.Rotation, t.Withdrawn = t.Live(), time.Time{} })
	crash.At("publish.noted")
	if err := a.traffic.sync(ctx); err != nil {
		return fmt.Errorf("publish %s: %w", t.Name(), err)
	}
	crash.At("publish.synced")
	// It may have exited meanwhile.
	a.w.note(t.ID, func(t *store.Task) { t.Published = t.Rotation })
	a.events.task(t, "publish", "")
	return nil
}

// withdraw takes t out of both; established connections go on.
func (a *Agent) withdraw(ctx context.Context, t *store.Task) error {
	a.w.note(t.ID, func(t *store.Task) { t.Rotation = false })
	crash.At("withdraw.noted")
	if err := a.traffic.sync(ctx); err != nil {
		return fmt.Errorf("withdraw %s: %w", t.Name(), err)
	}
	crash.At("withdraw.synced")
	a.w.note(t.ID, func(t *store.Task) { t.Published, t.Withdrawn = false, time.Now() })
	a.events.task(t, "withdraw", "")
	return nil
}

func (a *Agent) updateTask(ctx context.Context, plan *reconciler.Plan, t *store.Task) error {
	v := a.w.view()
	s, r := v.stacks[plan.Stack], v.revisions[plan.Stack]
	if s == nil {
		return nil
	}
	svc, ok := r.Stack.Services[t.Service]
	if !ok {
		return nil
	}
	if err := a.containers.Update(ctx, t.ID, resources(svc.Resources)); err != nil {
		return fmt.Errorf("update the limits of %s: %w", t.Name(), err)
	}
	contents, err := a.updateContents(ctx, t, r)
	if err != nil {
		return err
	}
	crash.At("update.applied")
	digest := a.derive(v, s, r).inPlace[t.Service]
	a.w.note(t.ID, func(t *store.Task) { t.InPlace, t.Contents, t.Spec.Resources = digest, contents, svc.Resources })
	a.events.task(t, "update", "")
	return nil
}

// stopSignal of a task: the service's, the image's, SIGTERM.
func (a *Agent) stopSignal(t *store.Task) runtime.Signal {
	name := t.Spec.StopSignal
	if name == "" {
		if img, err := a.images.Resolve(t.Digest); err == nil {
			name = img.Config.StopSignal
		}
	}
	if name == "" {
		return unix.SIGTERM
	}
	sig, err := runtime.ParseSignal(name)
	if err != nil {
		return unix.SIGTERM
	}
	return sig
}

// stopTask sends the stop signal, once. What follows an exit asks for StopAt:
// it is noted before the signal, and taken back if that fails.
func (a *Agent) stopTask(ctx context.Context, t *store.Task) error {
	if !t.StopAt.IsZero() {
		return nil // a plan made before the signal was noted
	}
	if a.traffic.failed.Load() { // rules of before may still lead to it
		if err := a.traffic.sync(ctx); err != nil {
			return fmt.Errorf("stop %s: %w", t.Name(), err)
		}
	}
	a.w.note(t.ID, func(t *store.Task) { t.StopAt = time.Now() })
	crash.At("stop.noted")
	// The next agent must know who takes the traffic instead, and that this task
	// is not to take it again.
	err := a.w.flush()
	if err == nil && t.State == store.StatePaused {
		err = a.containers.Resume(ctx, t.ID)
	}
	if err == nil && len(t.Spec.PreStop) > 0 {
		a.loop.wake() // its hooks go first
		return nil
	}
	if err == nil {
		return a.sendStop(ctx, t)
	}
	a.w.note(t.ID, func(t *store.Task) { t.StopAt = time.Time{} })
	return fmt.Errorf("stop %s: %w", t.Name(), err)
}

// killSignal ends a container whatever it does.
const killSignal = unix.SIGKILL

// sendStop sends the stop signal. If it can't, the stop has not begun.
func (a *Agent) sendStop(ctx context.Context, t *store.Task) error {
	err := a.signal(ctx, t, a.stopSignal(t))
	crash.At("stop.signalled")
	if err != nil {
		a.w.note(t.ID, func(t *store.Task) { t.StopAt = time.Time{} })
		return fmt.Errorf("stop %s: %w", t.Name(), err)
	}
	return nil
}

func (a *Agent) killTask(ctx context.Context, t *store.Task) error {
	a.w.note(t.ID, func(t *store.Task) { t.KilledAt = time.Now() })
	crash.At("kill.noted")
	err := a.signal(ctx, t, unix.SIGKILL)
	crash.At("kill.signalled")
	if err != nil {
		a.w.note(t.ID, func(t *store.Task) { t.KilledAt = time.Time{} })
	}
	return err
}

// signal sends sig; a container that is gone by now is success.
func (a *Agent) signal(ctx context.Context, t *store.Task, sig runtime.Signal) error {
	err := a.containers.Signal(ctx, t.ID, sig)
	if err == nil || errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("signal %s: %w", t.Name(), err)
}

// keptLogs is how many removed tasks of a slot keep their logs.
const keptLogs = 3

// removeTask frees what an exited task holds. Its record and log stay until
// newer ones of the slot push them out.
func (a *Agent) removeTask(ctx context.Context, t *store.Task) error {
	if err := a.unmake(ctx, t); err != nil {
		return err
	}
	crash.At("task.unmade")
	var drop []string
	err := a.w.commit(func(c *change) error {
		cur := c.w.tasks[t.ID]
		if cur == nil {
			return nil // forgotten with its stack
		}
		next := *cur
		next.State, next.Endpoints, next.Rotation, next.Published = store.StateRemoved, nil, false, false
		c.putTask(next)
		if r := c.w.revisions[t.Stack]; r != nil {
			if _, still := r.Stack.Services[t.Service]; !still {
				a.dropVIPs(c, t.Stack, &r.Stack)
			}
		}
		var kept []*store.Task
		for _, o := range c.w.tasks {
			if t.OneOff == nil && o.OneOff == nil && o.Stack == t.Stack && o.Service == t.Service && o.Slot == t.Slot && o.State == store.StateRemoved {
				kept = append(kept, o)
			}
		}
		for i := oldest(kept); len(kept) >= keptLogs; i = oldest(kept) {
			drop = append(drop, kept[i].ID)
			c.dropTask(kept[i].ID)
			kept = append(kept[:i], kept[i+1:]...)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", t.Name(), err)
	}
	crash.At("task.removed")
	a.releaseVolumes(t)
	for _, id := range drop {
		if err := a.removeLog(id); err != nil {
			return fmt.Errorf("remove the log of %s: %w", id, err)
		}
		crash.At("log.removed")
	}
	a.events.task(t, "destroy", "")
	return nil
}

func oldest(tasks []*store.Task) int {
	at := 0
	for i, t := range tasks {
		if t.Attempt < tasks[at].Attempt {
			at = i
		}
	}
	return at
}

// removeStack takes away what is left of a stack that has no tasks: volumes
// and images if down asked for it, logs, secrets, the records.
func (a *Agent) removeStack(ctx context.Context, name string) error {
	v := a.w.view()
	s, r := v.stacks[name], v.revisions[name]
	if s == nil || s.Removing == nil { // gone, or made anew since the plan
		return nil
	}
	for n, rec := range v.networks {
		if rec.Stack == name {
			if err := a.removeNetwork(ctx, n); err != nil {
				return err
			}
		}
	}
	var ids []string
	for _, t := range v.tasks {
		if t.Stack == name {
			ids = append(ids, t.ID)
		}
	}
	a.ships.drained(ctx, ids...)
	for _, t := range v.tasks {
		if t.Stack == name {
			if err := a.removeLog(t.ID); err != nil {
				return fmt.Errorf("remove the log of %s: %w", t.Name(), err)
			}
		}
	}
	crash.At("stack.emptied")
	if s.Removing.Volumes {
		if err := a.removeStackVolumes(name); err != nil {
			return err
		}
	}
	crash.At("stack.forget")
	a.ports.release(name)
	if err := a.dropSynced(s.UID); err != nil {
		return fmt.Errorf("remove the synced files of %s: %w", name, err)
	}
	if err := a.w.forgetStack(name); err != nil {
		return err
	}
	crash.At("stack.forgotten")
	if err := a.removeShared(ctx); err != nil {
		return err
	}
	if s.Removing.Images != "" {
		a.removeStackImages(r, s.Removing.Images)
	}
	if err := a.sweepSecrets(); err != nil {
		return err
	}
	a.events.emit(apiEvent{Type: "stack", Action: "destroy", Stack: name})
	return a.traffic.sync(ctx)
}
