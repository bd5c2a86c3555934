package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/crash"
)

const (
	sigKill = unix.SIGKILL
	sigStop = unix.SIGSTOP
)

// Defaults of Container.LogMaxSize and LogMaxFiles.
const (
	defaultLogSize  = 10 << 20
	defaultLogFiles = 3
)

// Create makes the bundle and a container in state created: its namespaces,
// mounts and cgroup are there, its command does not run yet. On failure
// nothing is left. An id that exists already is ErrExists, a command that
// cannot run ErrStart (some are only found by Start), a request that is wrong
// ErrInvalid.
func (r *Runtime) Create(ctx context.Context, c Container) error {
	if err := r.checkCgroupParent(c); err != nil {
		return fmt.Errorf("create container %s: %w", c.ID, err)
	}
	oci, err := r.runtimeNamed(c.Runtime)
	if err != nil {
		return fmt.Errorf("create container %s: %w", c.ID, err)
	}
	release, err := r.join(&c)
	defer release()
	if err != nil {
		return fmt.Errorf("create container %s: %w", c.ID, err)
	}
	if c.CgroupParent != "" {
		r.nested.RLock()
		defer r.nested.RUnlock()
	}
	spec, err := r.specs.make(c)
	if err != nil {
		return fmt.Errorf("create container %s: %w", c.ID, err)
	}
	config, err := encodeSpec(spec)
	if err != nil {
		return err
	}
	t := &task{id: c.ID, bundle: r.bundle(c.ID), rec: r.newRecord(c, oci), process: spec.Process}
	t.rec.Cgroup = spec.Linux.CgroupsPath
	t.op.Lock()
	defer t.op.Unlock()
	if err := r.reserve(t); err != nil {
		return err
	}
	if err := r.create(ctx, t, c, config); err != nil {
		return errors.Join(err, r.discard(ctx, t, true))
	}
	if oci == r.oci { // what another one compiles may be of another form
		r.specs.filter.learn(spec, filepath.Join(t.rec.RuntimeRoot, c.ID))
	}
	r.follow(t)
	// A container that died between its report and the watch is noticed here.
	r.settle(t.id)
	return nil
}

func (r *Runtime) newRecord(c Container, oci ociRuntime) record {
	rec := record{
		Runtime: oci.path, RuntimeRoot: oci.root(r.cfg.Run), Boot: r.boot, Rootfs: c.Rootfs, EnvFile: c.EnvFile,
		Created: time.Now(), Resources: c.Resources, TTY: c.TTY, Stdin: c.Stdin,
		LogMaxSize: c.LogMaxSize, LogMaxFiles: c.LogMaxFiles, NoLog: c.NoLog,
	}
	if rec.LogMaxSize <= 0 {
		rec.LogMaxSize = defaultLogSize
	}
	if rec.LogMaxFiles <= 0 {
		rec.LogMaxFiles = defaultLogFiles
	}
	return rec
}

// reserve takes the id by making the bundle's folder.
func (r *Runtime) reserve(t *task) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks[t.id] != nil {
		return fmt.Errorf("create container %s: %w", t.id, ErrExists)
	}
	err := os.Mkdir(t.bundle, 0o700)
	if errors.Is(err, fs.ErrExist) {
		err = ErrExists
	}
	if err != nil {
		return fmt.Errorf("create container %s: %w", t.id, err)
	}
	r.tasks[t.id] = t
	crash.At("bundle.made")
	return nil
}

