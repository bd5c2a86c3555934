package reconciler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// PlanStack decides what to do now so that what is observed becomes what is
// wanted. It is pure. Tasks of services that want does not name are ended.
func PlanStack(want Stack, seen Observed, now time.Time) *Plan {
	p := newPlanner(want, seen, now)
	if want.Removing {
		p.remove()
		return p.plan
	}
	p.ensureNetworks()
	names := slices.Collect(maps.Keys(want.Services))
	for name := range p.slots {
		if _, ok := want.Services[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var unwanted []string
	for _, name := range names {
		if s, ok := want.Services[name]; ok {
			p.service(&s)
		} else {
			unwanted = append(unwanted, name)
		}
	}
	keep := p.replacesAny()
	for _, name := range unwanted {
		p.unwanted(name, keep)
	}
	p.decide()
	for _, n := range seen.Idle {
		p.act(Action{Kind: RemoveNetwork, Target: n, Cause: "no longer in the file"})
	}
	return p.plan
}

// newPlanner sorts what is seen into slots.
func newPlanner(want Stack, seen Observed, now time.Time) *planner {
	p := &planner{
		want: want, seen: seen, now: now,
		plan:     &Plan{Stack: want.Name, Revision: want.Revision},
		slots:    map[string]map[int][]*Task{},
		networks: map[string]int{}, retired: map[string]bool{},
	}
	for i := range seen.Tasks {
		t := &seen.Tasks[i]
		if p.slots[t.Service] == nil {
			p.slots[t.Service] = map[int][]*Task{}
		}
		p.slots[t.Service][t.Slot] = append(p.slots[t.Service][t.Slot], t)
	}
	for _, slots := range p.slots {
		for _, tasks := range slots {
			slices.SortFunc(tasks, func(a, b *Task) int { return cmp.Compare(b.Attempt, a.Attempt) })
		}
	}
	return p
}

// planner builds one plan. It changes neither want nor seen.
type planner struct {
	want     Stack
	seen     Observed
	now      time.Time
	plan     *Plan
	slots    map[string]map[int][]*Task // service, slot: newest first
	networks map[string]int             // actions that ensure a network
	retired  map[string]bool            // tasks whose end has its step in this plan
}

func (p *planner) act(a Action) int {
	p.plan.Actions = append(p.plan.Actions, a)
	return len(p.plan.Actions) - 1
}

func (p *planner) on(kind Kind, t *Task, cause string) {
	p.act(Action{Kind: kind, Target: t.ID, Service: t.Service, Slot: t.Slot, Cause: cause})
}

// wait records what a slot waits for; until zero is an event.
func (p *planner) wait(service string, slot int, until time.Time, what string) {
	p.plan.Waits = append(p.plan.Waits, Wait{Service: service, Slot: slot, For: what, Until: until})
	if !until.IsZero() && (p.plan.Next.IsZero() || until.Before(p.plan.Next)) {
		p.plan.Next = until
	}
}

func (p *planner) ensureNetworks() {
	for _, n := range slices.Sorted(slices.Values(p.want.Networks)) {
		if !p.seen.Networks[n] {
			p.networks[n] = p.act(Action{Kind: EnsureNetwork, Target: n, Cause: "not there"})
		}
	}
}

// service plans one wanted service.
func (p *planner) service(s *Service) {
	st := Status{Service: s.Name, Replicas: s.Replicas}
	for slot, tasks := range p.slots[s.Name] {
		for _, t := range tasks {
			if t.up() && t.Ready && t.Published {
				st.Ready++
			}
			if t.live() && (t.Key != s.Key || slot > s.Replicas) {
				st.Old++
			}
			if t.Key == s.Key && t.up() && t.Ready && t.Published {
				st.Fresh++
				if until := t.ReadyAt.Add(s.Update.Monitor); p.now.Before(until) {
					p.again(until)
				} else {
					st.Available++
				}
			}
		}
	}
	busy := p.replacing(s)
	for slot := 1; slot <= s.Replicas; slot++ {
		switch {
		case s.Stopped:
			p.stopped(s, slot, &st)
		case s.Unfit != "" && slot > s.Fits:
			p.unfit(s, slot, &st)
		default:
			p.slot(s, slot, &busy, &st)
		}
	}
	p.surplus(s, &st)
	p.plan.Services = append(p.plan.Services, st)
}

// surplus ends the tasks beyond the replicas. One that takes traffic stays until
// the replicas do: a smaller number is no reason for a gap.
func (p *planner) surplus(s *Service, st *Status) {
	lacking := 0
	serves := func(t *Task) bool { return t.up() && t.Ready && t.Published && t.StopAt.IsZero() }
	for slot := 1; slot <= s.Replicas && !s.Stopped && s.Order == StartFirst; slot++ {
		tasks := p.slots[s.Name][slot]
		if !slices.ContainsFunc(tasks, serves) && !p.done(s, slot, tasks) {
			lacking++
		}
	}
	for _, slot := range slices.Sorted(maps.Keys(p.slots[s.Name])) {
		if slot <= s.Replicas {
			continue
		}
		for _, t := range p.slots[s.Name][slot] {
			st.worse(PhaseStopping, "scaling down to %d", s.Replicas)
			if lacking > 0 && serves(t) {
				lacking--
				p.wait(s.Name, slot, time.Time{}, "the others to take the traffic")
				continue
			}
			p.retire(s, t, retirement{cause: "beyond the replicas", drain: true, remove: true})
		}
	}
}

// done says that a slot of s has done what it was for, and stays empty.
func (p *planner) done(s *Service, slot int, tasks []*Task) bool {
	cur, _ := p.pick(s, tasks)
	if cur == nil {
		return s.OneShot && slot <= s.Completed
	}
	v, _, _ := judge(s, cur)
	return cur.State == TaskExited && v == completed
}

// replacing counts the slots of s whose current task is on its way: a
// replacement goes on with the next slot only while there are fewer than
// Parallelism.
func (p *planner) replacing(s *Service) int {
	n := 0
	for slot := 1; slot <= s.Replicas; slot++ {
		tasks := p.slots[s.Name][slot]
		if len(tasks) == 0 {
			continue
		}
		cur, others := p.pick(s, tasks)
		old := slices.ContainsFunc(others, (*Task).live)
		switch {
		case cur != nil && cur.Unhealthy && cur.up() && cur.StopAt.IsZero():
			// Its own replacement has not begun.
		case cur != nil && (!cur.up() || !cur.Ready || !cur.Published):
			if v, _, _ := judge(s, cur); cur.State == TaskExited && v == completed {
				continue
			}
			n++
		case cur != nil:
			// It is there; its predecessor may drain while the next begins.
		case !old || begun(others):
			n++
		}
	}
	return n
}

// current says that t is of the wanted version, in the wanted namespace.
func (p *planner) current(s *Service, t *Task) bool {
	if t.Key != s.Key {
		return false
	}
	if !t.live() {
		return true
	}
	for _, share := range s.Shares {
		if parent := p.parent(s, share, t.Slot); parent != "" && parent != t.Parents[share] {
			return false
		}
	}
	return true
}

// pick chooses the task of a slot that is to stay: a live one of the wanted
// version that was not told to stop, even if a newer attempt at another version
// follows it (the user went back); else the newest, if it is of that version.
// old are the others.
func (p *planner) pick(s *Service, tasks []*Task) (cur *Task, old []*Task) {
	i := slices.IndexFunc(tasks, func(t *Task) bool { return t.live() && t.StopAt.IsZero() && p.current(s, t) })
	if i < 0 && len(tasks) > 0 && p.current(s, tasks[0]) {
		i = 0
	}
	if i < 0 {
		return nil, tasks
	}
	return tasks[i], slices.Concat(tasks[:i], tasks[i+1:])
}

// parent is the id of the running task whose namespace slot of s shares, "" if
// there is none. Of a service it is that of the same slot, else of the first.
// While a new one is not ready, it is the old one: a bad version of the parent
// must not take a working pair down.
func (p *planner) parent(s *Service, share string, slot int) string {
	service, ok := strings.CutPrefix(share, "service:")
	if !ok {
		return s.Containers[share]
	}
	up := ""
	for _, n := range []int{slot, 1} {
		for _, t := range p.slots[service][n] {
			if t.up() && t.Ready {
				return t.ID
			}
			if t.up() && up == "" {
				up = t.ID
			}
		}
	}
	return up
}

// slot plans one slot of a service that shall run.
func (p *planner) slot(s *Service, slot int, busy *int, st *Status) {
	tasks := p.slots[s.Name][slot]
	cur, old := p.pick(s, tasks)
	p.dispose(cur, old)
	if cur == nil || !cur.Published {
		p.overtake(s, old)
	}
	oldLive := slices.ContainsFunc(old, (*Task).live)
	if cur == nil && s.OneShot && slot <= s.Completed {
		const why = "this version has run to its end before"
		if len(old) > 0 && old[0].State == TaskExited {
			p.on(RemoveTask, old[0], why)
		}
		p.succeeded(s, old, why, st)
		return
	}
	if cur == nil {
		p.fill(s, slot, old, oldLive, busy, st)
		return
	}
	switch cur.State {
	case TaskPending:
		st.Coming = st.Coming || cur.Failures <= 1 && cur.Attempt > 1
		st.worse(PhaseStarting, "%s-%d is being created", s.Name, slot)
		p.wait(s.Name, slot, time.Time{}, "its container")
		return
	case TaskExited:
		p.exited(s, slot, cur, old, st)
		return
	}
	p.running(s, cur, old, busy, st)
}

// running plans a slot whose current task runs.
func (p *planner) running(s *Service, cur *Task, old []*Task, busy *int, st *Status) {
	slot := cur.Slot
	oldLive := slices.ContainsFunc(old, (*Task).live)
	st.Updated++
	if cur.InPlace != s.InPlace {
		p.on(UpdateTask, cur, "limits or contents changed")
		st.worse(PhaseStarting, "the limits or contents of %s-%d are being changed", s.Name, slot)
	}
	st.Failures = max(st.Failures, cur.Failures)
	st.Coming = st.Coming || cur.Failures <= 1 && !cur.Unhealthy && (cur.Ready || cur.ReadyAt.IsZero() && cur.Attempt > 1)
	isReady, until := ready(cur, p.now)
	switch {
	case cur.State == TaskPaused && cur.StopAt.IsZero():
		st.worse(PhaseStarting, "%s-%d is paused", s.Name, slot)
	case p.replaceUnhealthy(s, cur, busy, st):
	case !cur.StopAt.IsZero():
		// The user stopped it and starts it again: it can't be kept any more.
		p.retire(s, cur, retirement{cause: "started again"})
		st.worse(PhaseStarting, "%s-%d stops, and is started again", s.Name, slot)
	case cur.Ready && !isReady:
		p.wait(s.Name, slot, until, "it to stay up")
		st.worse(PhaseFailing, "%s-%d has failed %s, and is up again", s.Name, slot, times(cur.Failures))
	case cur.Ready && !cur.Published && cur.Doubtful:
		p.wait(s.Name, slot, time.Time{}, "its next probe: the last one failed")
		st.worse(PhaseStarting, "%s-%d is ready, but its last probe failed", s.Name, slot)
	case cur.Ready && !cur.Published && p.now.Before(p.trafficAt(s, cur)):
		at := p.trafficAt(s, cur)
		p.wait(s.Name, slot, at, "it to stay ready")
		st.worse(PhaseStarting, "%s-%d is ready, and takes traffic in %s", s.Name, slot, seconds(at.Sub(p.now)))
	case cur.Ready && !cur.Published:
		p.on(PublishTask, cur, "ready")
		st.worse(PhaseStarting, "%s-%d is ready", s.Name, slot)
	case !cur.Ready && cur.inTraffic() && p.newProbeFails(s, cur):
		st.worse(PhaseFailing, "%s-%d fails its new probe: %s", s.Name, slot, cur.Reason)
	case !cur.Ready && cur.inTraffic():
		p.on(WithdrawTask, cur, "not ready: "+cur.Reason)
		st.worse(PhaseStarting, "%s-%d is not ready: %s", s.Name, slot, cur.Reason)
	case !cur.Ready:
		p.wait(s.Name, slot, time.Time{}, "readiness")
		if cur.Failures > 0 {
			st.worse(PhaseFailing, "%s-%d restarted %s, not ready: %s", s.Name, slot, times(cur.Restarts), cur.Reason)
		} else {
			st.worse(PhaseStarting, "%s-%d is not ready: %s", s.Name, slot, cur.Reason)
		}
	case p.isCanary(s) && oldLive:
		st.worse(PhaseStarting, "%s-%d takes a part of the traffic, until it is promoted", s.Name, slot)
	default:
		for _, t := range old {
			if t.live() {
				p.retire(s, t, retirement{cause: "replaced by " + cur.ID, drain: true, remove: true})
				st.worse(PhaseStopping, "%s-%d: %s", s.Name, slot, p.leaving(s, t))
			}
		}
	}
}

// leaving says how far the end of t is.
func (p *planner) leaving(s *Service, t *Task) string {
	switch {
	case t.inTraffic():
		return "the old task leaves the traffic"
	case !t.StopAt.IsZero():
		return "the old task stops"
	case p.draining(s, t):
		return fmt.Sprintf("draining, %s, %s left", connections(t.Flows), seconds(t.WithdrawnAt.Add(s.Drain).Sub(p.now)))
	}
	return "the old task is drained"
}

// dispose removes exited tasks that others stand in for. Without a current
// task the newest is kept: its end is what the slot's next step follows.
func (p *planner) dispose(cur *Task, old []*Task) {
	for i, t := range old {
		switch {
		case t.State != TaskExited:
		case cur != nil:
			p.on(RemoveTask, t, "followed by "+cur.ID)
		case i > 0:
			p.on(RemoveTask, t, "followed by "+old[0].ID)
		}
	}
}

// overtake ends tasks of other versions that never took traffic: a newer one
// was wanted before they could. One-shots are left to end by themselves.
func (p *planner) overtake(s *Service, old []*Task) {
	if s.OneShot {
		return
	}
	for _, t := range old {
		if t.up() && !t.inTraffic() && t.WithdrawnAt.IsZero() {
			p.retire(s, t, retirement{cause: "another version is wanted", remove: true})
		}
	}
}

// fill plans a slot without a current task.
func (p *planner) fill(s *Service, slot int, old []*Task, oldLive bool, busy *int, st *Status) {
	rolled := oldLive || len(old) == 0 && p.replaced(s)
	if rolled && !begun(old) {
		if until, why := p.turn(s, slot, *busy); why != "" {
			p.wait(s.Name, slot, until, why)
			st.worse(PhaseStarting, "%s-%d waits for %s", s.Name, slot, why)
			return
		}
	}
	if why, final := p.unmet(s); why != "" {
		p.wait(s.Name, slot, time.Time{}, why)
		if final {
			st.worse(PhaseFailed, "%s", why)
		} else {
			st.worse(PhaseWaiting, "waits for %s", why)
		}
		return
	}
	st.worse(PhaseStarting, "%s-%d is being created", s.Name, slot)
	st.Coming = st.Coming || len(old) > 0
	stopFirst := s.Order == StopFirst || len(s.Shares) > 0
	if other := p.exclusive(); stopFirst && other != "" {
		p.wait(s.Name, slot, time.Time{}, other+" to end: it is no longer in the file")
		return
	}
	if oldLive && stopFirst {
		*busy++
		for _, t := range old {
			if t.live() {
				p.retire(s, t, retirement{cause: "a new version follows", drain: true})
			}
		}
		return
	}
	if rolled {
		*busy++
	}
	a := Action{Cause: "not there"}
	if len(old) > 0 {
		a.Cause = "a new version"
		if old[0].Key == s.Key {
			a.Cause = "its namespace is gone"
		}
	}
	p.create(s, slot, a)
}

// begun says that a stop-first replacement is half done: what lives of old was
// told to stop.
func begun(old []*Task) bool {
	stops := false
	for _, t := range old {
		if t.live() && t.StopAt.IsZero() {
			return false
		}
		stops = stops || t.live()
	}
	return stops
}

func (p *planner) create(s *Service, slot int, a Action) {
	a.Kind, a.Service, a.Slot = CreateTask, s.Name, slot
	a.Target = fmt.Sprintf("%s/%d", s.Name, slot)
	a.Attempt = p.seen.Attempts[a.Target] + 1
	for _, t := range p.slots[s.Name][slot] {
		a.Attempt = max(a.Attempt, t.Attempt+1)
	}
	for _, share := range s.Shares {
		parent := p.parent(s, share, slot)
		if parent == "" {
			_, name, _ := strings.Cut(share, ":")
			p.wait(s.Name, slot, time.Time{}, name+" to run: it shares its namespace")
			return
		}
		if a.Parents == nil {
			a.Parents = map[string]string{}
		}
		a.Parents[share] = parent
	}
	for _, n := range s.Networks {
		if i, ok := p.networks[n]; ok {
			a.After = append(a.After, i)
		}
	}
	slices.Sort(a.After)
	p.act(a)
}

// exited plans a slot whose current task has ended.
func (p *planner) exited(s *Service, slot int, t *Task, old []*Task, st *Status) {
	if t.inTraffic() {
		p.on(WithdrawTask, t, "exited")
	}
	v, at, why := judge(s, t)
	switch v {
	case completed:
		p.succeeded(s, old, "exited 0", st)
		return
	case failed:
		st.worse(PhaseFailed, "%s-%d %s", s.Name, slot, why)
		return
	}
	if unmet, final := p.unmet(s); unmet != "" {
		p.wait(s.Name, slot, time.Time{}, unmet)
		if final {
			st.worse(PhaseFailed, "%s", unmet)
		} else {
			st.worse(PhaseWaiting, "waits for %s", unmet)
		}
		return
	}
	n := failures(s, t)
	st.Failures = max(st.Failures, n)
	st.Coming = st.Coming || n <= 1
	if n > 0 {
		st.worse(PhaseFailing, "%s-%d %s; %s", s.Name, slot, why, due(at, p.now))
	} else {
		st.worse(PhaseStarting, "%s-%d %s", s.Name, slot, why)
	}
	if at.After(p.now) {
		p.wait(s.Name, slot, at, "the back-off")
		return
	}
	if t.inTraffic() {
		return // first out of the map, then its successor
	}
	if s.Order == StopFirst && slices.ContainsFunc(old, (*Task).live) {
		// The order changed while a start-first replacement was under way.
		for _, o := range old {
			if o.live() {
				p.retire(s, o, retirement{cause: "a new version follows", drain: true})
			}
		}
		return
	}
	p.create(s, slot, Action{Failures: n, Restarts: t.Restarts + 1, Restarted: restarted(s, t, p.now), Cause: why})
}

// succeeded plans a slot that has done what it was for.
func (p *planner) succeeded(s *Service, old []*Task, why string, st *Status) {
	st.Updated++
	st.worse(PhaseCompleted, "%s", why)
	for _, o := range old {
		if o.live() {
			p.retire(s, o, retirement{cause: why, drain: true, remove: true})
		}
	}
}

// unfit plans a slot that can't run on this node: what runs in it ends, and
// none follows.
func (p *planner) unfit(s *Service, slot int, st *Status) {
	st.Fits = s.Fits
	st.worse(PhasePending, "%s", s.Unfit)
	p.wait(s.Name, slot, time.Time{}, "a node that fits: "+s.Unfit)
	for _, t := range p.slots[s.Name][slot] {
		p.retire(s, t, retirement{cause: "does not fit this node: " + s.Unfit, drain: true, remove: true})
	}
}

func due(at, now time.Time) string {
	if d := at.Sub(now); d >= 50*time.Millisecond {
		return "restarts in " + seconds(d)
	}
	return "restarts now"
}

// stopped plans one slot of a service that the user stopped. It goes after
// those that depend on it and are stopped too.
func (p *planner) stopped(s *Service, slot int, st *Status) {
	st.worse(PhaseStopped, "stopped")
	by := p.dependent(s.Name, func(d *Service) bool { return d.Stopped })
	for i, t := range p.slots[s.Name][slot] {
		if t.live() && by != "" {
			p.wait(s.Name, slot, time.Time{}, by+" to end")
			st.worse(PhaseStopping, "waits for %s to end", by)
			continue
		}
		if t.live() {
			st.worse(PhaseStopping, "%s-%d is stopping", s.Name, slot)
		}
		p.retire(s, t, retirement{cause: "stopped by the user", remove: i > 0})
	}
}
