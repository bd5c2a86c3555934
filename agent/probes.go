package agent

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/api"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

// keptProbes is how many results of a task's test are kept.
const keptProbes = 5

// probeOutput bounds what is kept of one probe's output, in bytes.
const probeOutput = 4096

// probeRead bounds what is read of it: what is cut off was redacted as a whole.
const probeRead = 2 * probeOutput

// test is one of the ways in which a task is asked how it is. Its state is in
// the task's record: "" (it has none), starting, healthy or unhealthy.
type test string

// Tests of a task: healthcheck, x-readiness, x-liveness.
const (
	healthTest    test = "health"
	readinessTest test = "readiness"
	livenessTest  test = "liveness"
)

var tests = []test{healthTest, readinessTest, livenessTest}

// state is where t keeps it.
func (w test) state(t *store.Task) *string {
	switch w {
	case readinessTest:
		return &t.Readiness
	case livenessTest:
		return &t.Liveness
	}
	return &t.Health
}

// probes runs the tests of every running task that has some.
type probes struct {
	a *Agent
	// ask asks a task over the network: once, until ctx ends.
	ask func(ctx context.Context, addr netip.Addr, p *spec.Probe) answer

	mu     sync.Mutex
	cancel map[probeKey]context.CancelFunc
	tracks map[probeKey]*track
	wg     sync.WaitGroup
}

type probeKey struct {
	task  string
	which test
}

// track is what is known from the probes of one test.
type track struct {
	subject string // what is asked: "readiness GET :8080/healthz"
	results []api.ProbeResult
	problem string // of the last probe; "": it passed
	failed  int    // in a row
	since   time.Time
}

func newProbes(a *Agent) *probes {
	return &probes{a: a, ask: askNetwork, cancel: map[probeKey]context.CancelFunc{}, tracks: map[probeKey]*track{}}
}

// sync starts the probes of tasks that run and ends those of others.
func (p *probes) sync(v view) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := map[string]bool{}
	for _, t := range v.tasks {
		known[t.ID] = true
		if t.State == store.StateRunning {
			t = p.adopt(v, t)
		}
		for _, which := range tests {
			key := probeKey{t.ID, which}
			on := t.State == store.StateRunning && *which.state(t) != "" && t.StopAt.IsZero()
			cancel := p.cancel[key]
			switch {
			case on && cancel == nil:
				ctx, stop := context.WithCancel(context.Background())
				p.cancel[key] = stop
				p.a.spawn(&p.wg, func() { p.watch(ctx, t, which) })
			case !on && cancel != nil:
				cancel()
				delete(p.cancel, key)
			}
		}
	}
	for key, cancel := range p.cancel {
		if !known[key.task] {
			cancel()
			delete(p.cancel, key)
		}
	}
	for key := range p.tracks {
		if !known[key.task] {
			delete(p.tracks, key)
		}
	}
}

// adopt gives a running task of the wanted version the tests that its service
// has by now: they are applied in place. One that gets its first test stays in
// the traffic until that fails. A task that is to be replaced keeps its own
// tests: it may not know what the new version is asked.
func (p *probes) adopt(v view, t *store.Task) *store.Task {
	s, r := v.stacks[t.Stack], v.revisions[t.Stack]
	if s == nil || r == nil {
		return t
	}
	svc, ok := r.Stack.Services[t.Service]
	if !ok || sameTests(&t.Spec, &svc) || p.a.derive(v, s, r).keys[t.Service] != t.Key {
		return t
	}
	next := *t
	next.Spec.Healthcheck, next.Spec.Readiness, next.Spec.Liveness = svc.Healthcheck, svc.Readiness, svc.Liveness
	again := false // it has to become ready once more
	for _, which := range tests {
		state := which.state(&next)
		switch {
		case p.a.check(&next, which) == nil:
			*state = ""
		case *state == "":
			*state, again = starting, again || which != livenessTest
		}
	}
	noted := p.a.w.note(t.ID, func(t *store.Task) {
		t.Spec = next.Spec
		if t.State == store.StateRunning {
			t.Health, t.Readiness, t.Liveness = next.Health, next.Readiness, next.Liveness
			if again && !t.Published {
				t.ReadyAt = time.Time{}
			}
		}
	})
	p.a.loop.wake()
	if noted == nil {
		return t
	}
	return noted
}

func sameTests(x, y *spec.Service) bool {
	return reflect.DeepEqual(x.Healthcheck, y.Healthcheck) && reflect.DeepEqual(x.Readiness, y.Readiness) &&
		reflect.DeepEqual(x.Liveness, y.Liveness)
}

// begin gives a task that starts to run the first states of its tests.
func (a *Agent) begin(t *store.Task) {
	for _, which := range tests {
		if a.check(t, which) != nil {
			*which.state(t) = starting
		}
	}
}

