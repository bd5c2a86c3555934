package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"berth/spec"
)

// retirement says how a task ends.
type retirement struct {
	cause string
	// drain lets a running task finish its connections first.
	drain bool
	// remove frees what it holds once it has exited.
	remove bool
}

// retire takes the next step towards the end of t: withdraw, drain, stop
// signal, grace, kill, remove.
func (p *planner) retire(s *Service, t *Task, r retirement) {
	if p.retired[t.ID] {
		return
	}
	p.retired[t.ID] = true
	switch {
	case t.State == TaskPending:
		p.wait(t.Service, t.Slot, time.Time{}, "its creation to end")
	case t.inTraffic():
		p.on(WithdrawTask, t, r.cause)
	case t.State == TaskExited:
		if r.remove {
			p.on(RemoveTask, t, r.cause)
		}
	case t.StopAt.IsZero() && r.drain && p.draining(s, t):
		until := t.WithdrawnAt.Add(s.Drain)
		p.wait(t.Service, t.Slot, until, connections(t.Flows)+" to drain")
	case t.StopAt.IsZero():
		p.on(StopTask, t, r.cause)
	case !t.KilledAt.IsZero() && p.now.Before(t.KilledAt.Add(killAgain)):
		p.wait(t.Service, t.Slot, t.KilledAt.Add(killAgain), "its exit")
	case !t.KilledAt.IsZero():
		p.on(KillTask, t, "it has not ended")
	case s.Grace >= 0 && !p.now.Before(t.StopAt.Add(s.Grace)):
		p.on(KillTask, t, fmt.Sprintf("ran on for %s after its stop signal", s.Grace))
	case s.Grace < 0:
		p.wait(t.Service, t.Slot, time.Time{}, "its exit")
	default:
		p.wait(t.Service, t.Slot, t.StopAt.Add(s.Grace), "its exit")
	}
}

// killAgain is the time after which SIGKILL is sent once more: a process in an
// uninterruptible wait ends late, and a signal may have got lost with an agent.
const killAgain = 5 * time.Second

// idle is how long no connection of a draining task may have been used before
// it is stopped: a request in flight, or about to be sent, is never met.
const idle = 5 * time.Second

// draining says that t has connections that are used, and time left.
func (p *planner) draining(s *Service, t *Task) bool {
	return !t.WithdrawnAt.IsZero() && t.Flows != 0 && t.Idle < idle && p.now.Before(t.WithdrawnAt.Add(s.Drain))
}

// defaultGrace is Compose's stop_grace_period, for tasks whose service is no
// longer known.
const defaultGrace = 10 * time.Second

// unknown stands for the service of a task that the stack does not have.
func unknown(t *Task) *Service {
	s := &Service{Name: t.Service, Grace: defaultGrace}
	if t.Grace != nil {
		s.Grace = *t.Grace
	}
	return s
}

// replacesAny says that a rollout has tasks of another version left to replace.
func (p *planner) replacesAny() bool {
	r := p.want.Rollout
	if r == nil {
		return false
	}
	return slices.ContainsFunc(p.plan.Services, func(st Status) bool {
		return r.Touched[st.Service] && (st.Old > 0 || st.Ready < st.Replicas && st.Phase >= PhaseStarting)
	})
}

// exclusive names an unwanted service with a live task that holds something for
// itself, such as a volume that a service of another name now has.
func (p *planner) exclusive() string {
	for _, name := range slices.Sorted(maps.Keys(p.slots)) {
		if _, ok := p.want.Services[name]; ok {
			continue
		}
		for _, tasks := range p.slots[name] {
			if slices.ContainsFunc(tasks, func(t *Task) bool { return t.live() && t.Exclusive }) {
				return name
			}
		}
	}
	return ""
}

// unwanted ends the tasks of a service that is not in the stack any more. In a
// rollout they go last: what is replaced may depend on them to its end, and a
// rollback finds them as they were.
func (p *planner) unwanted(name string, keep bool) {
	st := Status{Service: name, Removed: true, Phase: PhaseStopping, Reason: "no longer in the file"}
	for _, slot := range slices.Sorted(maps.Keys(p.slots[name])) {
		for _, t := range p.slots[name][slot] {
			if t.live() {
				st.Old++
			}
			if t.live() && keep && t.StopAt.IsZero() && !t.Exclusive {
				p.wait(name, slot, time.Time{}, "what is replaced to be ready")
				continue
			}
			p.retire(unknown(t), t, retirement{cause: "no longer in the file", drain: true, remove: true})
		}
	}
	p.plan.Services = append(p.plan.Services, st)
}

// remove ends the whole stack: dependents before what they depend on, then
// the networks, then the record of the stack.
func (p *planner) remove() {
	names := slices.Sorted(maps.Keys(p.slots))
	for _, name := range names {
		s, ok := p.want.Services[name]
		st := Status{Service: name, Removed: true, Phase: PhaseStopping, Reason: "stopping"}
		by := p.dependent(name, func(*Service) bool { return true })
		for _, slot := range slices.Sorted(maps.Keys(p.slots[name])) {
			for _, t := range p.slots[name][slot] {
				if t.live() {
					st.Old++
				}
				if by != "" && t.live() {
					p.wait(name, slot, time.Time{}, by+" to end")
					st.Reason = "waits for " + by + " to end"
					continue
				}
				own := &s
				if !ok {
					own = unknown(t)
				}
				p.retire(own, t, retirement{cause: "the stack is removed", remove: true})
			}
		}
		p.plan.Services = append(p.plan.Services, st)
	}
	if len(p.seen.Tasks) > 0 {
		return
	}
	var after []int
	for _, n := range slices.Sorted(maps.Keys(p.seen.Networks)) {
		after = append(after, p.act(Action{Kind: RemoveNetwork, Target: n, Cause: "the stack is removed"}))
	}
	p.act(Action{Kind: RemoveStack, Target: p.want.Name, Cause: "nothing of it is left", After: after})
}

// dependent names a service with live tasks that depends on service and that
// ends too; "" if there is none.
func (p *planner) dependent(service string, ends func(*Service) bool) string {
	for _, name := range slices.Sorted(maps.Keys(p.want.Services)) {
		s := p.want.Services[name]
		depends := slices.ContainsFunc(s.DependsOn, func(d spec.Dependency) bool { return d.Service == service })
		if depends && ends(&s) && p.anyLive(name) {
			return name
		}
	}
	return ""
}

func (p *planner) anyLive(service string) bool {
	for _, tasks := range p.slots[service] {
		if slices.ContainsFunc(tasks, func(t *Task) bool { return t.live() }) {
			return true
		}
	}
	return false
}
