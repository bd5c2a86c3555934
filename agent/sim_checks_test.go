package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"berth/api"
	"berth/overlaynet"
	"berth/reconciler"
	"berth/runtime"
	"berth/store"
)

// checks hold what must be true at every call. All methods are called with the
// simulation locked.
type checks struct {
	created map[string]bool // every container that ever was
	// steady are the containers that nothing but a person, or a fault of their
	// own, may end: the agent died while there was nothing to do.
	steady map[string]bool
	// idle says that there was also nothing that it had not written down.
	idle bool
	// floors are how many tasks of a service must serve, and since when.
	floors map[string][]floor

	changed time.Time     // what is wanted, or somebody acted
	rollout store.Rollout // the newest that was seen
	byUser  bool          // somebody acted since it was seen
}

type floor struct {
	since   time.Time
	n, less int
}

// floorMemory is how long a lower floor is remembered: what it allowed may
// still be under way.
const floorMemory = time.Minute

func newChecks() checks {
	return checks{created: map[string]bool{}, floors: map[string][]floor{}}
}

// wanted follows what is wanted, as it becomes durable.
func (c *checks) wanted(s *sim, st *store.Stack, r *store.Revision) {
	c.rollouts(s, st)
	now := time.Now()
	c.changed = now
	names := map[string]bool{}
	for name := range c.floors {
		names[name] = true
	}
	if r != nil {
		for name := range r.Stack.Services {
			names[name] = true
		}
	}
	for name := range names {
		n, less := floorOf(st, r, name)
		list := c.floors[name]
		if len(list) == 0 || list[len(list)-1].n != n || list[len(list)-1].less != less {
			c.floors[name] = append(list, floor{now, n, less})
		}
	}
}

// floorOf is how many tasks of a service must serve, and how many of them may
// be missing while they are replaced.
func floorOf(st *store.Stack, r *store.Revision, name string) (n, less int) {
	if st == nil || st.Removing != nil || st.Stopped[name] {
		return 0, 0
	}
	svc, ok := r.Stack.Services[name]
	if !ok || svc.OneShot || svc.NetworkMode != "" {
		return 0, 0
	}
	order, _ := reconciler.OrderOf(&svc, writable(&r.Stack, &svc, nil))
	if order == reconciler.StartFirst {
		return svc.Replicas, 0
	}
	u := updateOf(&svc, st.Rollout != nil && st.Rollout.State == api.RolloutRollingBack)
	if u.Parallelism == 0 {
		return 0, 0
	}
	return svc.Replicas, u.Parallelism
}

// least is how many tasks of a service have to serve, of those that did, by
// everything that was wanted in the last minute.
func (c *checks) least(name string, were int) int {
	list := c.floors[name]
	if len(list) == 0 || time.Since(list[0].since) < floorMemory {
		return 0
	}
	least := were
	for i := len(list) - 1; i >= 0; i-- {
		least = min(least, min(were, list[i].n)-list[i].less)
		if time.Since(list[i].since) > floorMemory {
			break
		}
	}
	return max(0, least)
}

// rollouts follows the record of the rollout: a rollback is never followed by
// another one, unless somebody asks for it.
func (c *checks) rollouts(s *sim, st *store.Stack) {
	if st == nil || st.Rollout == nil {
		return
	}
	r, last := *st.Rollout, c.rollout
	if r.Started.Equal(last.Started) && r.State == last.State && r.Ended.Equal(last.Ended) {
		return
	}
	if !r.Started.Equal(last.Started) {
		s.noteLocked("rollout to %d from %d: %s %s", r.Revision, r.From, r.State, r.Reason)
		if !last.Started.IsZero() && last.Ended.IsZero() {
			end := "superseded"
			if r.Failed == last.Revision {
				end = "went back"
			}
			s.figures.Ends[end]++
		}
		if last.State == api.RolloutRollingBack && r.Failed != 0 && last.Ended.IsZero() && !c.byUser {
			s.breach("the rollback to %d was followed by one to %d", last.Revision, r.Revision)
		}
		c.byUser = false
	} else {
		s.noteLocked("rollout to %d: %s %s", r.Revision, r.State, r.Reason)
	}
	if !r.Ended.IsZero() || r.State == api.RolloutPaused || r.State == api.RolloutRollbackPaused {
		s.figures.Ends[r.State]++
	}
	c.rollout = r
}

