package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/api"
	"berth/crash"
	"berth/images"
	"berth/overlaynet"
	"berth/runtime"
	"berth/store"
)

// runTask makes the container of a recorded task and starts it. A task that
// can't be started is exited, with a reason: its slot then follows its restart
// policy like after any other exit. An error is only for what makes sense to
// try again with the same task.
func (a *Agent) runTask(ctx context.Context, id string) error {
	t := a.w.task(id)
	if t == nil || t.State != store.StatePending {
		return nil
	}
	return a.startTask(ctx, t, a.makeContainer(ctx, t))
}

// startTask runs the program of a task whose container was made, or failed to
// be (err), and notes how that went.
func (a *Agent) startTask(ctx context.Context, t *store.Task, err error) error {
	id, began := t.ID, time.Now()
	if err == nil {
		err = a.containers.Start(ctx, id)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // the agent ends; the next one finds the task pending
		}
		a.log.Warn("task did not start", "task", t.Name(), "id", id, "err", err)
		if err := a.unmake(context.WithoutCancel(ctx), t); err != nil {
			a.log.Error("take back a task that did not start", "task", t.Name(), "err", err)
		}
		crash.At("task.unstartable")
		a.w.note(id, func(t *store.Task) {
			t.Lost = false // unmake took its container, nobody else
			t.State, t.Finished, t.ExitCode, t.Reason = store.StateExited, time.Now(), startExit(err), startReason(err)
			t.Unstartable = unstartable(err)
		})
		a.events.task(t, "die", startReason(err))
		return nil
	}
	crash.At("container.started")
	begun := *t
	a.begin(&begun)
	// A short-lived container may have exited by now: its exit is kept, and
	// told that it had started.
	a.w.note(id, func(t *store.Task) {
		if t.State == store.StatePending || t.Started.IsZero() {
			a.events.task(t, "start", "")
		}
		if t.State == store.StatePending {
			t.State, t.Health, t.Readiness, t.Liveness = store.StateRunning, begun.Health, begun.Readiness, begun.Liveness
		}
		t.Started = began
	})
	crash.At("task.started")
	return nil
}

// startExit is the exit code that a shell would give a program that could not
// be started.
func startExit(err error) int {
	var se *runtime.StartError
	if errors.As(err, &se) && se.Reason == runtime.ReasonNotFound {
		return 127
	}
	return 126
}

// startReason is why a task did not start, in one line with what to do.
func startReason(err error) string {
	if p := (*api.Error)(nil); errors.As(err, &p) && p.Hint != "" {
		return err.Error() + "; " + p.Hint
	}
	return err.Error()
}

// unstartable says that the image and the file, not the machine, are at fault.
func unstartable(err error) bool {
	var se *runtime.StartError
	if !errors.As(err, &se) {
		return errors.Is(err, runtime.ErrInvalid) || errors.Is(err, errNoCommand)
	}
	switch se.Reason {
	case runtime.ReasonNotFound, runtime.ReasonPermission, runtime.ReasonFormat, runtime.ReasonWorkingDir:
		return true
	}
	return false
}

// places of a task on disk and in Run.
func (a *Agent) taskRoot(id string) string { return filepath.Join(a.cfg.Root, "tasks", id) }
func (a *Agent) taskRun(id string) string  { return filepath.Join(a.cfg.Run, "tasks", id) }