func (p *probes) stopAll() {
	p.mu.Lock()
	for key, cancel := range p.cancel {
		cancel()
		delete(p.cancel, key)
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// watch probes one test of t until ctx ends.
func (p *probes) watch(ctx context.Context, t *store.Task, which test) {
	v := verdict{state: *which.state(t), started: t.Started}
	v.passed = v.state == healthy || !t.ReadyAt.IsZero()
	var delay time.Duration // the first probe at once: many are ready by then
	if c := p.a.check(t, which); t.Published {
		v.started = time.Now() // it has run long; its test is new
	} else if c != nil {
		delay = max(0, time.Until(t.Started.Add(c.delay)))
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if t = p.a.w.task(t.ID); t == nil {
			return
		}
		c := p.a.check(t, which)
		if c == nil {
			return // taken away; sync ends this
		}
		ans, r := p.probe(ctx, t, c)
		if ctx.Err() != nil {
			return
		}
		news := p.keep(probeKey{t.ID, which}, c, ans, r)
		before := v.state
		v.add(ans.ok(), time.Now(), c)
		if v.state != before {
			p.a.w.note(t.ID, func(t *store.Task) {
				// Said before anybody sees it, and starts what waited for it.
				p.a.events.task(t, string(which)+"_status: "+v.state, "")
				if *which.state(t) != "" {
					*which.state(t) = v.state
				}
			})
		}
		if v.state != before || news {
			p.a.loop.wake()
		}
		if t = p.a.w.task(t.ID); t == nil {
			return
		}
		timer.Reset(v.next(c, fresh(t)))
	}
}

// answer of one probe.
type answer struct {
	// problem follows what was asked: " answers 503", ": connection refused".
	// "": it passed.
	problem string
	output  string
}

func (a answer) ok() bool { return a.problem == "" }

// probe runs the test once. One that takes too long is ended and has failed.
func (p *probes) probe(ctx context.Context, t *store.Task, c *check) (answer, api.ProbeResult) {
	r := api.ProbeResult{Start: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var ans answer
	if c.args != nil {
		ans, r.ExitCode = p.exec(ctx, t, c)
	} else {
		addr, err := p.a.probeAddr(t)
		if err != nil {
			ans.problem = ": " + err.Error()
		} else {
			ans = p.ask(ctx, addr, c.probe)
		}
		if !ans.ok() {
			r.ExitCode = 1
		}
	}
	if ctx.Err() != nil && (c.args != nil || !ans.ok()) {
		text := fmt.Sprintf("no answer within %s", c.timeout)
		ans, r.ExitCode = answer{": " + text, text}, -1
	}
	ans = answer{p.a.cfg.Redact.Text(ans.problem), p.shown(ans.output)}
	r.Test, r.Duration, r.Output = string(c.which), time.Since(r.Start), ans.output
	return ans, r
}

// shown is what is kept of an output.
func (p *probes) shown(text string) string {
	text = p.a.cfg.Redact.Text(text)
	return text[:min(len(text), probeOutput)]
}

// exec runs a test in the container.
func (p *probes) exec(ctx context.Context, t *store.Task, c *check) (answer, int) {
	out := &limited{max: probeRead}
	code, err := p.a.containers.Exec(ctx, t.ID, runtime.Exec{Args: c.args, Stdout: out, Stderr: out})
	if err != nil {
		return answer{": " + err.Error(), err.Error()}, -1
	}
	ans := answer{output: p.a.cfg.Redact.Text(out.String())}
	if code != 0 {
		ans.problem = fmt.Sprintf(" exits %d", code)
		if text, _, _ := strings.Cut(strings.TrimSpace(ans.output), "\n"); text != "" {
			ans.problem += fmt.Sprintf(": %q", text)
		}
	}
	return ans, code
}

// keep remembers a result. news says that it tells something else than the one
// before.
func (p *probes) keep(key probeKey, c *check, ans answer, r api.ProbeResult) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.tracks[key]
	if k == nil {
		k = &track{}
		p.tracks[key], news = k, true
	}
	news = news || k.problem != ans.problem || k.subject != c.subject
	list := slices.Concat(k.results, []api.ProbeResult{r})
	k.results = list[max(0, len(list)-keptProbes):]
	k.subject, k.problem = c.subject, ans.problem
	switch {
	case ans.ok():
		k.failed = 0
	case k.failed == 0:
		k.failed, k.since = 1, r.Start
	default:
		k.failed++
	}
	return news
}

// of gives the last results of a test.
func (p *probes) of(id string, which test) []api.ProbeResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.tracks[probeKey{id, which}]; k != nil {
		return slices.Clone(k.results)
	}
	return nil
}

// all gives the last results of each test, for inspect.
func (p *probes) all(id string) []api.ProbeResult {
	var out []api.ProbeResult
	for _, which := range tests {
		out = append(out, p.of(id, which)...)
	}
	return out
}

// times is how often something happened, for a sentence.
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// streak says how often in a row a test has failed, and since when.
func (p *probes) streak(id string, which test) (failed int, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.tracks[probeKey{id, which}]; k != nil {
		return k.failed, k.since
	}
	return 0, time.Time{}
}

// reason says in one line what a test of t says. It stays the same while
// nothing changes: how often it failed is told by streak.
func (p *probes) reason(t *store.Task, which test) string {
	c := p.a.check(t, which)
	if c == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.tracks[probeKey{t.ID, which}]
	switch {
	case k == nil:
		return c.subject + " has not answered yet"
	case k.problem == "":
		return k.subject + " passed"
	}
	return k.subject + k.problem
}

// limited keeps the first max bytes and swallows the rest.
type limited struct {
	mu  sync.Mutex
	buf []byte
	max int
}

func (l *limited) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, b[:min(len(b), l.max-len(l.buf))]...)
	return len(b), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}
