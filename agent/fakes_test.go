package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"berth/images"
	"berth/overlaynet"
	"berth/runtime"
	"berth/runtime/cdi"
	"berth/secrets"
	"berth/store"
)

// calls remembers, in order, what the agent asked of all fakes, and makes
// calls fail or wait.
type calls struct {
	label func(id string) string // a task's id as people read it

	mu     sync.Mutex
	list   []string
	faults map[string]*fault
	gates  map[string]chan struct{}
	last   string // the newest rules
	// hook, if set, sees every call before it takes effect: an error is its
	// outcome. Calls that are made with records locked have no context.
	hook func(ctx context.Context, verb, target string) error
}

type fault struct {
	err  error
	once bool
}

func newCalls() *calls { return &calls{faults: map[string]*fault{}, gates: map[string]chan struct{}{}} }

// do notes a call, waits if it is held up, and gives the error it is told to.
func (c *calls) do(ctx context.Context, verb, target string) error {
	text := strings.TrimSpace(verb + " " + target)
	if c.hook != nil {
		return c.hook(ctx, verb, target)
	}
	c.mu.Lock()
	c.list = append(c.list, text)
	gate := c.gates[text]
	if gate == nil {
		gate = c.gates[verb]
	}
	c.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range []string{text, verb} {
		if f := c.faults[key]; f != nil {
			if f.once {
				delete(c.faults, key)
			}
			return f.err
		}
	}
	return nil
}

func (c *calls) task(ctx context.Context, verb, id string, more ...string) error {
	return c.do(ctx, verb, strings.Join(append([]string{c.label(id)}, more...), " "))
}

// fail makes every call of a verb, or of "verb target", fail from now on.
func (c *calls) fail(what string, err error) { c.set(what, &fault{err: err}) }

// failOnce makes the next such call fail.
func (c *calls) failOnce(what string, err error) { c.set(what, &fault{err: err, once: true}) }

func (c *calls) heal(what string) { c.set(what, nil) }

func (c *calls) set(what string, f *fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults[what] = f
}

// hold makes calls of a verb, or of "verb target", wait until release.
func (c *calls) hold(what string) (release func()) {
	gate := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gates[what] = gate
	return sync.OnceFunc(func() {
		c.mu.Lock()
		delete(c.gates, what)
		c.mu.Unlock()
		close(gate)
	})
}

// reset forgets the calls so far.
func (c *calls) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = nil
}

// of gives the calls of some verbs, in order; all without verbs.
func (c *calls) of(verbs ...string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, s := range c.list {
		verb, _, _ := strings.Cut(s, " ")
		if len(verbs) == 0 || slices.Contains(verbs, verb) {
			out = append(out, s)
		}
	}
	return out
}

// fakeImages is an image store with a registry behind it.
type fakeImages struct {
	*calls
	mu     sync.Mutex
	local  map[string]images.Image // by reference
	remote map[string]images.Image
}

// image gives the registry an image; the digest follows its content's name.
func (f *fakeImages) image(ref, content string, config v1.Config) images.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	img := images.Image{
		Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content))), References: []string{ref}, Config: config,
	}
	f.remote[ref] = img
	return img
}

func (f *fakeImages) Pull(ctx context.Context, ref string, o images.PullOptions) (images.Image, error) {
	if err := f.do(ctx, "pull", ref); err != nil {
		return images.Image{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if img, ok := f.local[ref]; ok && (o.Policy == "" || o.Policy == images.PullMissing || o.Policy == images.PullNever) {
		return img, nil
	}
	img, ok := f.remote[ref]
	if !ok || o.Policy == images.PullNever {
		return images.Image{}, fmt.Errorf("pull %s: %w", ref, images.ErrNotFound)
	}
	f.local[ref] = img
	if o.Progress != nil {
		o.Progress(images.Progress{Reference: ref, Status: "done"})
	}
	return img, nil
}

func (f *fakeImages) Resolve(ref string) (images.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, img := range f.local {
		if name == ref || img.Digest == ref {
			return img, nil
		}
	}
	return images.Image{}, fmt.Errorf("image %s: %w", ref, images.ErrNotFound)
}

func (f *fakeImages) List() ([]images.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.local)), nil
}