// acted is a person who changes what is wanted.
func (c *checks) acted(*sim) { c.steady, c.byUser, c.changed = nil, true, time.Now() }

// disturbed is a program that ends or fails by itself.
func (c *checks) disturbed() { c.steady = nil }

// faulted is a call that fails: what the agent does about it is not its own
// idea.
func (c *checks) faulted() { c.steady = nil }

// crashed notes what is steady when the agent dies.
func (c *checks) crashed(s *sim) {
	c.steady = nil
	if s.Agent == nil || s.loop == nil || !s.loop.mu.TryLock() {
		return
	}
	plan := s.loop.plans["shop"]
	s.loop.mu.Unlock()
	if plan == nil || !plan.Settled() || time.Since(c.changed) < time.Second {
		return
	}
	s.containers.mu.Lock()
	defer s.containers.mu.Unlock()
	steady := map[string]bool{}
	for id, p := range s.containers.all {
		if p.status.FinishedAt.IsZero() {
			steady[id] = true
		}
	}
	if !s.w.mu.TryRLock() {
		return
	}
	defer s.w.mu.RUnlock()
	for id, t := range s.w.tasks {
		if t.Live() && !steady[id] {
			return // it has ended, and the agent does not know yet
		}
	}
	c.steady, c.idle = steady, len(s.w.dirty) == 0
}

// called looks at one call that is about to take effect.
func (c *checks) called(s *sim, verb, target string) {
	label, more, _ := strings.Cut(target, " ")
	id := s.ids[label]
	switch verb {
	case "create":
		if c.created[id] {
			s.breach("id of %s was given twice", label)
		}
		c.created[id] = true
		if c.steady != nil && c.idle {
			s.breach("%s is created, and nothing had changed when the agent died", label)
		}
	case "signal":
		if !s.running(id) || !isStop(more) {
			return
		}
		s.ending(id, "gets "+more)
		s.programs[id].signalled = true
	case "delete", "detach":
		if !s.running(id) {
			return
		}
		if t := s.recorded(id); t != nil && t.State == store.StateExited && t.Lost {
			return // the agent lost its container, and is wrong
		}
		s.ending(id, "is deleted")
		if g := s.programs[id]; !g.signalled && verb == "delete" {
			if t := s.recorded(id); t == nil || t.State != store.StatePending {
				s.breach("%s runs and is deleted without a stop signal", g)
			}
		}
	}
}

func (s *sim) recorded(id string) *store.Task {
	if !s.w.mu.TryRLock() {
		return nil
	}
	defer s.w.mu.RUnlock()
	return s.w.tasks[id]
}

// ending checks that a running task may be ended.
func (s *sim) ending(id, what string) {
	g := s.programs[id]
	if _, led := backendsOf(s.networks.current())[id]; led {
		s.breach("%s %s while connections are led to it", g, what)
	}
	if s.checks.steady[id] {
		s.breach("%s %s, and nothing had changed when the agent died", g, what)
	}
}

