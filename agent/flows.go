package agent

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"berth/overlaynet"
)

// flowsEvery is how often the connections of draining tasks are counted.
const flowsEvery = 250 * time.Millisecond

// flowsIdle is the idleness whose coming and going the loop is told of.
const flowsIdle = 5 * time.Second

// flows counts the connections of tasks that were withdrawn and drain.
type flows struct {
	a        *Agent
	mu       sync.Mutex
	counts   map[string]overlaynet.Flow
	draining map[string][]netip.Addr
	running  bool
}

func newFlows(a *Agent) *flows {
	return &flows{a: a, counts: map[string]overlaynet.Flow{}, draining: map[string][]netip.Addr{}}
}

// count is the number of connections of a task, and the time since the last
// packet on any of them; -1: not counted yet.
func (f *flows) count(id string) (n int, idle time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.counts[id]; ok {
		return c.Count, c.Idle
	}
	return -1, 0
}

// sync chooses whom to count and starts counting if there is anybody; counting
// ends with ctx.
func (f *flows) sync(ctx context.Context, wg *sync.WaitGroup, v view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.draining = map[string][]netip.Addr{}
	for _, t := range v.tasks {
		if t.Live() && !t.Withdrawn.IsZero() && t.StopAt.IsZero() && !t.Published {
			for _, e := range t.Endpoints {
				f.draining[t.ID] = append(f.draining[t.ID], e.IPv4, e.IPv6)
			}
		}
	}
	for id := range f.counts {
		if _, ok := f.draining[id]; !ok {
			delete(f.counts, id)
		}
	}
	if len(f.draining) > 0 && !f.running {
		f.running = true
		f.a.spawn(wg, func() { f.run(ctx) })
	}
}

// note keeps the counts and says whether any is new, or idle where it was not.
func (f *flows) note(of map[string][]netip.Addr, got map[netip.Addr]overlaynet.Flow) (changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, list := range of {
		var now overlaynet.Flow
		for _, a := range list {
			switch one := got[a]; {
			case one.Count == 0:
			case now.Count == 0:
				now = one
			default:
				now = overlaynet.Flow{Count: now.Count + one.Count, Idle: min(now.Idle, one.Idle)}
			}
		}
		before, known := f.counts[id]
		changed = changed || !known || before.Count != now.Count || (before.Idle >= flowsIdle) != (now.Idle >= flowsIdle)
		f.counts[id] = now
	}
	return changed
}

// run counts until nobody drains.
func (f *flows) run(ctx context.Context) {
	tick := time.NewTicker(flowsEvery)
	defer tick.Stop()
	for {
		f.mu.Lock()
		if len(f.draining) == 0 {
			f.running = false
			f.mu.Unlock()
			return
		}
		var addrs []netip.Addr
		of := f.draining
		for _, list := range of {
			for _, a := range list {
				if a.IsValid() {
					addrs = append(addrs, a)
				}
			}
		}
		f.mu.Unlock()
		counting, cancel := context.WithTimeout(ctx, 5*time.Second)
		got, err := f.a.networks.Flows(counting, addrs)
		cancel()
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil:
			f.a.log.Warn("count connections", "err", err)
		case f.note(of, got):
			f.a.loop.wake()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