func (f *fakeImages) Mount(ctx context.Context, _ string, m images.Mount) error {
	return f.task(ctx, "mount", filepath.Base(filepath.Dir(m.Target)))
}

func (f *fakeImages) Unmount(target string) error {
	return f.task(context.Background(), "unmount", filepath.Base(filepath.Dir(target)))
}

func (f *fakeImages) Load(ctx context.Context, tar io.Reader, _ func(images.Progress)) ([]images.Image, error) {
	data, err := io.ReadAll(tar)
	if err != nil {
		return nil, err
	}
	if err := f.do(ctx, "load", fmt.Sprint(len(data))); err != nil {
		return nil, err
	}
	return []images.Image{{Digest: "sha256:0", References: []string{"docker.io/library/loaded:1"}}}, nil
}

func (f *fakeImages) Save(ctx context.Context, w io.Writer, refs []string) error {
	if err := f.do(ctx, "save", strings.Join(refs, " ")); err != nil {
		return err
	}
	_, err := io.WriteString(w, "an archive")
	return err
}

func (f *fakeImages) Commit(_ context.Context, _ string, layer func(io.Writer) error, o images.CommitOptions) (images.Image, error) {
	if err := layer(io.Discard); err != nil {
		return images.Image{}, err
	}
	return f.image(o.Reference, o.Reference, o.Config), nil
}

func (f *fakeImages) Tag(ref, digest string) error {
	return f.do(context.Background(), "tag", ref+" "+digest)
}

func (f *fakeImages) Push(ctx context.Context, ref string, o images.PullOptions) (string, error) {
	user := ""
	if o.Auth != nil {
		host, _ := images.RegistryOf(ref)
		user, _, _ = o.Auth(host)
	}
	return "sha256:0", f.do(ctx, "push", strings.TrimSpace(ref+" "+user))
}

func (f *fakeImages) Digest(ctx context.Context, ref string, _ images.PullOptions) (string, error) {
	return "sha256:" + strings.Repeat("1", 64), f.do(ctx, "digest", ref)
}

func (f *fakeImages) Login(ctx context.Context, host, user, _ string) error {
	return f.do(ctx, "login", host+" "+user)
}

func (f *fakeImages) History(ref string) ([]images.Step, error) {
	_, err := f.Resolve(ref)
	return []images.Step{{CreatedBy: "made up"}}, err
}

func (f *fakeImages) Usage() (list []images.Usage, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, img := range f.local {
		list = append(list, images.Usage{Digest: img.Digest, Unique: 1000})
		total += 1000
	}
	return list, total
}

