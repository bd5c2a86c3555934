package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"berth/api"
	"berth/runtime"
	"berth/store"
)

// statsEvery is the time between two samples.
const statsEvery = time.Second

// stats sends one sample of each running task, or one a second. CPU is what
// was used between two samples, so the first one takes a moment.
func (a *Agent) stats(ctx context.Context, stack string, services []string, follow bool, send func(api.TaskStats) error) error {
	last := map[string]runtime.Stats{}
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	a.sample(ctx, stack, services, last)
	first := time.NewTimer(200 * time.Millisecond)
	defer first.Stop()
	for {
		select {
		case <-first.C:
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, s := range a.sample(ctx, stack, services, last) {
			if err := send(s); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
	}
}

// sample measures all running tasks and turns the CPU time since last into a
// percentage. Tasks that end meanwhile are left out.
func (a *Agent) sample(ctx context.Context, stack string, services []string, last map[string]runtime.Stats) []api.TaskStats {
	var tasks []*store.Task
	for _, t := range a.w.view().tasks {
		if t.Stack == stack && t.State == store.StateRunning && (len(services) == 0 || slices.Contains(services, t.Service)) {
			tasks = append(tasks, t)
		}
	}
	out := make([]*api.TaskStats, len(tasks))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, t := range tasks {
		wg.Go(func() {
			s, err := a.containers.Stats(ctx, t.ID)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			before, seen := last[t.ID]
			last[t.ID] = s
			ts := &api.TaskStats{
				Task: t.ID, Name: t.Name(), Service: t.Service, Time: s.Time, Memory: s.Memory, MemLimit: s.MemoryLimit,
				NetRx: s.NetRx, NetTx: s.NetTx, BlockRead: s.BlockRead, BlockWrite: s.BlockWrite, Pids: s.Pids,
			}
			if d := s.Time.Sub(before.Time); seen && d > 0 && s.CPUNanos >= before.CPUNanos {
				ts.CPUPercent = 100 * float64(s.CPUNanos-before.CPUNanos) / float64(d)
			}
			out[i] = ts
		})
	}
	wg.Wait()
	var got []api.TaskStats
	for _, s := range out {
		if s != nil {
			got = append(got, *s)
		}
	}
	return got
}
