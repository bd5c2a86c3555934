package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"berth/api"
	"berth/testbed/load"
)

// Settings of section kill: what moves, moves fast.
const (
	controlLimit  = 3 * time.Second // p99 from the agent's start to its API
	movingDrain   = "1s"
	movingMonitor = "500ms"
	finishLimit   = 2 * time.Minute
)

var (
	steadyClients = load.Clients{Requests: 300, Kept: 30, Streams: 12, Session: 30 * time.Second, Datagrams: 8}
	movingClients = load.Clients{Requests: 50}
)

// Kill kills the agent at random moments, under load on services that don't
// change and while another stack is rolled out all the time.
func Kill(ctx context.Context, o Options) error {
	return on(ctx, o, "kill", func(m *machine, n *neighbour) (err error) {
		steady, moving := m.stack("steady"), &mover{stack: m.stack("moving")}
		services := fleet([2]string{"v1", "v1"})
		if err := errors.Join(steady.write(services...), moving.next()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, moving.down(), steady.down()) }()
		for _, s := range []*stack{steady, moving.stack} {
			if r := s.up(ctx); r.code != 0 {
				return r
			}
		}
		targets, leave, err := steady.targets(ctx, n, services[:2]...)
		if err != nil {
			return err
		}
		defer leave()
		fmt.Fprintf(o.Out, "%d kills; %d requests/s, %d kept, %d streams, %d datagram clients to what stays; what moves: monitor %s, x-drain %s, %d requests/s\n",
			o.Kills, steadyClients.Requests, steadyClients.Kept, steadyClients.Streams, steadyClients.Datagrams, movingMonitor, movingDrain, movingClients.Requests)
		l, lm := load.Start(targets, steadyClients), load.Start([]load.Target{moving.target()}, movingClients)
		windows, control, wrong, err := kills(ctx, o, steady, moving)
		result, rm := l.Stop(), lm.Stop()

		sp := spreadOf(control)
		fmt.Fprintf(o.Out, "killed %d times, back in control after %s ms (median), p99 %s ms, at most %s ms\n", len(control), ms(sp.p50), ms(sp.p99), ms(sp.max))
		fmt.Fprintf(o.Out, "rollouts: %d begun, %d of them seen to their end\n", moving.begun, moving.ended)
		if sp.p99 > controlLimit {
			wrong = append(wrong, fmt.Sprintf("back in control after %s (p99), want at most %s", sp.p99, controlLimit))
		}
		wrong = append(wrong, reportLoad(o.Out, result, windows, "no agent")...)
		fmt.Fprintf(o.Out, "requests to what moves: %d, %d failed\n", len(rm.Samples[load.Requests])+len(rm.Failed), len(rm.Failed))
		reportFailures(o.Out, rm, windows)
		return errors.Join(err, missed(wrong))
	})
}

// kills carries the kills out. The last one cuts a rollout off that has to be
// ended without anybody asking again.
func kills(ctx context.Context, o Options, steady *stack, moving *mover) (windows []window, control []time.Duration, wrong []string, err error) {
	before, err := steady.pids(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	moves, settle := context.WithCancel(ctx)
	moved := make(chan error, 1)
	go func() { moved <- moving.move(moves) }()
	defer settle()
	for i := range o.Kills {
		if !sleep(ctx, 100*time.Millisecond+rand.N(2*time.Second)) {
			return windows, control, wrong, ctx.Err()
		}
		if i == o.Kills-1 {
			settle() // with the agent gone it ends
		}
		begin := time.Now()
		if err := steady.kill(ctx); err != nil {
			return windows, control, wrong, err
		}
		took, err := steady.start(ctx)
		if err != nil {
			return windows, control, wrong, err
		}
		control = append(control, took)
		windows = append(windows, window{fmt.Sprintf("kill %d", i+1), begin, time.Now()})
		after, err := steady.pids(ctx)
		if err != nil {
			return windows, control, wrong, err
		}
		if !maps.Equal(before, after) {
			wrong = append(wrong, fmt.Sprintf("kill %d: the processes were %v and are %v", i+1, before, after))
			before = after
		}
	}
	settle()
	if err := <-moved; err != nil {
		return windows, control, wrong, err
	}
	begin := time.Now()
	finishing, cancel := context.WithTimeout(ctx, finishLimit)
	defer cancel()
	if err := poll(finishing, 100*time.Millisecond, func() error { return moving.whole(ctx) }); err != nil {
		wrong = append(wrong, fmt.Sprintf("%s after the last kill: %v", finishLimit, err))
	}
	fmt.Fprintf(o.Out, "the last rollout was whole %.1f s after the last kill\n", time.Since(begin).Seconds())
	return windows, control, wrong, nil
}

// mover is a stack that is rolled out all the time.
type mover struct {
	*stack
	version      int
	begun, ended int
}

func (m *mover) service() service {
	return service{name: "moving", version: fmt.Sprintf("v%d", m.version), replicas: 3, port: 8085, lines: []string{
		healthcheck, "x-drain: " + movingDrain, deploy(3, "monitor: "+movingMonitor),
	}}
}

// next writes the next version.
func (m *mover) next() error {
	m.version++
	return m.write(m.service())
}

func (m *mover) target() load.Target {
	s := m.service()
	t := atPort(s.name, "127.0.0.1", s.port, s.port+tcpAbove)
	t.From = &net.Dialer{}
	return t
}

// move rolls one version after the other out, whatever becomes of them: a
// command ends with an error when the agent is killed.
func (m *mover) move(ctx context.Context) error {
	for sleep(ctx, rand.N(500*time.Millisecond)) {
		if err := m.next(); err != nil {
			return err
		}
		m.begun++
		if r := m.up(ctx); r.code == 0 {
			m.ended++
		}
	}
	return nil
}

// whole says whether the rollout is over: every task is of the version that
// the agent wants.
func (m *mover) whole(ctx context.Context) error {
	r, err := m.client.Rollout(ctx, m.name)
	if err != nil {
		return fmt.Errorf("ask for the rollout of %s: %w", m.name, err)
	}
	if r.State != api.RolloutComplete && r.State != api.RolloutRolledBack {
		return fmt.Errorf("the rollout of %s is %s: %s", m.name, r.State, r.Reason)
	}
	status, err := m.client.Stack(ctx, m.name)
	if err != nil {
		return fmt.Errorf("look at %s: %w", m.name, err)
	}
	want := m.service()
	want.version = status.Stack.Services[want.name].Environment["VERSION"]
	tasks, err := m.running(ctx)
	if err != nil {
		return err
	}
	if n := len(slices.DeleteFunc(tasks, func(t api.Task) bool { return t.Service != want.name })); n != want.replicas {
		return fmt.Errorf("%s has %d tasks, want %d", want.name, n, want.replicas)
	}
	return answers(ctx, want)
}
