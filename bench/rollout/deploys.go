package rollout

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"berth/testbed/load"
)

// Settings of section rollout: the drain outlasts the longest session, as a
// user would choose it.
const (
	rolloutMonitor = "1s"
	rolloutDrain   = "5s"
	rolloutSession = 3 * time.Second
	pauseBetween   = 3 * time.Second
)

var rolloutClients = load.Clients{Requests: 500, Kept: 50, Streams: 20, Session: rolloutSession, Datagrams: 8}

// fleet is a service of one task, one of three, and a container from which
// both are called.
func fleet(versions [2]string, lines ...string) []service {
	one := service{name: "one", version: versions[0], replicas: 1, port: 8081, lines: lines}
	three := service{name: "three", version: versions[1], replicas: 3, port: 8083, lines: lines}
	client := service{name: "client", version: "client", replicas: 1}
	for _, s := range []*service{&one, &three} {
		s.lines = append([]string{healthcheck, "x-drain: " + rolloutDrain, deploy(s.replicas, "monitor: "+rolloutMonitor)}, s.lines...)
	}
	return []service{one, three, client}
}

// Deploys replaces services of one and of three tasks by turns, under load.
func Deploys(ctx context.Context, o Options) error {
	return on(ctx, o, "rollout", func(m *machine, n *neighbour) (err error) {
		s := m.stack("rollout")
		versions := [2]string{"v1", "v1"}
		if err := s.write(fleet(versions)...); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.down()) }()
		if r := s.up(ctx); r.code != 0 {
			return r
		}
		targets, close, err := s.targets(ctx, n, fleet(versions)[:2]...)
		if err != nil {
			return err
		}
		defer close()
		fmt.Fprintf(o.Out, "%d deploys, by turns of 1 and of 3 replicas; monitor %s, x-drain %s; %d requests/s, %d kept, %d streams of at most %s, %d datagram clients, from outside, the host and a container\n",
			o.Deploys, rolloutMonitor, rolloutDrain, rolloutClients.Requests, rolloutClients.Kept, rolloutClients.Streams, rolloutSession, rolloutClients.Datagrams)
		l := load.Start(targets, rolloutClients)
		windows, wrong, err := s.deploys(ctx, o, l, versions)
		result := l.Stop()
		took := map[string][]time.Duration{}
		for _, w := range windows {
			_, which, _ := strings.Cut(w.name, " of ")
			took[which] = append(took[which], w.end.Sub(w.begin))
		}
		for _, which := range []string{"one", "three"} {
			sp := spreadOf(took[which])
			fmt.Fprintf(o.Out, "deploys of %-5s %2d, took %.1f s (median), at most %.1f s\n", which, len(took[which]), sp.p50.Seconds(), sp.max.Seconds())
		}
		wrong = append(wrong, reportLoad(o.Out, result, windows, "deploys")...)
		wrong = append(wrong, slower(result, windows)...)
		return errors.Join(err, missed(wrong))
	})
}

// targets are the services from outside, from the host and from the stack's
// own client.
func (s *stack) targets(ctx context.Context, n *neighbour, services ...service) (targets []load.Target, close func(), err error) {
	within, ns, err := s.inside(ctx, "client", services...)
	if err != nil {
		return nil, nil, err
	}
	return append(n.published(services...), within...), ns.Close, nil
}

// deploys carries the deploys out. After each one only the new version may
// answer.
func (s *stack) deploys(ctx context.Context, o Options, l *load.Load, versions [2]string) (windows []window, wrong []string, err error) {
	for i := range o.Deploys {
		if !sleep(ctx, pauseBetween) {
			return windows, wrong, ctx.Err()
		}
		which := i % 2
		versions[which] = map[string]string{"v1": "v2", "v2": "v1"}[versions[which]]
		services := fleet(versions)
		if err := s.write(services...); err != nil {
			return windows, wrong, err
		}
		before := l.Failures()
		r := s.up(ctx)
		w := window{fmt.Sprintf("deploy %d of %s", i+1, services[which].name), r.begin, r.end}
		windows = append(windows, w)
		if r.code != 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %v", w.name, r))
			continue
		}
		for _, v := range services[:2] {
			if err := answers(ctx, v); err != nil {
				wrong = append(wrong, fmt.Sprintf("after %s: %v", w.name, err))
			}
		}
		fmt.Fprintf(o.Out, "  %s to %s: %.1f s, %d failed\n", w.name, versions[which], r.end.Sub(r.begin).Seconds(), l.Failures()-before)
	}
	sleep(ctx, pauseBetween)
	return windows, wrong, nil
}

// answers wants a service's version from a few requests to it.
func answers(ctx context.Context, s service) error {
	t := atPort(s.name, "127.0.0.1", s.port, s.port+tcpAbove)
	t.From = &net.Dialer{}
	for range 2 * s.replicas {
		version, err := t.Ask(ctx)
		if err != nil {
			return fmt.Errorf("ask %s: %w", s.name, err)
		}
		if version != s.version {
			return fmt.Errorf("%s answers with %s, want %s", s.name, version, s.version)
		}
	}
	return nil
}

// sleep waits, and says whether the bench goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