// makeContainer mounts, delivers and connects what t needs, and creates its
// container. What it made before an error is taken back by unmake.
func (a *Agent) makeContainer(ctx context.Context, t *store.Task) error {
	img, err := a.images.Resolve(t.Digest)
	if err != nil {
		return fmt.Errorf("image %s: %w", t.Image, err)
	}
	rootfs := filepath.Join(a.taskRun(t.ID), "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return fmt.Errorf("make the task's folder: %w", err)
	}
	var netns string
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		netns, err = a.connect(gctx, t)
		return err
	})
	g.Go(func() error {
		if err := a.limitStorage(t); err != nil {
			return err
		}
		err := a.images.Mount(gctx, img.Digest, images.Mount{
			Target: rootfs,
			Upper:  filepath.Join(a.taskRoot(t.ID), "upper"),
			Work:   filepath.Join(a.taskRoot(t.ID), "work"),
		})
		if err != nil {
			return fmt.Errorf("mount image %s: %w", t.Image, err)
		}
		crash.At("rootfs.mounted")
		if err := a.applySynced(t, rootfs); err != nil {
			return err
		}
		return images.Preflight(rootfs)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	c, release, err := a.container(ctx, t, img, rootfs)
	defer release()
	if err != nil {
		return err
	}
	c.Netns = netns
	crash.At("task.furnished")
	if err := a.containers.Create(ctx, c); err != nil && !errors.Is(err, runtime.ErrExists) {
		return err
	}
	crash.At("container.created")
	return nil
}

// connect gives t its network namespace; "" is the host's.
func (a *Agent) connect(ctx context.Context, t *store.Task) (string, error) {
	if t.Parent != "" {
		p := a.w.task(t.Parent)
		if p == nil || !p.Live() {
			return "", fmt.Errorf("task %s, whose network it shares, has ended", t.Parent)
		}
		if p.Spec.NetworkMode == "host" {
			return "", nil
		}
		netns, err := a.networks.Attach(ctx, p.ID, a.endpoints(p))
		if p = a.w.task(t.Parent); p == nil || !p.Live() {
			// It ended meanwhile, and who cleans up after it may have been here.
			err = errors.Join(err, a.networks.Detach(context.WithoutCancel(ctx), t.Parent),
				fmt.Errorf("task %s, whose network it shares, has ended", t.Parent))
		}
		return netns, err
	}
	if t.Spec.NetworkMode == "host" {
		return "", nil
	}
	for _, o := range a.w.view().tasks {
		// Its addresses may be those of t, if they are static.
		if precedes(o, t) {
			if err := a.networks.Detach(ctx, o.ID); err != nil {
				return "", fmt.Errorf("connect %s: %w", t.Name(), err)
			}
		}
	}
	netns, err := a.networks.Attach(ctx, t.ID, a.endpoints(t))
	if err != nil {
		return "", fmt.Errorf("connect %s: %w", t.Name(), err)
	}
	return netns, nil
}

func (a *Agent) endpoints(t *store.Task) []overlaynet.Endpoint {
	a.w.mu.RLock()
	defer a.w.mu.RUnlock()
	out := make([]overlaynet.Endpoint, 0, len(t.Endpoints))
	for _, e := range t.Endpoints {
		n := a.w.networks[e.Network]
		if n == nil {
			continue
		}
		out = append(out, overlaynet.Endpoint{
			NetworkID: n.ID, Addr4: e.IPv4, Addr6: e.IPv6, MAC: e.MAC, Ifname: e.Ifname, DefaultRoute: e.Default,
			LinkLocal: e.LinkLocal, Sysctls: e.Sysctls,
		})
	}
	return out
}

// unmake takes back everything that a task holds but its record and its log.
// It goes on after an error and is idempotent.
func (a *Agent) unmake(ctx context.Context, t *store.Task) error {
	var errs []error
	errs = append(errs, a.containers.Delete(ctx, t.ID))
	crash.At("unmake.container")
	if t.Parent == "" && t.Spec.NetworkMode != "host" {
		errs = append(errs, a.networks.Detach(ctx, t.ID))
	}
	crash.At("unmake.network")
	errs = append(errs, unmountShm(a.shmDir(t.ID)))
	errs = append(errs, a.images.Unmount(filepath.Join(a.taskRun(t.ID), "rootfs")))
	crash.At("unmake.rootfs")
	errs = append(errs, a.secrets.Withdraw(t.ID), os.RemoveAll(a.taskRun(t.ID)))
	crash.At("unmake.run")
	if t.Spec.StorageSize > 0 {
		if _, err := os.Stat(filepath.Join(a.taskRoot(t.ID), "upper")); err == nil {
			// The file system would keep the limit for ever.
			errs = append(errs, images.Limit(t.ID, 0, filepath.Join(a.taskRoot(t.ID), "upper")))
		}
	}
	errs = append(errs, os.RemoveAll(a.taskRoot(t.ID)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after %s: %w", t.Name(), err)
	}
	return nil
}
