package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"berth/build"
	"berth/images"
	"berth/overlaynet"
	"berth/runtime"
	"berth/runtime/volume"
	"berth/secrets"
	"berth/spec"
	"berth/store"
)

// Agent runs the stacks of one machine.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	lock    *flock.Flock
	db      store.Backend
	w       *world
	node    *spec.Node
	meminfo string // path
	cpus    int
	started time.Time

	images     Images
	containers Containers
	networks   Networks
	secrets    Secrets
	volumes    *volume.Store
	builders   *build.Builders

	loop    *loop
	traffic *traffic
	probes  *probes
	flows   *flows
	listens *listeners
	events  *events
	holds   *holds
	hooks   *hooks
	ships   *shippers
	jobs    *jobs
	oneOffs *oneOffs
	ensured ensured
	ports   *ports
	applies *applies

	seeding           sync.Map     // *sync.Mutex by volume
	contents          sync.RWMutex // held for reading from Put to commit
	syncing           sync.Mutex   // one reads or changes synced files
	dataplaneMu       sync.Mutex
	dataplaneStarting bool // by this agent, and not ended

	deriveMu  sync.Mutex
	derivedOf map[string]*derived
}

// lockPatience is how long a new agent waits for the lock of another one.
const lockPatience = 2 * time.Second

// New opens everything an agent needs. It fails when another agent has the
// same root, or when no OCI runtime works here.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	for dir, mode := range map[string]os.FileMode{
		cfg.Root: 0o711, cfg.Run: 0o711,
		// Root file systems hold setuid programs: no local user may get there.
		filepath.Join(cfg.Root, "tasks"): 0o700, filepath.Join(cfg.Run, "tasks"): 0o700,
	} {
		// The folder may be there, and the umask may be what it likes.
		if err := errors.Join(os.MkdirAll(dir, mode), os.Chmod(dir, mode)); err != nil {
			return nil, fmt.Errorf("make the agent's folders: %w", err)
		}
	}
	a := &Agent{
		cfg: cfg, log: cfg.Log, started: time.Now(),
		lock: flock.New(filepath.Join(cfg.Root, "agent.lock")), derivedOf: map[string]*derived{},
	}
	// One that was killed may not be gone to the last thread yet.
	patient, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	locked, err := a.lock.TryLockContext(patient, lockPatience/40)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("lock %s: %w", cfg.Root, err)
	}
	if !locked {
		pid, _ := os.ReadFile(filepath.Join(cfg.Root, "agent.pid"))
		return nil, fmt.Errorf("another agent (pid %s) has %s", string(pid), cfg.Root)
	}
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// open opens the parts and assembles the agent over them.
func (a *Agent) open(ctx context.Context) error {
	pid := strconv.Itoa(os.Getpid())
	if err := os.WriteFile(filepath.Join(a.cfg.Root, "agent.pid"), []byte(pid), 0o644); err != nil {
		return fmt.Errorf("write the pid file: %w", err)
	}
	db, err := store.Open(filepath.Join(a.cfg.Root, "state.db"))
	if err != nil {
		return err
	}
	a.db = db
	if a.images, err = images.Open(ctx, images.Config{Root: filepath.Join(a.cfg.Root, "images"), Registries: a.cfg.Registries}); err != nil {
		return fmt.Errorf("open the image store: %w", err)
	}
	kept, err := secrets.Open(secrets.Config{
		Root: filepath.Join(a.cfg.Root, "secrets"), Run: filepath.Join(a.cfg.Run, "secrets"), Identity: a.cfg.Identity,
		Decrypt: a.cfg.Decrypt, Providers: a.cfg.Providers,
	})
	if err != nil {
		return fmt.Errorf("open the secrets: %w", err)
	}
	a.secrets = kept
	if err := kept.Unfinished(); err != nil {
		a.log.Error("`berth secret rekey` was cut off and can't be ended; until it is, both identities are kept", "err", a.nameDamaged(err))
	}
	net, err := overlaynet.Open(overlaynet.Config{
		Root: filepath.Join(a.cfg.Root, "networks"), Run: a.cfg.Run,
		Prefix: a.cfg.Prefix, Pools: a.cfg.Pools,
	})
	if err != nil {
		return fmt.Errorf("open the networks: %w", err)
	}
	a.networks = net
	ctrs, err := runtime.Open(ctx, a.runtimeConfig())
	if err != nil {
		return fmt.Errorf("find a container runtime: %w", err)
	}
	a.containers = ctrs
	if err := a.openBuilders(); err != nil {
		return err
	}
	return a.assemble()
}