func (f *fakeImages) Remove(ref string, _ bool, pinned map[string]bool) (images.Removed, error) {
	if err := f.do(context.Background(), "remove-image", ref); err != nil {
		return images.Removed{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	img, ok := f.local[ref]
	if !ok {
		return images.Removed{}, images.ErrNotFound
	}
	if pinned[img.Digest] {
		return images.Removed{}, images.ErrInUse
	}
	delete(f.local, ref)
	return images.Removed{Untagged: []string{ref}, Deleted: []string{img.Digest}}, nil
}

func (f *fakeImages) Prune(bool, map[string]bool) (images.Removed, error) {
	return images.Removed{}, f.do(context.Background(), "prune-images", "")
}

// process is a container of fakeContainers.
type process struct {
	c      runtime.Container
	status runtime.Status
	// onSignal decides what a signal does; nil: it ends the process.
	onSignal func(runtime.Signal)
}

// fakeContainers is a runtime in memory. A signal other than 0 ends a process
// with 128+N unless told otherwise.
type fakeContainers struct {
	*calls
	exits chan runtime.Status
	// onStart runs after a container has started, before Start returns.
	onStart func(id string, p *process)
	// exec answers Exec; nil: exit code 0.
	exec func(ctx context.Context, id string, e runtime.Exec) (int, error)
	// attach answers Attach; nil: it returns at once.
	attach func(ctx context.Context, id string, stdin io.Reader, stdout io.Writer) error

	mu      sync.Mutex
	all     map[string]*process
	logs    map[string][]runtime.LogLine
	written chan struct{} // closed when a line is written or a process ends
}

func newFakeContainers(c *calls) *fakeContainers {
	return &fakeContainers{
		calls: c, exits: make(chan runtime.Status, 1024), all: map[string]*process{},
		logs: map[string][]runtime.LogLine{}, written: make(chan struct{}),
	}
}

func (f *fakeContainers) Create(ctx context.Context, c runtime.Container) error {
	if err := f.task(ctx, "create", c.ID); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[c.ID] != nil {
		return runtime.ErrExists
	}
	f.all[c.ID] = &process{c: c, status: runtime.Status{ID: c.ID, State: runtime.StateCreated}}
	return nil
}

func (f *fakeContainers) Start(ctx context.Context, id string) error {
	if err := f.task(ctx, "start", id); err != nil {
		return err
	}
	f.mu.Lock()
	p := f.all[id]
	if p == nil {
		f.mu.Unlock()
		return runtime.ErrNotFound
	}
	p.status.State, p.status.Pid, p.status.StartedAt = runtime.StateRunning, nobodysPid, time.Now()
	f.mu.Unlock()
	if f.onStart != nil {
		f.onStart(id, p)
	}
	return nil
}

// exit ends the process of a container and tells so.
func (f *fakeContainers) exit(id string, code int) { f.end(id, code, false) }

func (f *fakeContainers) end(id string, code int, oom bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.all[id]
	if p == nil || p.status.State == runtime.StateExited {
		return
	}
	p.status.State, p.status.Pid, p.status.ExitCode, p.status.OOMKilled = runtime.StateExited, 0, code, oom
	p.status.FinishedAt = time.Now()
	f.wake()
	f.exits <- p.status
}

// vanish removes a container as if by hand; nobody is told.
func (f *fakeContainers) vanish(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, id)
}

func (f *fakeContainers) wake() {
	close(f.written)
	f.written = make(chan struct{})
}

// write adds a line to a container's log.
func (f *fakeContainers) write(id string, l runtime.LogLine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l.Stream = cmp.Or(l.Stream, "stdout")
	if l.Time.IsZero() {
		l.Time = time.Now()
	}
	f.logs[id] = append(f.logs[id], l)
	f.wake()
}

func (f *fakeContainers) Signal(ctx context.Context, id string, s runtime.Signal) error {
	if err := f.task(ctx, "signal", id, unix.SignalName(s)); err != nil {
		return err
	}
	f.mu.Lock()
	p := f.all[id]
	f.mu.Unlock()
	switch {
	case p == nil:
		return runtime.ErrNotFound
	case p.status.State == runtime.StateExited:
		return runtime.ErrNotRunning
	case p.onSignal != nil && s != unix.SIGKILL:
		p.onSignal(s)
	default:
		f.exit(id, 128+int(s))
	}
	return nil
}

func (f *fakeContainers) Pause(ctx context.Context, id string) error {
	return f.become(ctx, "pause", id, runtime.StatePaused)
}

func (f *fakeContainers) Resume(ctx context.Context, id string) error {
	return f.become(ctx, "resume", id, runtime.StateRunning)
}

func (f *fakeContainers) become(ctx context.Context, verb, id string, s runtime.State) error {
	if err := f.task(ctx, verb, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.all[id]
	if p == nil || p.status.State == runtime.StateExited {
		return runtime.ErrNotRunning
	}
	p.status.State = s
	return nil
}

func (f *fakeContainers) Update(ctx context.Context, id string, r runtime.Resources) error {
	if err := f.task(ctx, "update", id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all[id].c.Resources = r
	return nil
}

func (f *fakeContainers) Delete(ctx context.Context, id string) error {
	if err := f.task(ctx, "delete", id); err != nil {
		return err
	}
	f.vanish(id)
	return nil
}

func (f *fakeContainers) CheckRuntime(name string) error {
	if name == "" || name == "crun" {
		return nil
	}
	return fmt.Errorf("%w: there is no runtime %q", runtime.ErrInvalid, name)
}

func (f *fakeContainers) Devices() *cdi.Registry { return cdi.Read() }

func (f *fakeContainers) RemoveLog(id string) error {
	f.mu.Lock()
	delete(f.logs, id)
	f.mu.Unlock()
	return f.task(context.Background(), "remove-log", id)
}

func (f *fakeContainers) Status(_ context.Context, id string) (runtime.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.all[id]; p != nil {
		return p.status, nil
	}
	return runtime.Status{}, runtime.ErrNotFound
}

func (f *fakeContainers) List(ctx context.Context) ([]runtime.Status, error) {
	if err := f.fault(ctx, "list"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []runtime.Status
	for _, p := range f.all {
		out = append(out, p.status)
	}
	return out, nil
}

func (f *fakeContainers) Exits() <-chan runtime.Status { return f.exits }

func (f *fakeContainers) Exec(ctx context.Context, id string, e runtime.Exec) (int, error) {
	f.mu.Lock()
	exec := f.exec
	f.mu.Unlock()
	if exec == nil {
		return 0, nil
	}
	return exec(ctx, id, e)
}

// answer makes Exec call g from now on.
func (f *fakeContainers) answer(g func(ctx context.Context, id string, e runtime.Exec) (int, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exec = g
}

func (f *fakeContainers) Attach(ctx context.Context, id string, s runtime.Streams) error {
	if s.Attached != nil {
		s.Attached()
	}
	if f.attach == nil {
		return nil
	}
	return f.attach(ctx, id, s.Stdin, s.Stdout)
}

func (f *fakeContainers) Logs(ctx context.Context, id string, o runtime.LogOptions, each func(runtime.LogLine) error) error {
	if err := f.task(ctx, "logs", id); err != nil {
		return err
	}
	for sent := 0; ; {
		f.mu.Lock()
		var lines []runtime.LogLine
		for _, l := range f.logs[id] {
			if l.Time.Before(o.Since) || !o.Until.IsZero() && !l.Time.Before(o.Until) {
				continue
			}
			lines = append(lines, l)
		}
		p, written := f.all[id], f.written
		ended := p == nil || p.status.State == runtime.StateExited
		f.mu.Unlock()
		if sent == 0 && o.Tail >= 0 {
			sent = max(0, len(lines)-o.Tail)
		}
		for _, l := range lines[sent:] {
			if err := each(l); err != nil {
				return err
			}
			sent++
		}
		if !o.Follow || ended {
			return nil
		}
		select {
		case <-written:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeContainers) LogPath(id string) string { return "/logs/" + id }

func (f *fakeContainers) RotateLogs(context.Context) error { return nil }

func (f *fakeContainers) Processes(context.Context, string) ([]runtime.Process, error) {
	return []runtime.Process{{PID: nobodysPid, UID: 7, TTY: firstPTS<<8 | 3, Command: "serve"}}, nil
}

func (f *fakeContainers) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	return runtime.Stats{Time: time.Now(), Memory: 1 << 20, Pids: 3}, f.task(ctx, "stats", id)
}

func (f *fakeContainers) Name() (name, path string) { return "fake", "/usr/bin/fake" }

func (f *fakeContainers) Close() error { return nil }

// fakeNetworks keeps bridges, namespaces and rules in memory. It refuses what
// the real one would.
type fakeNetworks struct {
	*calls
	changed chan struct{}

	mu      sync.Mutex
	names   map[string]string // network id: its name, once known
	bridges map[string]bool
	netns   map[string][]overlaynet.Endpoint
	rules   overlaynet.Rules
	flows   map[netip.Addr]overlaynet.Flow
	syncs   int
}

func newFakeNetworks(c *calls) *fakeNetworks {
	return &fakeNetworks{
		calls: c, changed: make(chan struct{}, 1), names: map[string]string{}, bridges: map[string]bool{},
		netns: map[string][]overlaynet.Endpoint{}, flows: map[netip.Addr]overlaynet.Flow{},
	}
}

func (f *fakeNetworks) Allocate(want overlaynet.Request, used []overlaynet.Network) (overlaynet.Network, error) {
	if err := f.do(context.Background(), "allocate", ""); err != nil {
		return overlaynet.Network{}, err
	}
	n := overlaynet.Network{ID: want.ID, Internal: want.Internal, MTU: want.MTU}
	free := func(p netip.Prefix) bool {
		return !slices.ContainsFunc(used, func(u overlaynet.Network) bool {
			return u.Subnet4.Overlaps(p) || u.Subnet6.IsValid() && u.Subnet6.Overlaps(p)
		})
	}
	for _, p := range want.Subnets {
		if !free(p) {
			return n, fmt.Errorf("%s %w", p, overlaynet.ErrOverlap)
		}
		if p.Addr().Is4() {
			n.Subnet4 = p
		} else {
			n.Subnet6 = p
		}
	}
	for i := byte(0); !n.Subnet4.IsValid(); i++ {
		if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 210, i, 0}), 24); free(p) {
			n.Subnet4 = p
		}
	}
	for i := byte(0); want.IPv6 && !n.Subnet6.IsValid(); i++ {
		if p := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 7: i}), 64); free(p) {
			n.Subnet6 = p
		}
	}
	n.Gateway4 = n.Subnet4.Addr().Next()
	if n.Subnet6.IsValid() {
		n.Gateway6 = n.Subnet6.Addr().Next()
	}
	for _, g := range want.Gateways {
		n.Gateway4 = g
	}
	return n, nil
}

