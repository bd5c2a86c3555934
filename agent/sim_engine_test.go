package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"berth/overlaynet"
	"berth/runtime"
	"berth/store"
)

// errCrashed is what an agent that is dead gets to hear.
var errCrashed = errors.New("the agent has crashed")

// fate of one call.
type fate int

const (
	works fate = iota
	fails
	crashesBefore // it takes no effect
	crashesAfter  // it takes effect, and nobody hears of it
)

// instant are calls that are made with records locked: they take no time.
var instant = map[string]bool{"write": true, "allocate": true}

// rare are calls that are made again and again by the clock: their faults are
// rarer, or they would be the only ones, and they are no steps.
var rare = map[string]bool{"write": true, "flows": true, "list": true}

// call is every call of the engine: it takes its time, and may fail, or be the
// last of this agent.
func (s *sim) call(ctx context.Context, verb, target string) error {
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return errCrashed
	}
	what := strings.TrimSpace(verb + " " + target)
	key := what
	if rare[verb] || verb == "sync" { // how often these are made is a matter of chance
		key = fmt.Sprint(verb, time.Since(s.begun))
		delete(s.draws, key)
	}
	r := s.draw(key)
	f := s.fate(r, verb)
	d := s.delay(r)
	down := s.down
	if !rare[verb] && what != "sync" {
		s.figures.Steps++
	}
	s.mu.Unlock()
	if !instant[verb] {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-down:
			return errCrashed
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errCrashed
	}
	switch f {
	case fails:
		s.figures.Faults++
		s.noteLocked("%s FAILS", what)
		s.checks.faulted()
		return errDisk
	case crashesBefore:
		s.crashLocked("before " + what)
		return errCrashed
	}
	if !rare[verb] && what != "sync" { // rules that do not change are no event
		s.noteLocked("%s", what)
	}
	if verb == "start" {
		if s.kind(s.ids[target]) == "nostart" {
			return &runtime.StartError{Reason: runtime.ReasonNotFound, Command: "/nosuch"}
		}
	}
	s.checks.called(s, verb, target)
	if f == crashesAfter {
		s.crashLocked("after " + what)
	}
	return nil
}

func (s *sim) fate(r *rand.Rand, verb string) fate {
	n := r.IntN(10000)
	if rare[verb] {
		n *= 4
	}
	switch {
	case s.calm:
	case s.rising && verb == "ensure" && n >= 60 && n < 400:
		// A bridge that can't be looked at takes its network's traffic away.
	case n < 30:
		return crashesBefore
	case n < 60:
		return crashesAfter
	case n < 400:
		return fails
	}
	return works
}

// delay is never the same twice: no two calls end at one instant.
func (s *sim) delay(r *rand.Rand) time.Duration {
	d := time.Duration(r.IntN(3e6))
	switch n := r.IntN(1000); {
	case s.calm:
	case n < 3:
		d += time.Duration(r.IntN(20e9)) // it hangs
	case n < 60:
		d += time.Duration(r.IntN(400e6))
	}
	return d
}