// assemble reads the records and makes what works on the opened parts.
func (a *Agent) assemble() error {
	var err error
	if a.node, err = nodeIdentity(&a.cfg); err != nil {
		return err
	}
	a.meminfo, a.cpus = "/proc/meminfo", goruntime.NumCPU()
	if a.w, err = openWorld(a.db); err != nil {
		return err
	}
	a.w.redact = a.cfg.Redact
	if err := a.learnStored(); err != nil {
		return fmt.Errorf("read the secrets: %w", err)
	}
	if a.volumes, err = volume.Open(filepath.Join(a.cfg.Root, "volumes")); err != nil {
		return fmt.Errorf("open the volumes: %w", err)
	}
	a.events = newEvents()
	a.ports = newPorts()
	a.applies = newApplies()
	a.flows = newFlows(a)
	a.holds = newHolds(a)
	a.hooks = newHooks(a)
	a.ships = newShippers(a)
	a.jobs = newJobs(a)
	a.oneOffs = newOneOffs(a)
	a.listens = newListeners(a)
	a.probes = newProbes(a)
	a.traffic = newTraffic(a)
	a.loop = newLoop(a)
	return nil
}

func (a *Agent) runtimeConfig() runtime.Config {
	return runtime.Config{
		Root: a.cfg.Root, Run: a.cfg.Run, CgroupParent: a.cfg.CgroupParent,
		Runtime: a.cfg.Runtime, Runtimes: a.cfg.Runtimes, CDI: a.cfg.CDI, Conmon: a.cfg.Conmon, Init: a.cfg.Executable,
		Warn: func(id, text string) {
			a.log.Warn("a container is not quite as asked", "task", id, "what", text)
			a.events.task(a.w.task(id), "warning", text)
		},
	}
}

// Run recovers what a dead agent or a reboot left, serves the API, and keeps
// the stacks until ctx ends. Containers and the dataplane go on without it.
// ready is called once, when the API listens.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	listener, err := a.listen()
	if err != nil {
		return err
	}
	if err := a.recover(ctx); err != nil {
		return errors.Join(err, listener.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	a.work(ctx, &wg)
	server := a.server()
	wg.Go(func() {
		<-ctx.Done()
		stop, end := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer end()
		if server.Shutdown(stop) != nil {
			server.Close() // streams that follow something never end by themselves
		}
	})
	if ready != nil {
		ready()
	}
	err = server.Serve(listener)
	cancel()
	wg.Wait()
	a.probes.stopAll()
	if err := a.w.flush(); err != nil {
		a.log.Error("flush at the end", "err", err)
	}
	if errors.Is(err, errServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the API: %w", err)
}

// work starts everything that the agent does by itself.
func (a *Agent) work(ctx context.Context, wg *sync.WaitGroup) {
	for _, f := range []func(context.Context){
		a.loop.run, a.traffic.run, a.watchExits, a.watchNetwork, a.watchLogs, a.watchFlush, a.watchReality, a.watchDataplane,
	} {
		a.spawn(wg, func() { f(ctx) })
	}
}

// Close frees what New opened. Containers go on.
func (a *Agent) Close() error {
	var errs []error
	if a.builders != nil {
		errs = append(errs, a.builders.Close())
	}
	if a.containers != nil {
		errs = append(errs, a.containers.Close())
	}
	if a.networks != nil {
		errs = append(errs, a.networks.Close())
	}
	if a.ports != nil {
		a.ports.releaseAll()
	}
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	errs = append(errs, a.lock.Unlock())
	return errors.Join(errs...)
}
