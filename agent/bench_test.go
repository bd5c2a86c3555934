package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"berth/api"
	"berth/images"
	"berth/overlaynet"
	"berth/secrets"
	"berth/spec"
	"berth/store"
)

// bench is an agent over fakes, at work.
type bench struct {
	*Agent
	t          *testing.T
	calls      *calls
	img        *fakeImages
	containers *fakeContainers
	networks   *fakeNetworks
	secrets    *fakeSecrets
	host       *fakePorts
	backend    store.Backend
	quiet      bool   // the agent's log is thrown away, also with -v
	end        func() // stops the agent as SIGTERM would
}

// simulate runs f with an agent in a bubble of make-believe time: waits cost
// nothing, and nothing happens at the same time by chance.
func simulate(t *testing.T, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.begin()
		defer func() { b.end() }()
		f(b)
	})
}

// newBench assembles an agent that has not begun to work.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := newParts(t)
	for _, ref := range []string{"web:1", "web:2", "db:1", "job:1"} {
		b.img.image(ref, ref, v1.Config{Cmd: []string{"/" + ref}})
	}
	b.assembleIn(t.TempDir())
	return b
}

// newParts are the fakes that an agent can be assembled over.
func newParts(t *testing.T) *bench {
	t.Helper()
	c := newCalls()
	b := &bench{
		t: t, calls: c,
		img:        &fakeImages{calls: c, local: map[string]images.Image{}, remote: map[string]images.Image{}},
		containers: newFakeContainers(c), networks: newFakeNetworks(c),
		secrets: &fakeSecrets{calls: c, dir: "/nonexistent", contents: map[string][]byte{}, delivered: map[string][]secrets.File{}},
		host:    &fakePorts{taken: map[uint16]string{}, held: map[string]bool{}},
		backend: &brittle{store.NewMemory(), c},
		end:     func() {},
	}
	c.label = func(id string) string { return b.label(id) }
	return b
}

// assembleIn makes the agent anew over the same parts, as after its death.
func (b *bench) assembleIn(root string) {
	b.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() && !b.quiet {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	cfg := Config{
		Root: filepath.Join(root, "root"), Run: filepath.Join(root, "run"), Executable: "/nonexistent", Version: "test",
		Log: log, DNS: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")},
	}
	if err := cfg.fill(); err != nil {
		b.t.Fatal(err)
	}
	for _, dir := range []string{cfg.Root, cfg.Run} {
		if err := os.MkdirAll(filepath.Join(dir, "tasks"), 0o700); err != nil {
			b.t.Fatal(err)
		}
	}
	b.Agent = &Agent{
		cfg: cfg, log: cfg.Log, started: time.Now(), db: b.backend, derivedOf: map[string]*derived{},
		lock: flock.New(filepath.Join(cfg.Root, "agent.lock")),
		// Nobody starts a dataplane: one is on its way already.
		dataplaneStarting: true,

		images: b.img, containers: b.containers, networks: b.networks, secrets: b.secrets,
	}
	if err := b.assemble(); err != nil {
		b.t.Fatal(err)
	}
	b.ports.reserve = b.host.reserve
}

// begin recovers and lets the agent work.
func (b *bench) begin() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if err := b.recover(ctx); err != nil {
		b.t.Fatal("recover:", err)
	}
	var wg sync.WaitGroup
	b.work(ctx, &wg)
	b.end = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		b.probes.stopAll()
		if err := b.w.flush(); err != nil {
			b.t.Log("flush at the end:", err)
		}
	})
}

// crash ends the agent and assembles another one over what it left. between
// runs while there is none.
func (b *bench) crash(between func()) {
	b.t.Helper()
	b.end()
	b.ports.releaseAll() // the kernel closes what a dead process held
	root := filepath.Dir(b.cfg.Root)
	if between != nil {
		between()
	}
	b.assembleIn(root)
	b.calls.reset()
	b.begin()
}

// label is SERVICE/SLOT.ATTEMPT; an id that no record has stays as it is.
func (b *bench) label(id string) string {
	if b.Agent == nil || b.w == nil {
		return id
	}
	if t := b.w.task(id); t != nil {
		return fmt.Sprintf("%s/%d.%d", t.Service, t.Slot, t.Attempt)
	}
	return id
}

// id finds a task by its label.
func (b *bench) id(label string) string {
	b.t.Helper()
	for _, t := range b.w.view().tasks {
		if fmt.Sprintf("%s/%d.%d", t.Service, t.Slot, t.Attempt) == label {
			return t.ID
		}
	}
	b.t.Fatalf("no task %s among\n%s", label, b.ps())
	return ""
}