func (r *Runtime) create(ctx context.Context, t *task, c Container, config []byte) error {
	// An exit file of a former container with this id would be taken for ours.
	if err := removeFile(r.exitFile(t.id)); err != nil {
		return err
	}
	if err := os.WriteFile(inBundle(t.bundle, "config.json"), config, 0o600); err != nil {
		return fmt.Errorf("write the bundle of %s: %w", t.id, err)
	}
	// For who finds the bundle without a record.
	if err := os.WriteFile(inBundle(t.bundle, "oci"), []byte(t.rec.Runtime+"\n"+t.rec.RuntimeRoot), 0o600); err != nil {
		return fmt.Errorf("write the bundle of %s: %w", t.id, err)
	}
	if err := os.MkdirAll(r.logDir(t.id), 0o700); err != nil {
		return fmt.Errorf("make the log folder of %s: %w", t.id, err)
	}
	crash.At("bundle.written")
	pid, err := r.runConmon(ctx, t, c)
	if err != nil {
		return err
	}
	crash.At("conmon.reported")
	if err := r.specs.weighBFQ(t.rec.Cgroup, c.Blkio); err != nil {
		return err
	}
	t.rec.Init = identify(pid)
	t.rec.Conmon = identify(readPid(inBundle(t.bundle, "conmon.pid")))
	if t.rec.Conmon.Pid == 0 && !pathExists(r.exitFile(t.id)) {
		return fmt.Errorf("create container %s: cannot tell which process its conmon is", t.id)
	}
	if err := t.saveRecord(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.init, t.conmon = openPid(t.rec.Init), openPid(t.rec.Conmon)
	t.whole = true
	return nil
}

// Start runs the command of a created container. A container that runs
// already is success; one that has exited is ErrNotRunning, since it never
// starts again.
func (r *Runtime) Start(ctx context.Context, id string) error {
	t, err := r.need(id)
	if err != nil {
		return err
	}
	t.op.Lock()
	defer t.op.Unlock()
	if t.started() {
		return nil // also if it has ended since, which Exits tells
	}
	if _, over := r.exited(t); over {
		return fmt.Errorf("start container %s: it has exited: %w", id, ErrNotRunning)
	}
	// Its time is the start time, and must lie before the end of a command that
	// ends at once. The rename says that it was carried out.
	mark := inBundle(t.bundle, "starting")
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	crash.At("start.marked")
	err = r.call(ctx, t, "start", id)
	if err != nil && !saysStarted(saidText(err)) {
		return errors.Join(r.startFailure(t, err), removeFile(mark))
	}
	crash.At("start.called")
	if err := os.Rename(mark, inBundle(t.bundle, "started")); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	return nil
}

func (r *Runtime) startFailure(t *task, err error) error {
	if text := saidText(err); text != "" {
		command := ""
		if p, perr := t.spec(); perr == nil && len(p.Args) > 0 {
			command = p.Args[0]
		}
		return fmt.Errorf("container %s: %w", t.id, startError(command, text))
	}
	return fmt.Errorf("start container %s: %w", t.id, err)
}

// Delete kills what still runs and removes all but the log. Idempotent: what
// is gone already is success. The root filesystem and the network namespace
// are the caller's.
func (r *Runtime) Delete(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	t := r.find(id)
	if t == nil {
		// Traces of a Delete that was interrupted after the bundle had gone.
		return errors.Join(r.cg.remove(r.cgroup(id)), removeFile(r.exitFile(id)))
	}
	t.op.Lock()
	defer t.op.Unlock()
	return r.discard(ctx, t, false)
}

// discard removes a container in an order that can be interrupted anywhere and
// begun again: processes, the runtime's state, cgroup, exit file, bundle.
func (r *Runtime) discard(ctx context.Context, t *task, failedCreate bool) error {
	ctx = context.WithoutCancel(ctx) // half a removal helps nobody
	sameBoot := t.rec.Boot == r.boot
	if sameBoot {
		r.killAll(t)
		crash.At("container.killed")
		if err := r.runtimeDelete(ctx, t); err != nil {
			return fmt.Errorf("delete container %s: %w", t.id, err)
		}
		crash.At("container.deleted")
		cgroup := r.cgroup(t.id)
		r.cg.kill(cgroup)
		if err := r.cg.remove(cgroup); err != nil {
			return fmt.Errorf("delete container %s: %w", t.id, err)
		}
		if !failedCreate { // else Create holds nested, and the next prunes
			r.pruneCgroup(cgroup)
		}
	}
	r.endConmon(t)
	crash.At("conmon.ended")
	if failedCreate {
		_ = os.Remove(r.LogPath(t.id))
		_ = os.Remove(r.logDir(t.id)) // only if empty
	}
	t.mu.Lock()
	t.gone = true
	t.mu.Unlock()
	err := errors.Join(os.RemoveAll(t.bundle), removeFile(r.exitFile(t.id)))
	if err != nil {
		return fmt.Errorf("delete container %s: %w", t.id, err)
	}
	r.mu.Lock()
	if r.tasks[t.id] == t {
		delete(r.tasks, t.id)
	}
	r.mu.Unlock()
	t.closeHandles()
	return nil
}

// killAll ends the container's processes, also a conmon that is still busy
// creating them.
func (r *Runtime) killAll(t *task) {
	t.mu.Lock()
	if t.conmon == nil {
		if pid := readPid(inBundle(t.bundle, "conmon.pid")); pid > 0 && isConmonOf(pid, t.id) {
			t.conmon = openPid(identify(pid))
		}
	}
	t.mu.Unlock()
	init, conmon := t.handles()
	if !t.isWhole() {
		// With the OCI runtime below it: that would go on, and make a cgroup that
		// nobody knows of. One that has not told its pid yet is found by its name.
		killTree(conmon)
		for _, pid := range conmonsOf(t.id) {
			if h := openPid(identify(pid)); h != nil {
				killTree(h)
				h.close()
			}
		}
	}
	_ = init.signal(sigKill)
	r.cg.kill(r.cgroup(t.id))
}

// conmonsOf looks through all processes for the conmons of a container.
func conmonsOf(id string) []int {
	var out []int
	dirs, _ := filepath.Glob("/proc/[0-9]*") // a constant pattern
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && isConmonOf(pid, id) {
			out = append(out, pid)
		}
	}
	return out
}

