package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// rolling says that the rollout replaces or makes tasks of s and has not ended.
func (p *planner) rolling(s *Service) bool {
	return p.want.Rollout != nil && p.want.Rollout.Touched[s.Name]
}

func (p *planner) isCanary(s *Service) bool {
	return p.want.Rollout != nil && p.want.Rollout.Canary == s.Name
}

// replaced says that s has live tasks of another version.
func (p *planner) replaced(s *Service) bool {
	for _, tasks := range p.slots[s.Name] {
		if slices.ContainsFunc(tasks, func(t *Task) bool { return t.live() && t.Key != s.Key }) {
			return true
		}
	}
	return false
}

// currents are the live tasks of the wanted version of s.
func (p *planner) currents(s *Service) []*Task {
	var out []*Task
	for slot := 1; slot <= s.Replicas; slot++ {
		for _, t := range p.slots[s.Name][slot] {
			if t.live() && t.Key == s.Key {
				out = append(out, t)
			}
		}
	}
	return out
}

// turn says what a slot of s that is to be replaced waits for; "" if its turn
// has come. until zero is an event.
func (p *planner) turn(s *Service, slot, busy int) (until time.Time, why string) {
	r := p.want.Rollout
	switch {
	case p.rolling(s) && (r.State == Paused || r.State == RollbackPaused):
		return until, "the rollout to be resumed"
	case p.isCanary(s) && slot != 1:
		return until, "the canary to be promoted"
	case s.Update.Parallelism > 0 && busy >= s.Update.Parallelism:
		return until, "its turn"
	case s.Update.Delay == 0 || !p.rolling(s):
		return until, ""
	}
	for _, t := range p.currents(s) {
		if at := t.ReadyAt.Add(s.Update.Delay); !t.ReadyAt.IsZero() && p.now.Before(at) && at.After(until) {
			until, why = at, "update_config.delay"
		}
	}
	return until, why
}

// trafficAt is when t, which is ready, may take traffic.
//
// The first new task of a rollout stays out of it for as long as a task is
// watched: a version that dies after a few seconds costs no request. What it
// has shown counts for the others, which follow as soon as they are ready.
// Where nobody serves there is nothing to protect.
func (p *planner) trafficAt(s *Service, t *Task) time.Time {
	at := t.ReadySince.Add(s.MinReady)
	r := p.want.Rollout
	if !p.rolling(s) || !r.Stable || r.State == RollingBack || r.State == RollbackPaused || !p.served(s) {
		return at
	}
	for _, c := range p.currents(s) {
		if c.Ready && (c.Published || !p.now.Before(c.ReadySince.Add(s.Update.Monitor))) {
			return at
		}
	}
	if soaked := t.ReadySince.Add(s.Update.Monitor); soaked.After(at) {
		return soaked
	}
	return at
}

// served says that a task of another version of s takes traffic.
func (p *planner) served(s *Service) bool {
	for _, tasks := range p.slots[s.Name] {
		if slices.ContainsFunc(tasks, func(t *Task) bool { return t.up() && t.Key != s.Key && t.Ready && t.Published }) {
			return true
		}
	}
	return false
}

// replaceUnhealthy plans the replacement of the current task t of s, if it is
// to be replaced for its health, and says whether it does.
func (p *planner) replaceUnhealthy(s *Service, t *Task, busy *int, st *Status) bool {
	if !t.Unhealthy || s.OneShot {
		return false
	}
	n := t.Failures + 1
	at := t.StartedAt.Add(max(s.Restart.Delay, backoff(n-1)))
	v, _, _ := judge(s, &Task{State: TaskExited, Unhealthy: true, ExitCode: 1, Failures: t.Failures, Restarted: t.Restarted, FinishedAt: p.now})
	switch {
	case v != restart:
		return false // its policy leaves it as it is
	case !t.StopAt.IsZero():
	case s.Update.Parallelism > 0 && *busy >= s.Update.Parallelism:
		return false
	case p.now.Before(at):
		p.wait(t.Service, t.Slot, at, "its replacement: it is unhealthy")
		return false
	default:
		*busy++
	}
	st.worse(PhaseFailing, "%s-%d is unhealthy and is replaced", s.Name, t.Slot)
	if t.Ready && t.inTraffic() && s.Order == StartFirst {
		// It still takes traffic: only its liveness failed.
		p.create(s, t.Slot, Action{Failures: n, Restarts: t.Restarts + 1, Restarted: restarted(s, t, p.now), Cause: "unhealthy"})
		return true
	}
	p.retire(s, t, retirement{cause: "unhealthy", drain: true})
	return true
}

