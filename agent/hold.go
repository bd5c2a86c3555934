package agent

import (
	"context"
	"maps"
	"sync"
)

// holds knows the services whose new connections wait while no task is in the
// traffic, as one is on its way. So a restart of a service that can't run twice
// costs its clients time, not an error.
type holds struct {
	a  *Agent
	mu sync.Mutex
	on map[string]bool // by "stack/service"
}

func newHolds(a *Agent) *holds { return &holds{a: a, on: map[string]bool{}} }

func (h *holds) has(stack, service string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.on[stack+"/"+service]
}

// sync reads the newest plans. Where the answer has changed for a service that
// nobody serves, it has the rules made anew.
func (h *holds) sync(ctx context.Context, wg *sync.WaitGroup, v view) {
	on := map[string]bool{}
	for name, s := range v.stacks {
		plan, _ := h.a.loop.plan(name)
		if plan == nil || s.Removing != nil {
			continue
		}
		for _, st := range plan.Services {
			if st.Coming && !st.Removed {
				on[name+"/"+st.Service] = true
			}
		}
	}
	served := map[string]bool{}
	for _, t := range v.tasks {
		if t.Rotation && t.Live() {
			served[t.Stack+"/"+t.Service] = true
		}
	}
	h.mu.Lock()
	was := h.on
	h.on = on
	h.mu.Unlock()
	// Where somebody serves, the next change of the rules says it.
	unserved := func(m map[string]bool) map[string]bool {
		out := maps.Clone(m)
		maps.DeleteFunc(out, func(key string, _ bool) bool { return served[key] })
		return out
	}
	if maps.Equal(unserved(was), unserved(on)) {
		return
	}
	h.a.spawn(wg, func() {
		if err := h.a.traffic.sync(ctx); err != nil && ctx.Err() == nil {
			h.a.log.Error("hold new connections", "err", err)
		}
	})
}