func (f *fakeNetworks) Ensure(ctx context.Context, n overlaynet.Network) error {
	if err := f.do(ctx, "ensure", n.Subnet4.String()); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bridges[n.ID] = true
	return nil
}

func (f *fakeNetworks) Remove(ctx context.Context, n overlaynet.Network) error {
	if err := f.do(ctx, "remove-network", n.Subnet4.String()); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.bridges, n.ID)
	return nil
}

func (f *fakeNetworks) Attach(ctx context.Context, id string, eps []overlaynet.Endpoint) (string, error) {
	if err := f.task(ctx, "attach", id); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range eps {
		if !f.bridges[e.NetworkID] {
			return "", fmt.Errorf("attach %s: no bridge of network %s", id, e.NetworkID)
		}
	}
	f.netns[id] = eps
	return "/run/netns/" + id, nil
}

func (f *fakeNetworks) Detach(ctx context.Context, id string) error {
	if err := f.task(ctx, "detach", id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.netns, id)
	return nil
}

func (f *fakeNetworks) Sync(ctx context.Context, r overlaynet.Rules) error {
	if err := overlaynet.Check(r); err != nil {
		return err
	}
	var text []string
	for _, s := range r.Services {
		var tasks []string
		for _, b := range s.Backends {
			tasks = append(tasks, f.label(b.TaskID))
		}
		text = append(text, strings.Split(s.ID, "/")[1]+"="+strings.Join(tasks, ","))
	}
	line := strings.Join(text, " ")
	f.mu.Lock()
	f.syncs++
	same := f.last == line
	f.last = line
	f.mu.Unlock()
	var err error
	if same {
		err = f.fault(ctx, "sync")
	} else {
		err = f.do(ctx, "sync", line)
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = r
	return nil
}

// fault is do without a note.
func (c *calls) fault(ctx context.Context, verb string) error {
	if c.hook != nil {
		return c.hook(ctx, verb, "")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.faults[verb]; f != nil {
		if f.once {
			delete(c.faults, verb)
		}
		return f.err
	}
	return nil
}

func (f *fakeNetworks) Changed() <-chan struct{} { return f.changed }

func (f *fakeNetworks) Sweep(_ context.Context, networkIDs, taskIDs map[string]bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.bridges, func(id string, _ bool) bool { return !networkIDs[id] })
	maps.DeleteFunc(f.netns, func(id string, _ []overlaynet.Endpoint) bool { return !taskIDs[id] })
	return nil
}

func (f *fakeNetworks) Bridge(id string) string { return "bt-" + id[:4] }

func (f *fakeNetworks) Flows(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]overlaynet.Flow, error) {
	if err := f.fault(ctx, "flows"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[netip.Addr]overlaynet.Flow{}
	for _, a := range addrs {
		out[a] = f.flows[a]
	}
	return out, nil
}

func (f *fakeNetworks) Teardown(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.last = overlaynet.Rules{}, ""
	return nil
}

func (f *fakeNetworks) Close() error { return nil }

// current is the rules in force.
func (f *fakeNetworks) current() overlaynet.Rules {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules
}

// fakeSecrets keeps contents in memory and delivers nothing but a folder.
type fakeSecrets struct {
	*calls
	dir string

	mu        sync.Mutex
	contents  map[string][]byte
	delivered map[string][]secrets.File
	answers   map[string]string // of providers
}

func (f *fakeSecrets) Put(content []byte) (string, error) {
	if err := f.do(context.Background(), "put", ""); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.Digest(content)
	f.contents[d] = slices.Clone(content)
	return d, nil
}

func (f *fakeSecrets) Rekey() error { return nil }

// Decrypt knows files that begin with what they are encrypted for.
func (f *fakeSecrets) Decrypt(_ context.Context, format string, content []byte, limit int) ([]byte, error) {
	plain, ok := strings.CutPrefix(string(content), format+":host:")
	if plain, _, _ = strings.Cut(plain, "#"); !ok || len(plain) > limit {
		return nil, &secrets.SourceError{Problem: "its file is not encrypted to this host", Hint: "encrypt it to this host"}
	}
	return []byte(plain), nil
}

// Ask answers with what answer is told, or fails.
func (f *fakeSecrets) Ask(ctx context.Context, q secrets.Question) ([]byte, error) {
	if err := f.do(ctx, "ask", q.Command); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if answer, ok := f.answers[q.Command]; ok {
		return []byte(answer + strings.Join(q.Args, " ")), nil
	}
	return nil, &secrets.SourceError{Problem: "there is no provider " + q.Command, Hint: "put it there"}
}

func (f *fakeSecrets) Recipients() ([]secrets.Recipient, error) { return nil, nil }

func (f *fakeSecrets) Digest(content []byte) string {
	return fmt.Sprintf("%x", sha256.Sum256(append([]byte("key"), content...)))[:16]
}

func (f *fakeSecrets) Get(digest string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.contents[digest]
	if !ok {
		return nil, os.ErrNotExist
	}
	return c, nil
}

func (f *fakeSecrets) Deliver(id string, files []secrets.File) (string, error) {
	if err := f.task(context.Background(), "deliver", id); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, file := range files {
		if _, ok := f.contents[file.Digest]; !ok && file.Content == nil {
			return "", fmt.Errorf("no content %s", file.Digest)
		}
	}
	f.delivered[id] = files
	return filepath.Join(f.dir, id), nil
}

func (f *fakeSecrets) Withdraw(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.delivered, id)
	return nil
}

