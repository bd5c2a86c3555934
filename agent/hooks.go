package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"berth/crash"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

// hooks runs the commands of post_start and pre_stop inside of containers.
//
// What is left to run is read from the records (level-triggered, as the loop
// is): a task that runs and is not PostStarted has post_start before it, one
// with StopAt that is not Signalled has pre_stop. An agent that dies in the
// middle of a hook ends that hook's process, or not; the next agent begins
// with the first hook of the event again. So a hook runs at least once.
type hooks struct {
	a    *Agent
	mu   sync.Mutex
	busy map[string]bool // by event and task
}

func newHooks(a *Agent) *hooks { return &hooks{a: a, busy: map[string]bool{}} }

// Events of hooks, as Compose names them.
const (
	postStart = "post_start"
	preStop   = "pre_stop"
)

// beginning says that t runs, and its post_start hooks have not ended.
func beginning(t *store.Task) bool {
	return len(t.Spec.PostStart) > 0 && t.OneOff == nil && t.State == store.StateRunning && !t.PostStarted && t.StopAt.IsZero()
}

// stopHeld says that the stop signal of t waits for its pre_stop hooks.
func stopHeld(t *store.Task) bool {
	up := t.State == store.StateRunning || t.State == store.StatePaused
	return len(t.Spec.PreStop) > 0 && up && !t.StopAt.IsZero() && !t.Signalled
}

// sync starts the hooks that are due.
func (h *hooks) sync(ctx context.Context, wg *sync.WaitGroup, v view) {
	for _, t := range v.tasks {
		if beginning(t) {
			h.start(wg, postStart, t.ID, beginning, func(t *store.Task) { h.postStart(ctx, t) })
		}
		if stopHeld(t) {
			h.start(wg, preStop, t.ID, stopHeld, func(t *store.Task) { h.preStop(ctx, t) })
		}
	}
}

// start runs f for a task, if its hooks are still due: the look that found them
// so may be older than the end of an earlier run.
func (h *hooks) start(wg *sync.WaitGroup, event, id string, due func(*store.Task) bool, f func(*store.Task)) {
	key := event + " " + id
	h.mu.Lock()
	busy := h.busy[key]
	h.busy[key] = true
	h.mu.Unlock()
	if busy {
		return
	}
	h.a.spawn(wg, func() {
		if t := h.a.w.task(id); t != nil && due(t) {
			f(t)
		}
		h.mu.Lock()
		delete(h.busy, key)
		h.mu.Unlock()
		h.a.loop.wake()
	})
}

// postStart runs the hooks of t. One that fails is a start that failed: the
// container ends, with that as its reason.
func (h *hooks) postStart(ctx context.Context, t *store.Task) {
	failed := t.HookFailed // known, and the container still runs
	if failed == "" {
		err := h.run(ctx, t, postStart, t.Spec.PostStart)
		switch {
		case ctx.Err() != nil, errors.Is(err, runtime.ErrNotRunning), errors.Is(err, runtime.ErrNotFound):
			return // its own exit says it
		case err == nil:
			crash.At("poststart.done")
			h.a.w.note(t.ID, func(t *store.Task) { t.PostStarted = true })
			return
		}
		failed = err.Error()
	}
	h.a.w.note(t.ID, func(t *store.Task) { t.HookFailed = failed })
	crash.At("poststart.failed")
	if err := h.a.signal(ctx, t, killSignal); err != nil && ctx.Err() == nil {
		h.a.log.Error("end a task whose post_start hook failed", "task", t.Name(), "err", err)
	}
}

// preStop runs the hooks of t, then sends its stop signal. The grace has begun
// before them: when it is over SIGKILL ends both.
func (h *hooks) preStop(ctx context.Context, t *store.Task) {
	if err := h.run(ctx, t, preStop, t.Spec.PreStop); err != nil && ctx.Err() == nil &&
		!errors.Is(err, runtime.ErrNotRunning) && !errors.Is(err, runtime.ErrNotFound) {
		h.a.log.Warn("a hook failed; the task stops all the same", "task", t.Name(), "err", err)
		h.a.w.note(t.ID, func(t *store.Task) { t.HookFailed = err.Error() })
	}
	if ctx.Err() != nil {
		return // the next agent runs them
	}
	crash.At("prestop.done")
	if err := h.a.sendStop(ctx, t); err != nil {
		h.a.log.Error("stop a task", "task", t.Name(), "err", err)
		return
	}
	h.a.w.note(t.ID, func(t *store.Task) { t.Signalled = true })
}

// run runs the hooks of one event in order, up to the first that fails.
func (h *hooks) run(ctx context.Context, t *store.Task, event string, list []spec.Hook) error {
	for i, hook := range list {
		name := event + " hook"
		if len(list) > 1 {
			name = fmt.Sprintf("%s hook %d of %d", event, i+1, len(list))
		}
		crash.At("hook.run")
		if err := h.one(ctx, t, name, &hook); err != nil {
			if ctx.Err() == nil {
				h.a.events.task(t, "hook_failed", err.Error())
			}
			return err
		}
		h.a.events.task(t, event, name+" ended")
	}
	return nil
}

// hookOutput bounds what is kept of what a hook prints, in bytes.
const hookOutput = 4096

func (h *hooks) one(ctx context.Context, t *store.Task, name string, hook *spec.Hook) error {
	var said tail
	var env []string
	for _, k := range sortedKeys(hook.Environment) {
		env = append(env, k+"="+hook.Environment[k])
	}
	code, err := h.a.containers.Exec(ctx, t.ID, runtime.Exec{
		Args: hook.Command, Env: env, User: hook.User, WorkingDir: hook.WorkingDir, Privileged: hook.Privileged,
		Stdout: &said, Stderr: &said,
	})
	switch {
	case err != nil:
		return fmt.Errorf("%s (%s): %w", name, bounded(strings.Join(hook.Command, " ")), err)
	case code != 0:
		text := fmt.Sprintf("%s (%s) exited %d", name, bounded(strings.Join(hook.Command, " ")), code)
		if last := h.a.cfg.Redact.Text(said.lastLine()); last != "" {
			text += fmt.Sprintf(": %q", last)
		}
		return errors.New(text)
	}
	return nil
}

// tail keeps the end of what is written. Safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-hookOutput):]...)
	t.buf = t.buf[max(0, len(t.buf)-hookOutput):]
	return len(p), nil
}

func (t *tail) lastLine() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(string(t.buf))
	return bounded(text[strings.LastIndexByte(text, '\n')+1:])
}