// pass lets time go by and then waits until everybody waits.
func (b *bench) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// ps lists the tasks that are not removed, one a line.
func (b *bench) ps() string {
	var out strings.Builder
	for _, t := range b.w.view().tasks {
		if t.State == store.StateRemoved {
			continue
		}
		fmt.Fprintf(&out, "%s/%d.%d %s", t.Service, t.Slot, t.Attempt, t.State)
		if t.State == store.StateExited {
			fmt.Fprintf(&out, " %d", t.ExitCode)
		}
		if t.Published {
			out.WriteString(" published")
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func (b *bench) expectTasks(want ...string) {
	b.t.Helper()
	if got := strings.TrimSpace(b.ps()); got != strings.Join(want, "\n") {
		b.t.Errorf("tasks:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// expectCalls compares the calls of some verbs with what is wanted.
func (b *bench) expectCalls(verbs string, want ...string) {
	b.t.Helper()
	if got := b.calls.of(strings.Fields(verbs)...); !slices.Equal(got, want) {
		b.t.Errorf("calls of %s:\n  %s\nwant:\n  %s", verbs, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// up applies a stack and follows it until it is settled.
func (b *bench) up(st spec.Stack, change ...func(*api.ApplyRequest)) *api.Applied {
	b.t.Helper()
	applied, done, err := b.tryUp(st, change...)
	if err != nil {
		b.t.Fatalf("up: %v", err)
	}
	if done.Outcome != api.OutcomeDone {
		b.t.Fatalf("up ended %s: %s\n%s", done.Outcome, done.Detail, b.ps())
	}
	return applied
}

func (b *bench) tryUp(st spec.Stack, change ...func(*api.ApplyRequest)) (*api.Applied, *api.Done, error) {
	b.t.Helper()
	req := &api.ApplyRequest{Stack: st, Wait: true, Actor: "alice@tty"}
	for _, f := range change {
		f(req)
	}
	var mu sync.Mutex
	var applied *api.Applied
	done, err := b.applyAndFollow(b.t.Context(), req, func(p api.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Applied != nil {
			applied = p.Applied
		}
	})
	return applied, done, err
}

// mustFail applies a stack that is to be refused with a code.
func (b *bench) mustFail(code string, st spec.Stack, change ...func(*api.ApplyRequest)) *api.Error {
	b.t.Helper()
	_, done, err := b.tryUp(st, change...)
	if err == nil {
		b.t.Fatalf("up succeeded: %+v", done)
	}
	p := problem(err)
	if p.Code != code {
		b.t.Errorf("code %s (%s), want %s", p.Code, p.Detail, code)
	}
	return p
}

// action acts on services and waits for the outcome.
func (b *bench) action(stack string, req api.ActionRequest) {
	b.t.Helper()
	done, err := b.act(b.t.Context(), stack, &req, func(api.Progress) {})
	if err != nil {
		b.t.Fatalf("%s: %v", req.Action, err)
	}
	if done.Outcome != api.OutcomeDone {
		b.t.Fatalf("%s ended %s: %s", req.Action, done.Outcome, done.Detail)
	}
}

func (b *bench) takeDown(stack string, req api.DownRequest) {
	b.t.Helper()
	done, err := b.down(b.t.Context(), stack, &req, func(api.Progress) {})
	if err != nil || done.Outcome != api.OutcomeDone {
		b.t.Fatalf("down: %+v, %v\n%s", done, err, b.ps())
	}
}

// ruleText is the load balancing in force, one line a service and port.
func ruleText(b *bench, r overlaynet.Rules) string {
	var out strings.Builder
	tasks := func(list []overlaynet.Backend) string {
		var names []string
		for _, x := range list {
			names = append(names, b.label(x.TaskID)+"@"+x.Addr4.String())
		}
		return strings.Join(names, " ")
	}
	for _, n := range r.Networks {
		fmt.Fprintf(&out, "network %s internal=%t\n", n.Subnet4, n.Internal)
	}
	for _, s := range r.Services {
		fmt.Fprintf(&out, "service %s %s -> %s\n", s.ID, s.VIP4, tasks(s.Backends))
	}
	for _, p := range r.Ports {
		host := "*"
		if p.HostIP.IsValid() {
			host = p.HostIP.String()
		}
		fmt.Fprintf(&out, "port %s %s:%d/%s to %d -> %s\n", p.ID, host, p.Port, p.Protocol, p.Target, tasks(p.Backends))
	}
	return out.String()
}

// service is a service with one task on the default network.
func service(name, image string, change ...func(*spec.Service)) spec.Service {
	s := spec.Service{Name: name, Image: image, Replicas: 1, Networks: []spec.Attachment{{Network: "default"}}}
	for _, f := range change {
		f(&s)
	}
	return s
}

// stackOf is a stack of services with a default network, and a position for
// every service.
func stackOf(name string, services ...spec.Service) spec.Stack {
	st := spec.Stack{
		Name: name, Dir: "/src/" + name, Files: []string{"/src/" + name + "/compose.yaml"},
		Services:  map[string]spec.Service{},
		Networks:  map[string]spec.Network{"default": {Key: "default", Name: name + "_default"}},
		Positions: map[string]spec.Position{},
	}
	for i, s := range services {
		st.Services[s.Name] = s
		st.Positions["services."+s.Name] = spec.Position{File: st.Files[0], Line: 10 * (i + 1), Col: 3}
		st.Positions["services."+s.Name+".image"] = spec.Position{File: st.Files[0], Line: 10*(i+1) + 1, Col: 5}
	}
	return st
}

func dependsOn(service, condition string) func(*spec.Service) {
	return func(s *spec.Service) {
		s.DependsOn = append(s.DependsOn, spec.Dependency{Service: service, Condition: condition, Required: true})
	}
}

func replicas(n int) func(*spec.Service) { return func(s *spec.Service) { s.Replicas = n } }

func env(k, v string) func(*spec.Service) {
	return func(s *spec.Service) { s.Environment = map[string]string{k: v} }
}

func published(list ...spec.Port) func(*spec.Service) {
	return func(s *spec.Service) { s.Ports = list }
}

func tcp(published, target uint16) spec.Port {
	return spec.Port{Published: published, Target: target, Protocol: "tcp"}
}

func checked(interval time.Duration, retries int) func(*spec.Service) {
	return func(s *spec.Service) {
		s.Healthcheck = &spec.Healthcheck{Test: []string{"CMD", "/check"}, Interval: interval, Retries: retries, Timeout: time.Second}
	}
}
