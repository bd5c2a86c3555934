package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/spec"
	"berth/store"
)

// shares is what the planner needs to know of the namespaces that tasks of s
// share with others.
func shares(v view, s *spec.Service) (of []string, containers map[string]string) {
	for _, n := range s.Shares() {
		if slices.Contains(of, n.Of) {
			continue
		}
		of = append(of, n.Of)
		if name, ok := strings.CutPrefix(n.Of, "container:"); ok {
			if containers == nil {
				containers = map[string]string{}
			}
			if t := containerNamed(v.tasks, name); t != nil && t.State != store.StatePending {
				containers[n.Of] = t.ID
			}
		}
	}
	slices.Sort(of)
	return of, containers
}

// containerNamed finds the live task of a container's name, as in the file
// or as Berth gives it, or of its id or the beginning of one. Of several the
// one that is ready and stays goes first.
func containerNamed(tasks []*store.Task, name string) *store.Task {
	const leastPrefix = 4
	var found *store.Task
	rank := func(t *store.Task) int {
		switch {
		case t == nil:
			return 0
		case t.State == store.StatePending:
			return 1
		case !t.StopAt.IsZero():
			return 2
		case t.ReadySince.IsZero():
			return 3
		}
		return 4
	}
	for _, t := range tasks {
		if !t.Live() {
			continue
		}
		named := t.Name() == name || t.Spec.ContainerName == name || len(name) >= leastPrefix && strings.HasPrefix(t.ID, name)
		if named && rank(t) > rank(found) {
			found = t
		}
	}
	return found
}

// parents are the tasks whose namespaces t shares. Records of old have only
// the one of the network.
func parents(t *store.Task) map[string]string {
	if t.Parents == nil && t.Parent != "" {
		return map[string]string{t.Spec.NetworkMode: t.Parent}
	}
	return t.Parents
}

// runningParents finds the parents of a task that no planner makes.
func runningParents(c *change, t *store.Task) error {
	for _, n := range t.Spec.Shares() {
		id := ""
		if name, ok := strings.CutPrefix(n.Of, "container:"); ok {
			if p := containerNamed(slices.Collect(maps.Values(c.w.tasks)), name); p != nil && p.State != store.StatePending {
				id = p.ID
			}
		} else {
			id = runningTask(c, t.Stack, strings.TrimPrefix(n.Of, "service:"))
		}
		if id == "" {
			return conflict("", "no task of %s runs, whose %s %s is to share", n.Of[strings.Index(n.Of, ":")+1:],
				shareWord(n.Attr), t.Service)
		}
		if t.Parents == nil {
			t.Parents = map[string]string{}
		}
		t.Parents[n.Of] = id
	}
	t.Parent = t.Parents[t.Spec.NetworkMode]
	return nil
}

func shareWord(attr string) string {
	if attr == "network_mode" {
		return "network"
	}
	return attr + " namespace"
}

// namespaces says in which namespaces the container of t is.
func (a *Agent) namespaces(t *store.Task, c *runtime.Container) error {
	s := &t.Spec
	for _, n := range []struct {
		attr, mode string
		of         func(*spec.Service) string
		to         *string
	}{
		{"pid", s.PidMode, func(s *spec.Service) string { return s.PidMode }, &c.PidMode},
		{"ipc", s.IpcMode, func(s *spec.Service) string { return s.IpcMode }, &c.IpcMode},
		{"uts", s.UtsMode, func(s *spec.Service) string { return s.UtsMode }, &c.UtsMode},
	} {
		id := parents(t)[n.mode]
		if id == "" {
			*n.to = n.mode
			continue
		}
		p := a.w.task(id)
		if p == nil || !p.Live() {
			return fmt.Errorf("task %s, whose %s namespace it shares, has ended", id, n.attr)
		}
		*n.to = "container:" + p.ID
		if n.of(&p.Spec) == "host" {
			*n.to = "host"
		}
	}
	if id := parents(t)[s.UtsMode]; id != "" {
		c.Hostname = hostname(a.w.task(id))
	}
	return a.sharedMemory(t, c)
}

// hostname of a task's container.
func hostname(t *store.Task) string {
	if t == nil {
		return ""
	}
	return first(t.Spec.Hostname, t.ID)
}

// sharedMemory gives a container whose ipc namespace others may join, and
// those that do, a /dev/shm that the host has too.
func (a *Agent) sharedMemory(t *store.Task, c *runtime.Container) error {
	owner := t
	for range 8 { // of one that itself joined, and so on
		id := parents(owner)[owner.Spec.IpcMode]
		if id == "" {
			break
		}
		if owner = a.w.task(id); owner == nil {
			return fmt.Errorf("task %s, whose ipc namespace it shares, has ended", id)
		}
	}
	switch mode := owner.Spec.IpcMode; {
	case mode == "shareable":
	case mode == "host":
		c.IpcMode = "host"
		return nil
	case owner == t:
		return nil
	default:
		return fmt.Errorf("%w: %s does not share its ipc namespace; write ipc: shareable there", runtime.ErrInvalid, owner.Name())
	}
	c.ShmDir = a.shmDir(owner.ID)
	if owner != t {
		return nil
	}
	if err := os.MkdirAll(c.ShmDir, 0o700); err != nil {
		return fmt.Errorf("make the shared memory of %s: %w", t.Name(), err)
	}
	size := t.Spec.ShmSize
	if size == 0 {
		size = 64 << 20
	}
	if err := unmountShm(c.ShmDir); err != nil { // of an agent that died here
		return err
	}
	err := unix.Mount("shm", c.ShmDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("mode=1777,size=%d", size))
	if err != nil {
		return fmt.Errorf("mount the shared memory of %s: %w", t.Name(), err)
	}
	return nil
}

func (a *Agent) shmDir(id string) string { return filepath.Join(a.taskRun(id), "shm") }

// unmountShm is idempotent: what is not mounted, or not there, is success.
func unmountShm(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return fmt.Errorf("unmount %s: %w", dir, err)
}