// decide says what becomes of the rollout: it goes back or pauses after a
// failure, and is complete when all that it touched is ready and was watched.
func (p *planner) decide() {
	r := p.want.Rollout
	if r == nil {
		return
	}
	if r.State == Paused || r.State == RollbackPaused {
		return
	}
	action, why := p.failure()
	if why == "" && r.Canary != "" {
		return
	}
	if why == "" {
		if p.complete() {
			p.act(Action{Kind: CompleteRollout, Target: p.want.Name, Cause: "all that it touched is ready"})
			return
		}
		action, why = p.stalled()
	}
	switch {
	case why == "" || !r.Stable || action == ActionContinue:
	case action == ActionRollback && r.State == Progressing:
		// No more tasks of a version that is given up. Actions that others follow
		// stand before and keep their places.
		p.plan.Actions = slices.DeleteFunc(p.plan.Actions, func(a Action) bool { return a.Kind == CreateTask && r.Touched[a.Service] })
		p.act(Action{Kind: RollBack, Target: p.want.Name, Cause: why})
	default:
		p.act(Action{Kind: PauseRollout, Target: p.want.Name, Cause: why})
	}
}

// again makes the loop look at a time, if nothing else does.
func (p *planner) again(at time.Time) {
	if p.plan.Next.IsZero() || at.Before(p.plan.Next) {
		p.plan.Next = at
	}
}

// failure is the first failure that the rollout may not go on after, with what
// its service asks for then; "" if there is none.
func (p *planner) failure() (FailureAction, string) {
	r := p.want.Rollout
	for _, name := range slices.Sorted(maps.Keys(r.Touched)) {
		s, ok := p.want.Services[name]
		if !ok || s.Stopped || s.Update.OnFailure == ActionContinue {
			continue
		}
		failed, why := 0, ""
		for slot := 1; slot <= s.Replicas; slot++ {
			if cause := p.slotFailure(&s, slot); cause != "" {
				failed++
				if why == "" {
					why = cause
				}
			}
		}
		if failed > 0 && float64(failed) > s.Update.MaxFailureRatio*float64(s.Replicas) {
			return s.Update.OnFailure, why
		}
	}
	return ActionContinue, ""
}

// newcomer is how many failures in a row a service that had no version before
// may have: a program that crashes until its database is there gets to try.
const newcomer = 5

// slotFailure says how the current task of a slot failed: before it was ready,
// or while it was watched. What came before Since does not count.
func (p *planner) slotFailure(s *Service, slot int) string {
	r := p.want.Rollout
	tasks := p.slots[s.Name][slot]
	if len(tasks) == 0 {
		return ""
	}
	t, old := p.pick(s, tasks)
	if t == nil {
		return ""
	}
	watched := func(at time.Time) bool {
		fresh := !t.inTraffic() && t.WithdrawnAt.IsZero() // it has to show more
		return !at.Before(r.Since) && (t.ReadyAt.IsZero() || fresh || p.isCanary(s) || at.Before(p.watchedUntil(s, t)))
	}
	since := p.now // when it went wrong, if it has
	if !t.Ready && !t.UnreadyAt.IsZero() {
		since = t.UnreadyAt
	}
	name := fmt.Sprintf("%s-%d of revision %d", s.Name, slot, p.want.Revision)
	if t.State == TaskExited {
		v, _, _ := judge(s, t)
		switch {
		case v == completed, t.Lost, t.Retry, !t.StopAt.IsZero() && !t.Unhealthy:
			return ""
		case v == restart && (s.OneShot || !p.hadVersion(s, old) && !t.StartedAt.Before(r.Since) && failures(s, t) < newcomer):
			return "" // it has more tries
		case !watched(t.FinishedAt):
			return ""
		}
		return name + " " + exitReason(t)
	}
	if !t.up() || t.State == TaskPaused || s.OneShot {
		return ""
	}
	switch {
	case t.Unhealthy && watched(since):
		return fmt.Sprintf("%s is unhealthy: %s", name, t.Reason)
	case !t.Ready && !t.ReadyAt.IsZero() && watched(since):
		return fmt.Sprintf("%s was ready for %s, and is not any more: %s", name, seconds(since.Sub(t.ReadyAt)), t.Reason)
	case !t.Ready && t.ReadyAt.IsZero():
		until := later(t.StartedAt, r.Since).Add(s.Deadline)
		if !p.now.Before(until) {
			return fmt.Sprintf("%s is not ready after %s: %s", name, seconds(s.Deadline), t.Reason)
		}
		p.again(until)
	case t.Failures > 0 && !t.StartedAt.Before(r.Since) && p.hadVersion(s, old):
		return fmt.Sprintf("%s failed %s", name, times(t.Failures)) // counts for max_failure_ratio
	}
	return ""
}

