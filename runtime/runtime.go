package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Runtime drives the containers below one Config.Run. One process has it
// open; it is safe for concurrent use.
type Runtime struct {
	cfg    Config
	oci    ociRuntime
	conmon string
	boot   string
	cg     cgroupFS
	specs  *specMaker
	nest   conmonCgroup

	mu    sync.Mutex
	tasks map[string]*task
	// rotating holds off a second RotateLogs while one runs.
	rotating sync.Mutex

	// nested is held for reading while a container is created below a cgroup
	// parent of its own, see pruneCgroup.
	nested sync.RWMutex
	// others are the OCI runtimes of Config.Runtimes that were asked for.
	others sync.Map // name -> ociRuntime

	watch  *watcher
	exits  *exitQueue
	closed atomic.Bool
}

// Open prepares the folders, chooses the OCI runtime, takes over what runs
// below Config.Run and starts to watch it. Exits that happened while nobody
// had it open are delivered on Exits.
//
// The choice of the runtime is remembered in Run: only the first Open after a
// boot, or after the runtime was replaced, tries containers.
func Open(ctx context.Context, cfg Config) (*Runtime, error) {
	cfg, err := cfg.normal()
	if err != nil {
		return nil, err
	}
	r := &Runtime{cfg: cfg, boot: bootID(), cg: findCgroups(), tasks: map[string]*task{}}
	r.specs = newSpecMaker(cfg, r.cg)
	if err := r.prepare(); err != nil {
		return nil, err
	}
	if r.conmon, err = findConmon(cfg.Conmon); err != nil {
		return nil, err
	}
	if r.oci, err = chooseRuntime(ctx, cfg, r.specs); err != nil {
		return nil, err
	}
	r.specs.filter.keep(filepath.Join(cfg.Run, "seccomp"), r.boot+r.oci.stamp())
	r.nest = findConmonCgroup(r.cg, cfg.CgroupParent)
	r.exits = newExitQueue()
	if r.watch, err = newWatcher(r.exitDir(), r.settle); err != nil {
		r.exits.close()
		return nil, err
	}
	if err := r.takeOver(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (c Config) normal() (Config, error) {
	var err error
	if c.Root, err = filepath.Abs(c.Root); err != nil {
		return c, fmt.Errorf("runtime root: %w", err)
	}
	if c.Run, err = filepath.Abs(c.Run); err != nil {
		return c, fmt.Errorf("runtime run: %w", err)
	}
	if c.CgroupParent == "" {
		c.CgroupParent = "/berth"
	}
	c.CgroupParent = filepath.Clean("/" + c.CgroupParent)
	if c.CDI == nil {
		c.CDI = []string{"/etc/cdi", "/run/cdi"}
	}
	if c.Warn == nil {
		c.Warn = func(string, string) {}
	}
	return c, nil
}

// prepare makes the folders. They are 0700: a setuid file in some image must
// not be in reach of the host's users.
func (r *Runtime) prepare() error {
	for _, d := range []string{r.bundles(), r.exitDir(), filepath.Join(r.cfg.Root, "logs")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("prepare the runtime's folders: %w", err)
		}
	}
	return r.markBoot()
}

// markBoot notes which boot the contents of Run belong to. Where Run survived
// a reboot, bundles without a record get one that says so: their pids mean
// other processes now.
func (r *Runtime) markBoot() error {
	mark := filepath.Join(r.cfg.Run, "boot")
	old, err := os.ReadFile(mark)
	if err == nil && string(old) == r.boot {
		return nil
	}
	if err == nil {
		entries, err := os.ReadDir(r.bundles())
		if err != nil {
			return fmt.Errorf("look for containers of an earlier boot: %w", err)
		}
		for _, e := range entries {
			t := &task{id: e.Name(), bundle: r.bundle(e.Name()), rec: record{
				Runtime: r.oci.path, Boot: string(old), LogMaxSize: defaultLogSize, LogMaxFiles: defaultLogFiles,
			}}
			if _, err := os.Stat(inBundle(t.bundle, "record.json")); err == nil || !e.IsDir() {
				continue
			}
			if err := t.saveRecord(); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(mark, []byte(r.boot), 0o600); err != nil {
		return fmt.Errorf("note the boot: %w", err)
	}
	return nil
}

// takeOver loads what earlier agents left. The watch on the exit folder is in
// place already, so that no exit falls between the scan and the watch; an
// exit seen by both is delivered twice at worst.
func (r *Runtime) takeOver() error {
	entries, err := os.ReadDir(r.bundles())
	if err != nil {
		return fmt.Errorf("look for containers: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || checkID(e.Name()) != nil {
			continue
		}
		if t := r.find(e.Name()); t != nil {
			r.settle(t.id)
		}
	}
	return nil
}

// Exits delivers the status of each container that exits, at least once, also
// of those that exited while no agent ran. Closed by Close. A reader may be
// slow: exits queue up and none is lost.
func (r *Runtime) Exits() <-chan Status { return r.exits.out }

// Name is the name and path of the OCI runtime in use.
func (r *Runtime) Name() (name, path string) { return r.oci.name, r.oci.path }

// Close stops watching. Containers are left as they are; the parent of their
// cgroups goes if there are none. Idempotent.
func (r *Runtime) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	err := r.watch.close()
	r.exits.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tasks {
		t.closeHandles()
	}
	clear(r.tasks)
	if r.nest.dir != nil {
		r.nest.dir.Close()
	}
	r.cg.removeEmptyBelow(r.cfg.CgroupParent)
	r.cg.removeEmpty(r.cfg.CgroupParent)
	r.cg.removeEmpty(r.cfg.CgroupParent + "-conmon")
	return err
}
