package runtime

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// record is what Create writes to record.json once the container exists. A
// bundle without one was left by an agent that died inside Create.
type record struct {
	Runtime     string    `json:"runtime"` // path of the OCI runtime that made it
	RuntimeRoot string    `json:"runtime_root"`
	Cgroup      string    `json:"cgroup,omitempty"` // "": Config.CgroupParent/ID
	Boot        string    `json:"boot"`
	Rootfs      string    `json:"rootfs"`
	EnvFile     string    `json:"env_file,omitempty"`
	Init        procID    `json:"init"`
	Conmon      procID    `json:"conmon"`
	Created     time.Time `json:"created"`
	Resources   Resources `json:"resources"`
	LogMaxSize  int64     `json:"log_max_size"`
	LogMaxFiles int       `json:"log_max_files"`
	NoLog       bool      `json:"no_log,omitempty"`
	TTY         bool      `json:"tty,omitempty"`
	Stdin       bool      `json:"stdin,omitempty"`
}

// task is a container as this process knows it.
type task struct {
	id     string
	bundle string
	// rec is settled when the task is made, but for its Resources (held by op).
	// Its process ids are for later agents: this one has the handles.
	rec record

	// op serialises create, start, update and delete of this container.
	op sync.Mutex

	mu sync.Mutex
	// whole says that Create ended: there is a record.
	whole   bool
	init    *pidHandle // nil when the process is gone or not ours
	conmon  *pidHandle
	process *specs.Process // of config.json, read at the first exec
	told    bool           // the exit was put on Exits
	gone    bool           // its files are being removed
}

// note writes a file of the container, unless its files are being removed: it
// would be there for ever.
func (t *task) note(path, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.gone {
		_ = os.WriteFile(path, []byte(text), 0o600) // who reads it can do without
	}
}

// closeHandles frees the descriptors. The handles stay: a call that is still
// under way must not find a missing conmon, which means a dead one.
func (t *task) closeHandles() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.init.close()
	t.conmon.close()
}

// find returns the task of a bundle, from memory or from disk, or nil.
func (r *Runtime) find(id string) *task {
	r.mu.Lock()
	t := r.tasks[id]
	r.mu.Unlock()
	if t != nil {
		return t
	}
	t = r.load(id)
	if t == nil {
		return nil
	}
	r.mu.Lock()
	if other := r.tasks[id]; other != nil {
		r.mu.Unlock()
		t.closeHandles()
		return other
	}
	r.tasks[id] = t
	r.mu.Unlock()
	r.follow(t)
	return t
}

// need is find, for callers that cannot go on without.
func (r *Runtime) need(id string) (*task, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if t := r.find(id); t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, ErrNotFound)
}

// load reads a bundle that another process made.
func (r *Runtime) load(id string) *task {
	t := &task{id: id, bundle: r.bundle(id)}
	if fi, err := os.Stat(t.bundle); err != nil || !fi.IsDir() {
		return nil
	}
	b, err := os.ReadFile(inBundle(t.bundle, "record.json"))
	if err == nil && json.Unmarshal(b, &t.rec) == nil {
		t.whole = true
	} else {
		t.rec = r.orphanRecord(t)
	}
	if t.rec.Boot != r.boot {
		return t // its pids mean other processes now
	}
	t.init = openPid(t.rec.Init)
	t.conmon = openPid(t.rec.Conmon)
	return t
}

// orphanRecord pieces together a record from conmon's pid files. A pid counts
// only if that process is in the container's cgroup, or is a conmon for it.
func (r *Runtime) orphanRecord(t *task) record {
	rec := record{
		Runtime: r.oci.path, RuntimeRoot: r.oci.root(r.cfg.Run), Boot: r.boot,
		LogMaxSize: defaultLogSize, LogMaxFiles: defaultLogFiles,
	}
	if path, root, ok := strings.Cut(readHead(inBundle(t.bundle, "oci")), "\n"); ok {
		rec.Runtime, rec.RuntimeRoot = path, root
	}
	rec.Cgroup = configuredCgroup(t.bundle)
	if pid := readPid(inBundle(t.bundle, "pidfile")); pid > 0 && inCgroup(pid, cmp.Or(rec.Cgroup, r.cfg.CgroupParent+"/"+t.id)) {
		rec.Init = identify(pid)
	}
	if pid := readPid(inBundle(t.bundle, "conmon.pid")); pid > 0 && isConmonOf(pid, t.id) {
		rec.Conmon = identify(pid)
	}
	return rec
}

func readPid(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

func inCgroup(pid int, cgroup string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(b), cgroup)
}

// configuredCgroup is the cgroup that a bundle's config.json asks for, "" if
// it can't be read.
func configuredCgroup(bundle string) string {
	b, err := os.ReadFile(inBundle(bundle, "config.json"))
	var s struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if err != nil || json.Unmarshal(b, &s) != nil {
		return ""
	}
	return s.Linux.CgroupsPath
}

func isConmonOf(pid int, id string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(b), "\x00-u\x00"+id+"\x00")
}

// saveRecord makes Create's result known to later agents. Run is a tmpfs, and
// nothing of it means anything after a crash of the machine: no fsync.
func (t *task) saveRecord() error {
	b, err := json.Marshal(t.rec)
	if err != nil {
		return fmt.Errorf("encode the record of %s: %w", t.id, err)
	}
	tmp := inBundle(t.bundle, "record.tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write the record of %s: %w", t.id, err)
	}
	if err := os.Rename(tmp, inBundle(t.bundle, "record.json")); err != nil {
		return fmt.Errorf("write the record of %s: %w", t.id, err)
	}
	return nil
}

// spec reads the process of the bundle's config.json, once.
func (t *task) spec() (specs.Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.process == nil {
		b, err := os.ReadFile(inBundle(t.bundle, "config.json"))
		if errors.Is(err, fs.ErrNotExist) {
			return specs.Process{}, fmt.Errorf("container %s: %w", t.id, ErrNotFound)
		}
		if err != nil {
			return specs.Process{}, fmt.Errorf("read the bundle of %s: %w", t.id, err)
		}
		var s struct{ Process *specs.Process }
		if err := json.Unmarshal(b, &s); err != nil || s.Process == nil {
			return specs.Process{}, fmt.Errorf("the bundle of %s is damaged: %w", t.id, err)
		}
		t.process = s.Process
	}
	return *t.process, nil
}

// started says whether Start has ended well.
func (t *task) started() bool {
	_, err := os.Stat(inBundle(t.bundle, "started"))
	return err == nil
}

// startedAt is when the command was started, zero if it was not.
func (t *task) startedAt() time.Time {
	for _, mark := range []string{"started", "starting"} {
		if fi, err := os.Stat(inBundle(t.bundle, mark)); err == nil {
			return fi.ModTime()
		}
	}
	return time.Time{}
}

// isWhole says whether Create has ended.
func (t *task) isWhole() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.whole
}

// handles returns the live processes; either may be nil.
func (t *task) handles() (init, conmon *pidHandle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.init, t.conmon
}