// watchedUntil is the end of the time that t is watched, which begins when it
// is ready; for a task from before the rollout, which changed it in place,
// with the rollout.
func (p *planner) watchedUntil(s *Service, t *Task) time.Time {
	return later(t.ReadyAt, p.want.Rollout.Since).Add(s.Update.Monitor)
}

func later(x, y time.Time) time.Time {
	if x.After(y) {
		return x
	}
	return y
}

// newProbeFails says that t, which this rollout did not make, is not ready
// since it began: it changed the probe. What served before goes on serving
// until the rollout has gone back.
func (p *planner) newProbeFails(s *Service, t *Task) bool {
	r := p.want.Rollout
	switch {
	case !p.rolling(s) || !r.Stable || !t.up() || !t.StartedAt.Before(r.Since):
		return false
	case r.State == RollingBack:
		return t.UnreadyAt.Before(r.Since) // the old probe has not answered yet
	}
	return r.State == Progressing && s.Update.OnFailure == ActionRollback && p.slotFailure(s, t.Slot) != ""
}

// hadVersion says that another version of s runs or ran in the slot.
func (p *planner) hadVersion(s *Service, old []*Task) bool {
	return p.replaced(s) || slices.ContainsFunc(old, func(t *Task) bool { return t.Key != s.Key })
}

// stalled says that nothing has moved for longer than any service may take: a
// task that cannot be made, or a dependency that never holds.
func (p *planner) stalled() (FailureAction, string) {
	r := p.want.Rollout
	last, limit := r.Since, time.Duration(0)
	for name := range r.Touched {
		s, ok := p.want.Services[name]
		if !ok {
			continue
		}
		if s.Grace < 0 {
			return ActionContinue, "" // it may take for ever to stop, by order
		}
		limit = max(limit, s.Deadline+s.Drain+s.Grace+s.Update.Monitor+s.Update.Delay+s.MinReady)
		for _, tasks := range p.slots[name] {
			for _, t := range tasks {
				if s.OneShot && t.up() {
					return ActionContinue, "" // it takes the time it takes
				}
				for _, at := range []time.Time{t.StartedAt, t.FinishedAt, t.ReadyAt, t.WithdrawnAt, t.StopAt} {
					if at.After(last) {
						last = at
					}
				}
			}
		}
	}
	if limit == 0 {
		return ActionContinue, ""
	}
	if until := last.Add(limit); p.now.Before(until) {
		p.again(until)
		return ActionContinue, ""
	}
	for _, st := range p.plan.Services {
		if r.Touched[st.Service] && st.Phase >= PhaseStopping && st.Phase != PhasePending {
			return p.want.Services[st.Service].Update.OnFailure, fmt.Sprintf("%s made no progress for %s: %s", st.Service, seconds(limit), st.Reason)
		}
	}
	return ActionContinue, ""
}

// complete says that all that the rollout touched is as it should be, and that
// new tasks were watched long enough. A rollback need not watch: what it goes
// back to has been. Nor does the first rollout: it has nothing to go back to,
// and what came up is what the next one goes back to.
func (p *planner) complete() bool {
	r := p.want.Rollout
	done := true
	for _, st := range p.plan.Services {
		if st.Removed {
			done = done && st.Old == 0
			continue
		}
		if !r.Touched[st.Service] {
			continue
		}
		switch st.Phase {
		case PhaseReady:
			done = done && st.Old == 0 && st.Ready >= st.Replicas
		case PhaseCompleted:
			done = done && st.Old == 0
		case PhaseStopped:
		case PhasePending: // not for this node; what fits it shall be ready
			done = done && st.Old == 0 && st.Ready >= p.want.Services[st.Service].Fits
		default:
			done = false
		}
	}
	if !done || !r.Stable || r.State == RollingBack {
		return done
	}
	for i := range p.plan.Services {
		st := &p.plan.Services[i]
		s, ok := p.want.Services[st.Service]
		if !ok || s.Stopped || s.OneShot || !r.Touched[s.Name] {
			continue
		}
		for _, t := range p.currents(&s) {
			if until := p.watchedUntil(&s, t); p.now.Before(until) {
				p.wait(s.Name, t.Slot, until, "its watch to end")
				st.Reason = fmt.Sprintf("is watched for %s", seconds(until.Sub(p.now)))
				done = false
			}
		}
	}
	return done
}