// started checks what two running tasks must not share.
func (c *checks) started(s *sim, id string) {
	s.containers.mu.Lock()
	s.networks.mu.Lock()
	defer s.networks.mu.Unlock()
	defer s.containers.mu.Unlock()
	mine := s.containers.all[id]
	for _, other := range slices.Sorted(maps.Keys(s.containers.all)) {
		p := s.containers.all[other]
		if other == id || p.status.State != runtime.StateRunning {
			continue
		}
		for _, m := range mine.c.Mounts {
			for _, o := range p.c.Mounts {
				if m.Source == o.Source && !m.ReadOnly {
					s.breach("%s and %s write to the volume %s", s.labels[id], s.labels[other], s.labels[other])
				}
			}
		}
		for _, e := range s.networks.netns[id] {
			for _, o := range s.networks.netns[other] {
				if e.NetworkID == o.NetworkID && e.Addr4 == o.Addr4 {
					s.breach("%s and %s have the address %s", s.labels[id], s.labels[other], e.Addr4)
				}
			}
		}
	}
}

// ruled looks at rules that have just come into force.
func (c *checks) ruled(s *sim, before, after overlaynet.Rules) {
	for id := range backendsOf(after) {
		if g := s.programs[id]; g != nil && g.signalled && s.running(id) {
			s.breach("connections are led to %s, which has got its stop signal", g)
		}
	}
	for id := range backendsOf(before) {
		if g := s.programs[id]; g != nil {
			g.led = time.Now()
		}
	}
	led := map[string]overlaynet.Service{}
	for _, svc := range after.Services {
		led[svc.ID] = svc
	}
	for _, svc := range before.Services {
		was, is := s.serving(svc.Backends, s.fit), s.serving(led[svc.ID].Backends, s.able)
		lost := slices.DeleteFunc(slices.Clone(was), func(id string) bool { return slices.Contains(is, id) })
		if len(lost) == 0 {
			continue
		}
		name := strings.Split(svc.ID, "/")[1]
		slots := map[string]bool{}
		for _, id := range was {
			slot, _, _ := strings.Cut(s.labels[id], ".")
			slots[slot] = true
		}
		if need := c.least(name, len(slots)) - s.failed(name); len(is) < need {
			s.breach("%s: %s left the traffic, %d of %d serve\n%s", name, s.list(lost), len(is), need, s.plan())
		}
	}
}

// failed counts the programs of a service that failed while connections were
// led to them, so lately that the agent need not know yet.
func (s *sim) failed(service string) int {
	n := 0
	lately := func(at time.Time) bool { return !at.IsZero() && time.Since(at) < realityEvery+3*time.Second }
	for _, g := range s.programs {
		if g.service == service && !g.signalled && lately(g.led) && (lately(g.lastFail) || lately(g.gone)) {
			n++
		}
	}
	return n
}

// plan is the newest plan, as text.
func (s *sim) plan() string {
	if !s.loop.mu.TryLock() {
		return ""
	}
	defer s.loop.mu.Unlock()
	if p := s.loop.plans["shop"]; p != nil {
		return p.String()
	}
	return ""
}

