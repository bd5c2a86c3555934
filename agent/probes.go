package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/api"
	"berth/runtime"
	"berth/store"
)

// keptProbes is how many results of a task's health test are kept.
const keptProbes = 5

// probeOutput bounds what is kept of one probe's output, in bytes.
const probeOutput = 4096

// probes runs the health test of every running task that has one.
type probes struct {
	a       *Agent
	mu      sync.Mutex
	cancel  map[string]context.CancelFunc
	asked   map[string]uint64 // task without a test: the revision that has none
	results map[string][]api.ProbeResult
	wg      sync.WaitGroup
}

func newProbes(a *Agent) *probes {
	return &probes{a: a, cancel: map[string]context.CancelFunc{}, asked: map[string]uint64{}, results: map[string][]api.ProbeResult{}}
}

// sync starts the probes of tasks that run and ends those of others.
func (p *probes) sync(v view) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := map[string]bool{}
	for _, t := range v.tasks {
		known[t.ID] = true
		if t.State == store.StateRunning && t.Health == "" {
			p.adopt(v, t)
			continue
		}
		on := t.State == store.StateRunning && t.Health != "" && t.StopAt.IsZero()
		cancel := p.cancel[t.ID]
		switch {
		case on && cancel == nil:
			ctx, stop := context.WithCancel(context.Background())
			p.cancel[t.ID] = stop
			p.wg.Go(func() { p.watch(ctx, t) })
		case !on && cancel != nil:
			cancel()
			delete(p.cancel, t.ID)
		}
	}
	for id, cancel := range p.cancel {
		if !known[id] {
			cancel()
			delete(p.cancel, id)
		}
	}
	for id := range p.asked {
		if !known[id] {
			delete(p.asked, id)
		}
	}
	for id := range p.results {
		if !known[id] {
			delete(p.results, id)
		}
	}
}

// adopt begins to test a running task whose service got its first test: the
// field is applied in place. It stays in the traffic until the test fails.
func (p *probes) adopt(v view, t *store.Task) {
	r := v.revisions[t.Stack]
	if r == nil || p.asked[t.ID] == r.Number {
		return
	}
	p.asked[t.ID] = r.Number
	if cancel := p.cancel[t.ID]; cancel != nil { // its test was taken away
		cancel()
		delete(p.cancel, t.ID)
	}
	if t.Revision == r.Number || p.a.healthcheck(t) == nil {
		return
	}
	p.a.w.note(t.ID, func(t *store.Task) {
		if t.State == store.StateRunning && t.Health == "" {
			t.Health = starting
		}
	})
	p.a.loop.wake()
}

func (p *probes) stopAll() {
	p.mu.Lock()
	for id, cancel := range p.cancel {
		cancel()
		delete(p.cancel, id)
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *probes) watch(ctx context.Context, t *store.Task) {
	v := verdict{state: t.Health, started: t.Started}
	if t.Published {
		v.started = time.Now() // it has run long; its test is new
	}
	timer := time.NewTimer(0) // the first probe at once: many are ready by then
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		c := p.a.healthcheck(t)
		if c == nil { // the newest revision has no test
			p.a.w.note(t.ID, func(t *store.Task) { t.Health = "" })
			p.a.loop.wake()
			return
		}
		r := p.probe(ctx, t, c)
		if ctx.Err() != nil {
			return
		}
		p.keep(t.ID, r)
		before := v.state
		v.add(r.ExitCode == 0, time.Now(), c)
		if v.state != before {
			p.a.w.note(t.ID, func(t *store.Task) { t.Health = v.state })
			p.a.events.task(t, "health_status: "+v.state, "")
		}
		if v.state != before || v.state == starting {
			p.a.loop.wake()
		}
		timer.Reset(v.next(c))
	}
}

// probe runs the test once. A test that takes too long is killed and failed.
func (p *probes) probe(ctx context.Context, t *store.Task, c *check) api.ProbeResult {
	out := &limited{max: probeOutput}
	r := api.ProbeResult{Start: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	code, err := p.a.containers.Exec(ctx, t.ID, runtime.Exec{Args: c.args, Stdout: out, Stderr: out})
	r.Duration, r.ExitCode, r.Output = time.Since(r.Start), code, out.String()
	switch {
	case ctx.Err() != nil:
		r.ExitCode, r.Output = -1, fmt.Sprintf("no answer within %s", c.timeout)
	case err != nil:
		r.ExitCode, r.Output = -1, err.Error()
	}
	return r
}

func (p *probes) keep(id string, r api.ProbeResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.Concat(p.results[id], []api.ProbeResult{r})
	p.results[id] = list[max(0, len(list)-keptProbes):]
}

func (p *probes) of(id string) []api.ProbeResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.results[id])
}

// reason says in one line why a task is not ready.
func (p *probes) reason(id string) string {
	list := p.of(id)
	if len(list) == 0 {
		return "its health test has not answered yet"
	}
	last := list[len(list)-1]
	text := strings.TrimSpace(last.Output)
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	switch {
	case last.ExitCode == 0:
		return "its health test passed"
	case text == "":
		return fmt.Sprintf("its health test exits %d", last.ExitCode)
	case last.ExitCode < 0:
		return "its health test: " + text
	}
	return fmt.Sprintf("its health test exits %d: %q", last.ExitCode, text)
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
