package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
)

// Signal sends a signal to the container's first process. The signal can't
// reach another one: it goes through a pidfd. SIGKILL also thaws a paused
// container, which on cgroup v1 would not die else. ErrNotRunning if the
// process is gone.
func (r *Runtime) Signal(_ context.Context, id string, s Signal) error {
	t, err := r.need(id)
	if err != nil {
		return err
	}
	init, _ := t.handles()
	if err := init.signal(s); err != nil {
		return fmt.Errorf("send signal %d to container %s: %w", int(s), id, err)
	}
	if s == sigKill {
		r.cg.thaw(r.cgroup(id))
	}
	return nil
}

// Pause freezes all processes of a running container. Idempotent.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	return r.freeze(ctx, id, "pause", true)
}

// Resume thaws them. Idempotent.
func (r *Runtime) Resume(ctx context.Context, id string) error {
	return r.freeze(ctx, id, "resume", false)
}

func (r *Runtime) freeze(ctx context.Context, id, verb string, want bool) error {
	t, err := r.running(id)
	if err != nil {
		return err
	}
	t.op.Lock()
	defer t.op.Unlock()
	if r.cg.frozen(r.cgroup(id)) == want {
		return nil
	}
	if err := r.call(ctx, t, verb, id); err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	return nil
}

// running is need, and ErrNotRunning unless the command runs.
func (r *Runtime) running(id string) (*task, error) {
	t, err := r.need(id)
	if err != nil {
		return nil, err
	}
	init, _ := t.handles()
	if !t.started() || !init.alive() {
		return nil, fmt.Errorf("container %s: %w", id, ErrNotRunning)
	}
	return t, nil
}

// Update changes the limits of a created or running container; no process
// notices but by the limits. What is zero in res becomes unlimited, as it
// would be after a Create with it.
func (r *Runtime) Update(ctx context.Context, id string, res Resources) error {
	t, err := r.need(id)
	if err != nil {
		return err
	}
	t.op.Lock()
	defer t.op.Unlock()
	if _, over := r.exited(t); over {
		return fmt.Errorf("update container %s: %w", id, ErrNotRunning)
	}
	o, err := r.specs.ociResources(id, res)
	if err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	r.specs.realtime(id, path.Dir(r.cgroup(id)), res, o)
	lift(o, t.rec.Resources, r.specs.swapAccounted(), r.cg.v2)
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	file := inBundle(t.bundle, "update.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	if err := r.call(ctx, t, "update", "--resources", file, id); err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	quota := o.CPU != nil && o.CPU.Quota != nil
	if err := r.cg.free(r.cgroup(id), t.rec.Resources, res, quota); err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	t.rec.Resources = res
	return errors.Join(t.saveRecord(), removeFile(file))
}

// List is one look at all containers below Config.Run, whoever made them,
// sorted by id. Those that vanish meanwhile are not in it.
func (r *Runtime) List(ctx context.Context) ([]Status, error) {
	entries, err := os.ReadDir(r.bundles())
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	out := make([]Status, 0, len(entries))
	for _, e := range entries {
		s, err := r.Status(ctx, e.Name())
		if err != nil {
			if errors.Is(err, ErrNotFound) || errors.Is(err, ErrInvalid) {
				continue
			}
			return nil, err
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out, nil
}

// Status of one container, ErrNotFound if no trace is left. It reads files and
// asks the kernel; no process is started.
func (r *Runtime) Status(_ context.Context, id string) (Status, error) {
	t, err := r.need(id)
	if err != nil {
		return Status{}, err
	}
	if s, over := r.exited(t); over {
		return s, nil
	}
	if _, err := os.Stat(t.bundle); err != nil {
		return Status{}, fmt.Errorf("container %s: %w", id, ErrNotFound)
	}
	s := Status{ID: id, StartedAt: t.startedAt()}
	init, _ := t.handles()
	switch {
	case init == nil:
		s.State = StateUnknown
	case !t.started():
		s.State = StateCreated
	case !init.alive():
		s.State = StateRunning // conmon is about to tell the code
	default:
		s.State, s.Pid = StateRunning, init.Pid
		if r.cg.frozen(r.cgroup(id)) {
			s.State = StatePaused
		}
	}
	return s, nil
}
