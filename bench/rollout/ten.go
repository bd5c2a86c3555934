package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"berth/api"
	"berth/testbed/load"
)

const (
	tenReplicas    = 10
	tenParallelism = 2
	tenMonitor     = 10 * time.Second // the default
)

// pace is how ten replicas are rolled.
type pace struct {
	name    string
	update  string // of update_config, beside parallelism
	lines   []string
	monitor time.Duration
	clients load.Clients
	// price: requests may fail, as without a drain those under way are cut.
	price bool
}

var paces = []pace{
	{name: "defaults", monitor: tenMonitor, clients: load.Clients{Requests: 100}},
	{name: "defaults, with kept connections", monitor: tenMonitor, clients: load.Clients{Requests: 100, Kept: 20}},
	{
		name: "as fast as it goes", update: ", monitor: 0s", lines: []string{"x-drain: 0s"},
		clients: load.Clients{Requests: 100}, price: true,
	},
}

func (p pace) service(version string) service {
	return service{
		name: "ten", version: version, replicas: tenReplicas, port: 8081,
		lines: append([]string{deploy(tenReplicas, fmt.Sprintf("parallelism: %d%s", tenParallelism, p.update))}, p.lines...),
	}
}

// Ten rolls ten replicas two at a time and says where the time goes.
func Ten(ctx context.Context, o Options) error {
	return on(ctx, o, "ten", func(m *machine, n *neighbour) error {
		var wrong []string
		for i, p := range paces {
			list, err := p.roll(ctx, o, m.stack(fmt.Sprintf("ten%d", i)), n)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			wrong = append(wrong, list...)
		}
		return missed(wrong)
	})
}

func (p pace) roll(ctx context.Context, o Options, s *stack, n *neighbour) (wrong []string, err error) {
	if err := s.write(p.service("v1")); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.down()) }()
	if r := s.up(ctx); r.code != 0 {
		return nil, r
	}
	if err := s.write(p.service("v2")); err != nil {
		return nil, err
	}
	l := load.Start(n.published(p.service("v2")), p.clients)
	sleep(ctx, 2*time.Second) // connections are kept by then
	r := s.up(ctx)
	result := l.Stop()
	if r.code != 0 {
		return nil, r
	}
	events, err := s.events(ctx, r.begin)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(o.Out, "\n%s: %d replicas, %d at a time, %d requests/s, %d kept connections\n",
		p.name, tenReplicas, tenParallelism, p.clients.Requests, p.clients.Kept)
	p.report(o.Out, lives(events), r.end.Sub(r.begin))
	fmt.Fprintf(o.Out, "%d requests, %d failed\n", len(result.Samples[load.Requests])+len(result.Samples[load.Kept])+len(result.Failed), len(result.Failed))
	reportFailures(o.Out, result, []window{{"the rollout", r.begin, r.end}})
	if len(result.Failed) > 0 && !p.price {
		wrong = append(wrong, fmt.Sprintf("%s: %d requests failed, want 0", p.name, len(result.Failed)))
	}
	return wrong, nil
}

// events are those of the stack from a time until now.
func (s *stack) events(ctx context.Context, since time.Time) ([]api.Event, error) {
	var list []api.Event
	for e, err := range s.client.Events(ctx, api.EventQuery{Stack: s.name, Since: since.UTC().Format(time.RFC3339Nano)}) {
		if err != nil {
			return nil, fmt.Errorf("read the events of %s: %w", s.name, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// life is when things happened to a task, by the action of the event.
type life map[string]time.Time

// lives are those of all tasks that something happened to; the first of each
// action counts.
func lives(events []api.Event) map[string]life {
	out := map[string]life{}
	for _, e := range events {
		if e.Type != "task" {
			continue
		}
		if out[e.Task] == nil {
			out[e.Task] = life{}
		}
		if _, seen := out[e.Task][e.Action]; !seen {
			out[e.Task][e.Action] = e.Time
		}
	}
	return out
}

// part is one step of a replacement, between two events of a task.
type part struct{ name, from, to string }

// The parts, in order: the first two of the new task, the last of the old one.
var parts = []part{
	{"start: created to running", "create", "start"},
	{"ready: running to in traffic", "start", "publish"},
	{"drain and stop: out of traffic to ended", "withdraw", "die"},
}

// times are what tasks took for a part, in the order of their beginning.
func (p part) times(lives map[string]life) []time.Duration {
	var found []life
	for _, l := range lives {
		if !l[p.from].IsZero() && !l[p.to].IsZero() {
			found = append(found, l)
		}
	}
	slices.SortFunc(found, func(a, b life) int { return a[p.from].Compare(b[p.from]) })
	var out []time.Duration
	for _, l := range found {
		out = append(out, l[p.to].Sub(l[p.from]))
	}
	return out
}

// report prints the parts, and their sum as if nothing overlapped: of each
// batch the slowest task counts.
func (p pace) report(w io.Writer, lives map[string]life, wall time.Duration) {
	fmt.Fprintf(w, "%-42s %5s %9s %9s %9s\n", "", "tasks", "median", "max", "batches")
	sum := p.monitor // of the last task, which is watched before the rollout is over
	for _, part := range parts {
		d := part.times(lives)
		var serial time.Duration
		for batch := range slices.Chunk(d, tenParallelism) {
			serial += slices.Max(batch)
		}
		sum += serial
		sp := spreadOf(d)
		fmt.Fprintf(w, "%-42s %5d %7.2f s %7.2f s %7.2f s\n", part.name, len(d), sp.p50.Seconds(), sp.max.Seconds(), serial.Seconds())
	}
	fmt.Fprintf(w, "%-42s %5s %9s %9s %7.2f s\n", "watch: the monitor of the last", "", "", "", p.monitor.Seconds())
	fmt.Fprintf(w, "wall time %.2f s, sum of the parts %.2f s: %.2f of it\n", wall.Seconds(), sum.Seconds(), wall.Seconds()/sum.Seconds())
}