func (f *fakeSecrets) Sweep(keepTasks, used map[string]bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.contents, func(d string, _ []byte) bool { return !used[d] })
	maps.DeleteFunc(f.delivered, func(id string, _ []secrets.File) bool { return !keepTasks[id] })
	return nil
}

// errDisk is what a brittle store says.
var errDisk = errors.New("input/output error")

// brittle is a store whose writes can be made to fail.
type brittle struct {
	store.Backend
	*calls
}

func (b *brittle) Update(f func(store.Tx) error) error {
	if err := b.fault(context.Background(), "write"); err != nil {
		return err
	}
	return b.Backend.Update(f)
}

// fakePorts stands for the host's ports.
type fakePorts struct {
	mu    sync.Mutex
	taken map[uint16]string // by others
	held  map[string]bool
}

type heldPort struct {
	f   *fakePorts
	key string
}

func (h heldPort) Close() error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	delete(h.f.held, h.key)
	return nil
}

func (f *fakePorts) reserve(p overlaynet.PublishedPort) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if by, ok := f.taken[p.Port]; ok {
		return nil, fmt.Errorf("port %d/%s is in use by %s: %w", p.Port, p.Protocol, by, overlaynet.ErrPortInUse)
	}
	key := fmt.Sprintf("%d/%s", p.Port, p.Protocol)
	if p.HostIP.IsValid() {
		key = p.HostIP.String() + ":" + key
	}
	f.held[key] = true
	return heldPort{f, key}, nil
}

func (f *fakePorts) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.held))
}

// nobodysPid is above every pid that Linux gives (PID_MAX_LIMIT).
const nobodysPid = 1 << 23
