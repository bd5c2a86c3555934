package agent

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"berth/api"
	"berth/crash"
	"berth/runtime"
	"berth/store"
)

// act starts, stops, restarts, kills, pauses or removes services of a stack
// without changing its revision, and waits until that is so.
func (a *Agent) act(ctx context.Context, stack string, req *api.ActionRequest, report func(api.Progress)) (*api.Done, error) {
	s, r := a.w.stack(stack)
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	services := req.Services
	if len(services) == 0 {
		services = sortedKeys(r.Stack.Services)
	}
	for _, name := range services {
		if _, ok := r.Stack.Services[name]; !ok {
			return nil, notFound("no service %s in stack %s", name, stack)
		}
	}
	switch req.Action {
	case api.ActionStart:
		a.retryFailed(stack, services)
		return a.changeAndFollow(ctx, stack, services, report, func(s *store.Stack) {
			for _, name := range services {
				delete(s.Stopped, name)
			}
		})
	case api.ActionStop:
		return a.stop(ctx, stack, services, req.Timeout, report)
	case api.ActionRestart:
		// Every task gets a successor. It never applies a changed file: that
		// is `berth up`.
		return a.changeAndFollow(ctx, stack, services, report, func(s *store.Stack) {
			s.StopTimeout, s.StopTimeoutAll = req.Timeout, req.Timeout != nil
			for _, name := range services {
				s.Epochs[name]++
				delete(s.Stopped, name)
			}
		})
	case api.ActionKill:
		return a.kill(ctx, stack, services, req.Signal, report)
	case api.ActionRemove:
		return a.removeServices(ctx, stack, services, req, report)
	case api.ActionPause, api.ActionUnpause:
		return a.pause(ctx, stack, services, req.Action == api.ActionPause)
	}
	return nil, invalid("no such action: %s", req.Action)
}

// changeStack changes the record of a stack, unless somebody else is changing
// the stack.
func (a *Agent) changeStack(stack, who string, f func(*store.Stack)) (revision uint64, err error) {
	release, err := a.applies.take(stack, who)
	if err != nil {
		return 0, err
	}
	defer release()
	crash.At("stack.change")
	err = a.w.commit(func(c *change) error {
		cur := c.w.stacks[stack]
		if cur == nil {
			return notFound("no stack %s", stack)
		}
		next := *cur
		next.Stopped, next.Epochs = cloned(next.Stopped), cloned(next.Epochs)
		f(&next)
		revision = next.Revision
		c.putStack(next)
		return nil
	})
	crash.At("stack.changed")
	a.loop.forgive(stack)
	return revision, err
}

func cloned[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

// changeAndFollow changes the record and reports until the services are as it
// now wants them.
func (a *Agent) changeAndFollow(ctx context.Context, stack string, services []string, report func(api.Progress), f func(*store.Stack)) (*api.Done, error) {
	revision, err := a.changeStack(stack, "berth", f)
	if err != nil {
		return nil, err
	}
	a.loop.settle(ctx)
	return a.follow(ctx, stack, revision, services, report)
}

// retryFailed asks for another try of what failed and waits or stays down.
// What has completed stays so. No services means all.
func (a *Agent) retryFailed(stack string, services []string) (any bool) {
	for _, t := range a.w.view().tasks {
		failed := t.State == store.StateExited && (t.ExitCode != 0 || t.Reason != "")
		if t.Stack == stack && t.OneOff == nil && failed && (len(services) == 0 || slices.Contains(services, t.Service)) {
			a.w.note(t.ID, func(t *store.Task) { t.Retry = true })
			any = true
		}
	}
	return any
}

func (a *Agent) stop(ctx context.Context, stack string, services []string, timeout *time.Duration, report func(api.Progress)) (*api.Done, error) {
	return a.changeAndFollow(ctx, stack, services, report, func(s *store.Stack) {
		s.StopTimeout, s.StopTimeoutAll = timeout, false
		for _, name := range services {
			s.Stopped[name] = true
		}
	})
}

// kill sends a signal to every running task. SIGKILL, like in Docker, also
// means that the user wants them down, and then it waits until they are.
func (a *Agent) kill(ctx context.Context, stack string, services []string, name string, report func(api.Progress)) (*api.Done, error) {
	sig := runtime.Signal(unix.SIGKILL)
	if name != "" {
		var err error
		if sig, err = runtime.ParseSignal(name); err != nil {
			return nil, invalid("signal %q: %v", name, err)
		}
	}
	var revision uint64
	if sig == unix.SIGKILL {
		var err error
		revision, err = a.changeStack(stack, "berth kill", func(s *store.Stack) {
			for _, name := range services {
				s.Stopped[name] = true
			}
		})
		if err != nil {
			return nil, err
		}
	}
	n := 0
	for _, t := range a.running(stack, services) {
		if err := a.signal(ctx, t, sig); err != nil {
			return nil, err
		}
		n++
	}
	if n == 0 {
		return nil, &api.Error{Status: http.StatusConflict, Code: api.CodeConflict, Detail: "no task is running"}
	}
	if sig == unix.SIGKILL {
		a.loop.settle(ctx)
		return a.follow(ctx, stack, revision, services, report)
	}
	a.loop.wake()
	return &api.Done{Outcome: api.OutcomeDone}, nil
}

func (a *Agent) running(stack string, services []string) []*store.Task {
	var out []*store.Task
	for _, t := range a.w.view().tasks {
		if t.Stack == stack && slices.Contains(services, t.Service) && (t.State == store.StateRunning || t.State == store.StatePaused) {
			out = append(out, t)
		}
	}
	return out
}

func (a *Agent) pause(ctx context.Context, stack string, services []string, pause bool) (*api.Done, error) {
	for _, t := range a.running(stack, services) {
		if t.OneOff != nil {
			continue
		}
		var err error
		state := store.StateRunning
		verb := "unpause"
		if pause {
			verb, state = "pause", store.StatePaused
		}
		switch {
		case t.State == state:
			continue
		case pause:
			err = a.containers.Pause(ctx, t.ID)
		default:
			err = a.containers.Resume(ctx, t.ID)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name(), err)
		}
		a.w.note(t.ID, func(t *store.Task) {
			if t.State == store.StateRunning || t.State == store.StatePaused { // it may have exited
				t.State = state
			}
		})
		a.events.task(t, verb, "")
	}
	a.loop.wake()
	return &api.Done{Outcome: api.OutcomeDone}, nil
}

// removeServices takes away the stopped tasks of services; they come back
// with start or up. With Stop, running ones are stopped first.
func (a *Agent) removeServices(ctx context.Context, stack string, services []string, req *api.ActionRequest, report func(api.Progress)) (*api.Done, error) {
	if req.Stop {
		if done, err := a.stop(ctx, stack, services, req.Timeout, report); err != nil || done.Outcome != api.OutcomeDone {
			return done, err
		}
	}
	for _, t := range a.w.view().tasks {
		if t.Stack != stack || t.OneOff != nil || !slices.Contains(services, t.Service) || t.State != store.StateExited {
			continue
		}
		s, _ := a.w.stack(stack)
		if s == nil || !s.Stopped[t.Service] {
			continue // it is wanted: the loop would make it again
		}
		if err := a.removeTask(ctx, t); err != nil {
			return nil, err
		}
		if req.Volumes {
			for _, name := range t.Anonymous {
				if err := a.volumes.Remove(name); err != nil {
					return nil, err
				}
			}
		}
		report(api.Progress{Message: t.Name() + " removed"})
	}
	return &api.Done{Outcome: api.OutcomeDone}, nil
}
