package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"berth/testbed/load"
)

// manner is what a service does with its kept connections when it has to stop.
type manner struct{ name, bad, linger string }

var manners = []manner{
	{name: "says that it closes", linger: "3s"},
	{name: "closes idle connections", linger: "0s"},
	{name: "ignores SIGTERM", bad: "deaf"},
}

const (
	mannersDeploys = 5
	mannersGrace   = 3 * time.Second
)

var mannersClients = load.Clients{Kept: 100}

func (m manner) service(version int) service {
	return service{name: "polite", version: fmt.Sprintf("v%d", version), bad: m.bad, linger: m.linger, replicas: 1, port: 8081, lines: []string{
		healthcheck, "x-drain: " + rolloutDrain, fmt.Sprintf("stop_grace_period: %s", mannersGrace), deploy(1, "monitor: 0s"),
	}}
}

// Manners shows what a service's own way of stopping costs clients that keep
// their connections and try nothing again. It has no target: Berth can't mend
// it.
func Manners(ctx context.Context, o Options) error {
	return on(ctx, o, "manners", func(m *machine, n *neighbour) error {
		fmt.Fprintf(o.Out, "%d deploys each, %d kept connections, x-drain %s, stop_grace_period %s\n", mannersDeploys, mannersClients.Kept, rolloutDrain, mannersGrace)
		fmt.Fprintf(o.Out, "%-26s %9s %7s %8s %8s\n", "a service that", "requests", "failed", "reopened", "deploy")
		for i, way := range manners {
			s := m.stack(fmt.Sprintf("manners%d", i))
			if err := errors.Join(way.measure(ctx, o, s, n), s.down()); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
		}
		return nil
	})
}

func (m manner) measure(ctx context.Context, o Options, s *stack, n *neighbour) error {
	if err := s.write(m.service(0)); err != nil {
		return err
	}
	if r := s.up(ctx); r.code != 0 {
		return r
	}
	l := load.Start(n.published(m.service(0)), mannersClients)
	defer l.Stop()
	var windows []window
	var took []time.Duration
	for i := range mannersDeploys {
		if !sleep(ctx, pauseBetween) {
			return ctx.Err()
		}
		if err := s.write(m.service(i + 1)); err != nil {
			return err
		}
		r := s.up(ctx)
		if r.code != 0 {
			return r
		}
		windows = append(windows, window{fmt.Sprintf("deploy %d", i+1), r.begin, r.end})
		took = append(took, r.end.Sub(r.begin))
	}
	sleep(ctx, pauseBetween)
	result := l.Stop()
	fmt.Fprintf(o.Out, "%-26s %9d %7d %8d %6.1f s\n", m.name, len(result.Samples[load.Kept])+len(result.Failed), len(result.Failed), result.Reopens, spreadOf(took).p50.Seconds())
	reportFailures(o.Out, result, windows)
	return nil
}
