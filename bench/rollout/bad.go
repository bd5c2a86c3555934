package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"berth/testbed/load"
)

// badCase is a way in which a new version can be bad.
type badCase struct {
	name string
	bad  string // BAD of its environment
	// spoil makes the version bad in another way; migration is the job that
	// every service waits for.
	spoil func(version, migration *service)
	// lines are the service's when nothing is default.
	lines []string
	// defaults: with one replica nothing but the defaults is set.
	defaults bool
	code     int // of berth up
}

const badMonitor = "8s"

const (
	rolledBack = 4
	refused    = 1
)

// hasty makes a task unhealthy 2 s after it begins to fail, and is used where
// the default would only be slow. What fails 5 s after its start has to be seen
// within the monitor: after that it has been good.
const hasty = `healthcheck: {test: ["CMD", "/app", "-check"], interval: 500ms, timeout: 2s, retries: 3}`

var badCases = []badCase{
	{name: "crash at once", bad: "crash-now", lines: []string{healthcheck}, code: rolledBack},
	{name: "crash after 5 s", bad: "crash-5s", lines: []string{healthcheck}, defaults: true, code: rolledBack},
	{name: "never ready", bad: "never-ready", lines: []string{hasty, "x-progress-deadline: 8s"}, code: rolledBack},
	{name: "unhealthy later", bad: "unhealthy-later", lines: []string{hasty}, defaults: true, code: rolledBack},
	{name: "image missing", spoil: func(v, _ *service) { v.image = "berth-testbed/nowhere" }, lines: []string{healthcheck}, code: refused},
	{name: "wrong command", spoil: func(v, _ *service) { v.lines = append(v.lines, `entrypoint: ["/nowhere"]`) }, lines: []string{healthcheck}, code: rolledBack},
	{name: "out of memory", bad: "oom", lines: []string{healthcheck}, code: rolledBack},
	{name: "migration fails", spoil: func(_, m *service) { m.lines = []string{`command: ["-job", "1"]`} }, lines: []string{healthcheck}, code: rolledBack},
}

var badClients = load.Clients{Requests: 200, Kept: 20, Streams: 10, Session: rolloutSession, Datagrams: 4}

// crew is the stack of a case, as it is when all is well: a service of one
// task, one of three, the job that both wait for, and a container from which
// they are called.
func crew(c badCase, defaults bool) (services []service) {
	for _, v := range []service{
		{name: "one", version: "good", replicas: 1, port: 8081},
		{name: "three", version: "good", replicas: 3, port: 8083},
	} {
		v.lines = []string{"mem_limit: 64m", "depends_on: {migration: {condition: service_completed_successfully}}"}
		if defaults {
			v.lines = append(v.lines, `healthcheck: {test: ["CMD", "/app", "-check"], interval: 1s}`, deploy(v.replicas, ""))
		} else {
			v.lines = append(append(v.lines, c.lines...), "x-drain: "+rolloutDrain, deploy(v.replicas, "monitor: "+badMonitor))
		}
		services = append(services, v)
	}
	return append(services,
		service{name: "migration", version: "good", lines: []string{`command: ["-job", "0"]`}},
		service{name: "client", version: "client"})
}

// Bad deploys versions that are bad in many ways, under load: each has to go
// back to the one that served, which is not touched.
func Bad(ctx context.Context, o Options) error {
	return on(ctx, o, "bad", func(m *machine, n *neighbour) (err error) {
		s := m.stack("bad")
		if err := s.write(crew(badCases[0], false)...); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.down()) }()
		if r := s.up(ctx); r.code != 0 {
			return r
		}
		targets, leave, err := s.targets(ctx, n, crew(badCases[0], false)[:2]...)
		if err != nil {
			return err
		}
		defer leave()
		fmt.Fprintf(o.Out, "monitor %s, x-drain %s where not default; %d requests/s, %d kept, %d streams, %d datagram clients\n",
			badMonitor, rolloutDrain, badClients.Requests, badClients.Kept, badClients.Streams, badClients.Datagrams)
		fmt.Fprintf(o.Out, "%-16s %8s %-8s %5s %7s %10s %7s %11s\n", "", "replicas", "settings", "exit", "took", "processes", "failed", "bad answers")
		l := load.Start(targets, badClients)
		var windows []window
		var wrong []string
		for _, c := range badCases {
			if !strings.Contains(c.name, o.Cases) {
				continue
			}
			for i := range 2 {
				t := trial{stack: s, of: c, which: i, defaults: c.defaults && i == 0}
				w, list := t.run(ctx, o, l)
				windows = append(windows, w)
				wrong = append(wrong, list...)
				if ctx.Err() != nil {
					break
				}
			}
		}
		wrong = append(wrong, reportLoad(o.Out, l.Stop(), windows, "bad versions")...)
		return errors.Join(ctx.Err(), missed(wrong))
	})
}

// trial is one bad version of one service.
type trial struct {
	*stack
	of       badCase
	which    int // of the crew
	defaults bool
}

func (t trial) settings() string {
	if t.defaults {
		return "default"
	}
	return "short"
}

// run deploys the version and looks at what became of the old one.
func (t trial) run(ctx context.Context, o Options, l *load.Load) (w window, wrong []string) {
	services := crew(t.of, t.defaults)
	name := fmt.Sprintf("%s (%d replicas)", t.of.name, services[t.which].replicas)
	fail := func(format string, args ...any) { wrong = append(wrong, name+": "+fmt.Sprintf(format, args...)) }
	if err := t.good(ctx, services); err != nil {
		fail("before: %v", err)
		return w, wrong
	}
	before, err := t.pids(ctx)
	if err != nil {
		fail("before: %v", err)
		return w, wrong
	}
	failed := l.Failures()

	bad := crew(t.of, t.defaults)
	v, migration := &bad[t.which], &bad[2]
	v.bad, v.version = t.of.bad, strings.ReplaceAll(fmt.Sprintf("bad-%s-%d", t.of.name, t.which), " ", "-")
	if t.of.spoil != nil {
		t.of.spoil(v, migration)
	}
	if err := t.write(bad...); err != nil {
		fail("%v", err)
		return w, wrong
	}
	r := t.up(ctx)
	w = window{name, r.begin, r.end}
	after, err := t.pids(ctx)
	if err != nil {
		fail("after: %v", err)
	}
	if r.code != t.of.code {
		fail("want exit %d: %v", t.of.code, r)
	}
	same := maps.Equal(before, after)
	if !same {
		fail("the processes were %v and are %v", before, after)
	}
	for _, v := range services[:2] {
		if err := answers(ctx, v); err != nil {
			fail("%v", err)
		}
	}
	sleep(ctx, time.Second)
	answered := l.Answers(v.version)
	if answered > 0 {
		fail("the bad version got %d requests", answered)
	}
	fmt.Fprintf(o.Out, "%-16s %8d %-8s %5d %5.1f s %10s %7d %11d\n", t.of.name, v.replicas, t.settings(), r.code,
		r.end.Sub(r.begin).Seconds(), map[bool]string{true: "the same", false: "others"}[same], l.Failures()-failed, answered)
	if err := t.good(ctx, services); err != nil {
		fail("back to the good version: %v", err)
	}
	return w, wrong
}

// good brings the good version up, which runs already but may have other
// settings.
func (t trial) good(ctx context.Context, services []service) error {
	if err := t.write(services...); err != nil {
		return err
	}
	if r := t.up(ctx); r.code != 0 {
		return r
	}
	return nil
}