func (s *sim) list(ids []string) string {
	var out []string
	for _, id := range ids {
		out = append(out, s.labels[id])
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (s *sim) serving(list []overlaynet.Backend, serves func(id string) bool) []string {
	var out []string
	for _, b := range list {
		if serves(b.TaskID) {
			out = append(out, b.TaskID)
		}
	}
	return out
}

// rolloutEnded says what the rollout still waits for; "" if it has ended, or
// waits for a person, or rightly never ends.
func (s *sim) rolloutEnded() string {
	st, r := s.w.stack("shop")
	if st == nil || !underWay(st.Rollout) || st.Removing != nil {
		return ""
	}
	switch st.Rollout.State {
	case api.RolloutPaused, api.RolloutRollbackPaused, api.RolloutCanary:
		return ""
	}
	if st.Rollout.From == 0 {
		return "" // nothing to go back to: it tries for ever
	}
	back := st.Rollout.State == api.RolloutRollingBack
	for name := range st.Rollout.Touched {
		svc := r.Stack.Services[name]
		if updateOf(&svc, back).OnFailure == reconciler.ActionContinue {
			return "" // it goes on, whatever fails
		}
	}
	plan, _ := s.loop.plan("shop")
	return fmt.Sprintf("%s %s\n%s%s", st.Rollout.State, st.Rollout.Reason, plan, s.ps())
}

// converged says what is not as the last file wants it.
func (s *sim) converged() string {
	var wrong []string
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	st, r := s.w.stack("shop")
	if st == nil || r == nil {
		return "there is no stack"
	}
	if underWay(st.Rollout) || st.Rollout.State != api.RolloutComplete || st.Stable != st.Revision {
		bad("the rollout is %s %s", st.Rollout.State, st.Rollout.Reason)
	}
	plan, _ := s.loop.plan("shop")
	if plan == nil || !plan.Settled() {
		bad("plan:\n%s", plan)
	}
	want := s.file.stack()
	live, served := map[string]bool{}, 0
	for _, t := range s.w.view().tasks {
		svc := want.Services[t.Service]
		switch {
		case t.State == store.StateRemoved:
		case svc.OneShot && t.State == store.StateExited && t.ExitCode == 0:
			live[t.ID] = true
		case t.State == store.StateRunning && t.Published && t.Image == svc.Image:
			live[t.ID] = true
			if len(t.Endpoints) > 0 {
				served++
			}
		default:
			bad("%s is %s, published %t", s.label(t.ID), t.State, t.Published)
		}
	}
	n := 0
	for name, svc := range want.Services {
		if !svc.OneShot || len(s.tasksOf(name)) > 0 {
			n += svc.Replicas
		}
	}
	if len(live) != n {
		bad("%d tasks are as wanted, of %d", len(live), n)
	}
	wrong = append(wrong, s.leftOver(live)...)
	backends := 0
	for _, svc := range s.networks.current().Services {
		backends += len(svc.Backends)
	}
	if backends != served {
		bad("%d backends, %d published tasks", backends, served)
	}
	if got := s.host.list(); len(got) != 1 {
		bad("ports held: %v", got)
	}
	if len(wrong) == 0 { // it costs more than the rest
		if err := s.w.flush(); err != nil || !s.sameAsStored() {
			bad("memory and store differ: %v", err)
		}
	}
	slices.Sort(wrong)
	return strings.Join(wrong, "\n")
}

func (s *sim) sameAsStored() bool {
	s.w.mu.RLock()
	defer s.w.mu.RUnlock()
	return sameRecords(s.w, stored(s.t, s.backend))
}

func (s *sim) tasksOf(service string) []*store.Task {
	return slices.DeleteFunc(s.w.view().tasks, func(t *store.Task) bool {
		return t.Service != service || t.State == store.StateRemoved
	})
}

// leftOver are kernel objects that belong to none of the tasks.
func (s *sim) leftOver(live map[string]bool) (wrong []string) {
	s.containers.mu.Lock()
	defer s.containers.mu.Unlock()
	s.networks.mu.Lock()
	defer s.networks.mu.Unlock()
	for id := range s.containers.all {
		if !live[id] {
			wrong = append(wrong, "container of "+s.labels[id]+" is left over")
		}
	}
	for id := range s.networks.netns {
		if !live[id] {
			wrong = append(wrong, "namespace of "+s.labels[id]+" is left over")
		}
	}
	if n := len(s.networks.bridges); n != 1 {
		wrong = append(wrong, fmt.Sprintf("%d bridges", n))
	}
	return wrong
}

// nothingLeft says what is left after down.
func (s *sim) nothingLeft() string {
	v := s.w.view()
	n := len(s.containers.all) + len(s.networks.netns) + len(s.networks.bridges) + len(v.tasks) + len(v.stacks) + len(v.networks) + len(v.vips)
	if n == 0 && len(s.host.list()) == 0 {
		return ""
	}
	return fmt.Sprintf("%d containers, %d namespaces, %d bridges, ports %v\n%s", len(s.containers.all), len(s.networks.netns),
		len(s.networks.bridges), s.host.list(), s.ps())
}