// runtimeDelete makes the OCI runtime forget the container.
func (r *Runtime) runtimeDelete(ctx context.Context, t *task) error {
	if _, err := os.Stat(t.rec.RuntimeRoot + "/" + t.id); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var err error
	for try := range 10 {
		err = r.call(ctx, t, "delete", "--force", t.id)
		if err == nil || saysGone(saidText(err)) {
			return nil
		}
		if !saysBusy(saidText(err)) {
			break
		}
		r.cg.kill(r.cgroup(t.id))
		<-time.After(time.Duration(try+1) * 10 * time.Millisecond)
	}
	if errors.Is(err, ErrRuntimeMissing) {
		// Uninstalled since. Its processes are dead, its state is only files.
		return os.RemoveAll(t.rec.RuntimeRoot + "/" + t.id)
	}
	return err
}

// endConmon gives conmon a moment to end by itself, so that the log is whole.
func (r *Runtime) endConmon(t *task) {
	_, conmon := t.handles()
	await := func(d time.Duration) {
		for deadline := time.Now().Add(d); conmon.alive() && time.Now().Before(deadline); {
			<-time.After(2 * time.Millisecond)
		}
	}
	await(2 * time.Second)
	_ = conmon.signal(sigKill)
	await(2 * time.Second) // a call that it is in, such as writing the exit file, still ends
}

// killTree kills a process and all below it, and waits for their ends. Each is
// stopped before its children are looked at, so that it has no more of them.
func killTree(h *pidHandle) {
	if h.signal(sigStop) != nil {
		return // gone
	}
	await := func(over func() bool) {
		for deadline := time.Now().Add(2 * time.Second); !over() && time.Now().Before(deadline); {
			<-time.After(time.Millisecond)
		}
	}
	await(func() bool { s, err := readStat(h.Pid); return err != nil || s.state == 'T' || s.dead() })
	for _, pid := range children(h.Pid) {
		if child := openPid(identify(pid)); child != nil {
			killTree(child)
			child.close()
		}
	}
	_ = h.signal(sigKill)
	await(func() bool { return !h.alive() })
}

// children of a process, whichever of its threads made them.
func children(pid int) []int {
	var out []int
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // a constant pattern
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // that thread has ended
		}
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// RemoveLog removes the log files of a deleted container. Idempotent.
func (r *Runtime) RemoveLog(id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	if err := os.RemoveAll(r.logDir(id)); err != nil {
		return fmt.Errorf("remove the log of %s: %w", id, err)
	}
	return nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