// name is the label of a task, for as long as the simulation lasts.
func (s *sim) name(id string) string {
	s.mu.Lock()
	known := s.labels[id]
	s.mu.Unlock()
	if known != "" {
		return known
	}
	label := s.label(id)
	if label == id {
		return id
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ids[label] != "" && s.ids[label] != id { // of an earlier stack of this name
		label += "'"
	}
	s.labels[id], s.ids[label] = label, id
	return label
}

// program is what runs in one container.
type program struct {
	id, label string
	kind      string // good, crash, late, never, sick, nostart, job
	service   string
	started   time.Time
	sickAt    time.Time // its health test fails from then on
	lastFail  time.Time // its health test
	gone      time.Time // it ended, or its container was taken away
	led       time.Time // connections were led to it the last time
	signalled bool      // a stop signal was sent
}

// registry has an image for every kind of program.
func (s *sim) registry() {
	for _, ref := range simImages {
		s.img.image(ref, ref, v1.Config{Cmd: []string{"/" + ref}})
	}
}

var simImages = []string{
	"web:1", "web:2", "web:3", "web:crash", "web:late", "web:never", "web:sick", "web:nostart",
	"db:1", "db:2", "db:crash", "db:never", "job:1", "job:2", "job:bad",
}

// kindOf is what the program of an image does.
func kindOf(arg string) string {
	_, tag, _ := strings.Cut(arg, ":")
	switch {
	case strings.HasPrefix(arg, "/job"):
		return map[bool]string{true: "badjob", false: "job"}[tag == "bad"]
	case tag == "1" || tag == "2" || tag == "3":
		return "good"
	}
	return tag
}

// kind of the program in a container.
func (s *sim) kind(id string) string {
	s.containers.mu.Lock()
	defer s.containers.mu.Unlock()
	if p := s.containers.all[id]; p != nil {
		return kindOf(p.c.Args[0])
	}
	return ""
}

// started lets a program run.
func (s *sim) started(id string, p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	label := s.labels[id]
	r := s.draw("program " + label)
	g := &program{id: id, label: label, kind: kindOf(p.c.Args[0]), service: p.c.Labels["com.docker.compose.service"], started: time.Now()}
	s.programs[id] = g
	s.checks.started(s, id)
	ms := func(n int) time.Duration { return time.Duration(r.IntN(n * 1e6)) }
	switch g.kind {
	case "crash":
		s.exitAfter(id, ms(150), 1)
	case "late":
		s.exitAfter(id, 200*time.Millisecond+ms(4000), 1)
	case "job":
		s.exitAfter(id, ms(1500), 0)
	case "badjob":
		s.exitAfter(id, ms(1500), 3)
	case "sick":
		g.sickAt = g.started.Add(time.Second + ms(5000))
	case "good":
		if !s.calm && r.IntN(15) == 0 { // even the best
			d, code := ms(40000), r.IntN(3)
			time.AfterFunc(d, func() {
				s.mu.Lock()
				calm := s.calm
				s.mu.Unlock()
				if !calm {
					s.exit(id, code)
				}
			})
		}
	}
	switch r.IntN(12) {
	case 0:
		p.onSignal = func(runtime.Signal) {} // ignores all but SIGKILL
	case 1, 2, 3:
		d := ms(1500)
		p.onSignal = func(sig runtime.Signal) { s.exitAfter(id, d, 128+int(sig)) }
	default:
		d := ms(30)
		p.onSignal = func(sig runtime.Signal) { s.exitAfter(id, d, 128+int(sig)) }
	}
	s.connect(id, r)
}

// connect gives a task connections that end some time after it was withdrawn.
func (s *sim) connect(id string, r *rand.Rand) {
	n := r.IntN(4)
	if n == 0 {
		return
	}
	s.networks.mu.Lock()
	defer s.networks.mu.Unlock()
	for _, e := range s.networks.netns[id] {
		s.networks.flows[e.Addr4] = overlaynet.Flow{Count: n}
	}
}

func (s *sim) exitAfter(id string, d time.Duration, code int) {
	time.AfterFunc(d, func() { s.exit(id, code) })
}

// exit is a program that ends.
func (s *sim) exit(id string, code int) {
	if !s.running(id) {
		return
	}
	s.mu.Lock()
	g := s.programs[id]
	g.gone = time.Now()
	if !g.signalled {
		s.checks.disturbed()
	}
	s.figures.Steps++
	s.noteLocked("exit %s %d", s.labels[id], code)
	s.mu.Unlock()
	s.containers.exit(id, code)
}

// probe answers the health tests.
func (s *sim) probe(ctx context.Context, id string, _ runtime.Exec) (int, error) {
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return 0, errCrashed
	}
	r := s.draw("probe " + s.labels[id])
	d, down := s.delay(r), s.down
	s.mu.Unlock()
	select {
	case <-time.After(d):
	case <-ctx.Done():
	case <-down:
		return 0, errCrashed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.programs[id]
	if g == nil {
		return 0, runtime.ErrNotFound
	}
	ok := time.Since(g.started) > 300*time.Millisecond && g.kind != "never" && (g.sickAt.IsZero() || time.Now().Before(g.sickAt))
	if !s.calm && r.IntN(40) == 0 {
		ok = false
	}
	if !ok || ctx.Err() != nil {
		g.lastFail = time.Now()
		s.checks.disturbed()
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if !ok {
		return 1, nil
	}
	return 0, nil
}

// able says that a task would answer requests. fit says the same of one whose
// health test gave nobody a reason to think otherwise.
func (s *sim) able(id string) bool {
	g := s.programs[id]
	return g != nil && s.running(id) && g.kind != "never" && (g.sickAt.IsZero() || time.Now().Before(g.sickAt))
}

func (s *sim) fit(id string) bool {
	g := s.programs[id]
	return s.able(id) && (g.lastFail.IsZero() || time.Since(g.lastFail) > 30*time.Second)
}

// running says that the process of a task is there.
func (s *sim) running(id string) bool {
	s.containers.mu.Lock()
	defer s.containers.mu.Unlock()
	p := s.containers.all[id]
	return p != nil && p.status.State == runtime.StateRunning
}

// reopen is the runtime that another agent opens: it delivers again every exit
// of a container that is still there.
func (f *fakeContainers) reopen() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exits = make(chan runtime.Status, 1024)
	var list []runtime.Status
	for _, p := range f.all {
		if p.status.State == runtime.StateExited {
			list = append(list, p.status)
		}
	}
	slices.SortFunc(list, func(a, b runtime.Status) int { return a.FinishedAt.Compare(b.FinishedAt) })
	for _, st := range list {
		f.exits <- st
	}
}

// simStore looks at what becomes durable.
type simStore struct {
	store.Backend
	s    *sim
	last []byte
}

func (b *simStore) Update(f func(store.Tx) error) error {
	if err := b.Backend.Update(f); err != nil {
		return err
	}
	return b.View(func(tx store.Tx) error {
		raw := tx.Get(store.Stacks, "shop")
		if bytes.Equal(raw, b.last) {
			return nil
		}
		b.last = bytes.Clone(raw)
		b.s.mu.Lock()
		defer b.s.mu.Unlock()
		if raw == nil {
			b.s.checks.wanted(b.s, nil, nil)
			return nil
		}
		st, err := store.Get[store.Stack](tx, store.Stacks, "shop")
		if err != nil {
			return err
		}
		r, err := store.Get[store.Revision](tx, store.Revisions, store.RevisionKey("shop", st.Revision))
		if err != nil {
			return err
		}
		b.s.checks.wanted(b.s, &st, &r)
		return nil
	})
}

// simNetworks looks at the rules as they come into force.
type simNetworks struct {
	*fakeNetworks
	s *sim
}

func (n *simNetworks) Sync(ctx context.Context, r overlaynet.Rules) error {
	before := n.current()
	if err := n.fakeNetworks.Sync(ctx, r); err != nil {
		return err
	}
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.s.checks.ruled(n.s, before, r)
	n.s.hangUp(before, r)
	return nil
}

func (n *simNetworks) Teardown(ctx context.Context) error {
	if err := n.s.call(ctx, "teardown", ""); err != nil {
		return err
	}
	return n.fakeNetworks.Teardown(ctx)
}

// hangUp lets the connections of withdrawn tasks end, each in its time.
func (s *sim) hangUp(before, after overlaynet.Rules) {
	led := backendsOf(after)
	for id, addr := range backendsOf(before) {
		if _, still := led[id]; still {
			continue
		}
		d := time.Duration(s.draw("hang up " + s.labels[id]).IntN(3e9))
		time.AfterFunc(d, func() {
			s.networks.mu.Lock()
			defer s.networks.mu.Unlock()
			delete(s.networks.flows, addr)
		})
	}
}

// backendsOf are all tasks that connections are led to, with their addresses.
func backendsOf(r overlaynet.Rules) map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for _, svc := range r.Services {
		for _, b := range svc.Backends {
			out[b.TaskID] = b.Addr4
		}
	}
	for _, p := range r.Ports {
		for _, b := range p.Backends {
			out[b.TaskID] = b.Addr4
		}
	}
	return out
}

// isStop says that a signal is not one that the agent only passes on.
func isStop(signal string) bool {
	return signal == unix.SignalName(unix.SIGTERM) || signal == unix.SignalName(unix.SIGKILL)
}

func (g *program) String() string { return fmt.Sprintf("%s (%s)", g.label, g.kind) }
