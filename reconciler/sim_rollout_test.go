package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"berth/spec"
)

// up makes another version the wanted one, as the agent does.
func (m *machine) up(services map[string]Service, canary string) {
	m.newest++
	m.lead(Stack{Revision: m.newest, Services: services}, Progressing)
	m.want.Rollout.Canary = canary
	m.note("up %d: %s, canary %q", m.newest, m.versions(), canary)
}

func (m *machine) versions() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m.want.Services)) {
		s := m.want.Services[name]
		out = append(out, fmt.Sprintf("%s=%s*%d", name, s.Key, s.Replicas))
	}
	return strings.Join(out, " ")
}

// lead begins the rollout to a stack. What an earlier one touched and did not
// finish is touched by this one too.
func (m *machine) lead(to Stack, state RolloutState) {
	touched := map[string]bool{}
	for name, s := range to.Services {
		touched[name] = m.want.Services[name].Key != s.Key
	}
	for name := range m.want.Services {
		if _, still := to.Services[name]; !still {
			touched[name] = true
		}
	}
	if m.want.Rollout != nil {
		for name := range m.want.Rollout.Touched {
			touched[name] = true
		}
	}
	maps.DeleteFunc(touched, func(_ string, is bool) bool { return !is })
	m.want = Stack{Name: "sim", Revision: to.Revision, Services: to.Services, Networks: []string{"net"}, Rollout: &Rollout{
		State: state, Stable: m.stable.Revision != 0, Touched: touched, Since: m.now,
	}}
}

// rollout carries out what the planner decides about it.
func (m *machine) rollout(a Action) {
	r := m.want.Rollout
	switch a.Kind {
	case RollBack:
		if r.State != Progressing {
			m.breach("a rollback is followed by another: %s", a.Cause)
		}
		if !r.Stable {
			m.breach("there is nothing to go back to: %s", a.Cause)
		}
		m.ends["went back"]++
		m.back()
	case PauseRollout:
		next := *r
		next.State = Paused
		if r.State == RollingBack {
			next.State = RollbackPaused
		}
		m.ends["paused"]++
		m.want.Rollout = &next
	case CompleteRollout:
		m.complete()
	}
}

// back makes the stable revision the wanted one: all at once, and a failure
// pauses.
func (m *machine) back() {
	services := maps.Clone(m.stable.Services)
	for name, s := range services {
		s.Update = Update{OnFailure: ActionPause, Parallelism: s.Update.Parallelism}
		services[name] = s
	}
	m.lead(Stack{Revision: m.stable.Revision, Services: services}, RollingBack)
}

// complete checks that the revision is there, and makes it the stable one.
func (m *machine) complete() {
	for name, s := range m.want.Services {
		if s.Stopped || !m.want.Rollout.Touched[name] || s.OneShot {
			continue
		}
		n := 0
		for i := range m.seen.Tasks {
			if t := &m.seen.Tasks[i]; t.Service == name && t.live() && t.Key != s.Key {
				m.breach("the rollout is complete, and %s of another version lives", t.ID)
			} else if t.Service == name && t.Ready && t.Published {
				n++
			}
		}
		if n < s.Replicas {
			m.breach("the rollout is complete, and %d of %d tasks of %s serve", n, s.Replicas, name)
		}
	}
	if m.want.Rollout.State == RollingBack {
		m.ends["rolled back"]++
	} else {
		m.ends["complete"]++
	}
	services := maps.Clone(m.want.Services)
	for name, s := range services {
		s.Completed = 0
		if s.OneShot {
			s.Completed = s.Replicas
		}
		services[name] = s
	}
	m.want.Services, m.want.Rollout = services, nil
	m.stable = m.want
}

// person does one of the things that people do to a rollout.
func (m *machine) person() {
	r := m.want.Rollout
	change := func(f func(r *Rollout)) {
		next := *r
		f(&next)
		next.Since = m.now
		m.want.Rollout = &next
	}
	switch n := m.rng.IntN(6); {
	case r == nil:
	case n == 0 && r.State == Progressing:
		change(func(r *Rollout) { r.State = Paused })
		m.note("pause")
	case n < 3 && (r.State == Paused || r.State == RollbackPaused):
		change(func(r *Rollout) {
			r.State = map[RolloutState]RolloutState{Paused: Progressing, RollbackPaused: RollingBack}[r.State]
		})
		m.note("resume")
	case n == 3 && r.Canary != "":
		change(func(r *Rollout) { r.State, r.Canary = Progressing, "" })
		m.note("promote")
	case n == 4 && r.Stable && r.State != RollingBack && r.State != RollbackPaused:
		m.note("undo")
		m.back()
	}
}

// release draws a version of the services: good ones, or some that fail in one
// of several ways.
func release(t *rapid.T, n int, good bool) map[string]Service {
	out := map[string]Service{}
	kinds := []string{"", "", "", "crash", "late", "never", "sick", "nostart"}
	for i, name := range []string{"job", "c", "b", "cc"} { // those with a c have a healthcheck
		draw := func(what string, most int) int { return rapid.IntRange(0, most).Draw(t, fmt.Sprint(n, name, what)) }
		if name == "job" && draw(" there", 2) > 0 || name == "b" && draw(" there", 3) == 0 {
			continue
		}
		key := fmt.Sprint("k", draw(" key", 3))
		if kind := kinds[draw(" kind", len(kinds)-1)]; !good && kind != "" {
			key += ":" + kind
		}
		ms := func(what string, most int) time.Duration {
			return time.Duration(draw(what, most)) * 500 * time.Millisecond
		}
		s := Service{
			Name: name, Key: key, InPlace: "i", Replicas: 1 + draw(" replicas", 2), Networks: []string{"net"},
			Drain: ms(" drain", 4), Grace: time.Second, Deadline: 6 * time.Second, MinReady: ms(" min-ready", 2),
			Update: Update{
				Parallelism: draw(" parallelism", 2), Monitor: 500*time.Millisecond + ms(" monitor", 5), Delay: ms(" delay", 1),
				OnFailure: []FailureAction{ActionRollback, ActionRollback, ActionPause}[draw(" action", 2)],
			},
		}
		if draw(" ratio", 4) == 0 {
			s.Update.MaxFailureRatio = .5
		}
		switch name {
		case "job":
			s.OneShot, s.Replicas, s.Key = true, 1, "k"+fmt.Sprint(draw(" key", 3))
			if !good && draw(" fails", 2) == 0 {
				s.Key += ":fails"
			}
		case "b":
			s.Order, s.Replicas = StopFirst, 1+draw(" two", 1)
		}
		for _, dep := range []string{"job", "c", "b"}[:min(i, 3)] {
			d, there := out[dep]
			if !there || draw(" needs "+dep, 1) == 0 {
				continue
			}
			condition := spec.DependsStarted
			if d.OneShot {
				condition = spec.DependsCompleted
			} else if dep == "c" {
				condition = spec.DependsHealthy
			}
			s.DependsOn = append(s.DependsOn, spec.Dependency{Service: dep, Condition: condition, Required: true})
		}
		out[name] = s
	}
	return out
}

// ended says that a rollout has ended, or waits for a person.
func (m *machine) ended() bool {
	r := m.want.Rollout
	return r == nil || r.State == Paused || r.State == RollbackPaused || r.Canary != ""
}

// leap lets the time pass until the plan has something to do.
func (m *machine) leap(p *Plan) {
	if len(p.Actions) == 0 && p.Next.After(m.now) {
		m.now = p.Next
	}
}

// history is a machine with a good first version, and some good and bad ones
// after it, each overtaken by the next at any time.
func history(t *rapid.T) *machine {
	m := newMachine(rapid.Uint64().Draw(t, "seed"))
	m.calm = true
	m.up(release(t, 0, true), "")
	for i := 0; m.want.Rollout != nil; i++ {
		if m.step(); i > 1000 {
			t.Fatalf("the first rollout has no end:\n%s", tail(m.log))
		}
	}
	for n := range rapid.IntRange(1, 4).Draw(t, "versions") {
		m.calm = false
		canary := ""
		if rapid.IntRange(0, 4).Draw(t, "canary") == 0 {
			canary = "c"
		}
		m.up(release(t, n+1, false), canary)
		for range rapid.IntRange(3, 80).Draw(t, "steps") {
			m.leap(m.step())
			if m.chance(5) {
				m.person()
			}
		}
	}
	return m
}

func TestPlanStack_Rollouts_SameSeed_SameLog(t *testing.T) {
	draw := rapid.Custom(func(t *rapid.T) []string { return history(t).log })
	for seed := range 20 {
		if a, b := draw.Example(seed), draw.Example(seed); !slices.Equal(a, b) {
			t.Errorf("seed %d gave two different logs", seed)
		}
	}
}

// Rollouts of good and bad versions, with faults, crashes of programs and
// people who change their mind: no invariant breaks, and each rollout ends.
func TestPlanStack_Rollouts_NeverServeWithFewer_AndEnd(t *testing.T) {
	ends := map[string]int{}
	play := func(t *rapid.T) {
		m := history(t)
		m.calm = true
		var p *Plan
		for i := 0; m.broke == "" && !m.ended(); i++ {
			p = m.step()
			m.leap(p)
			if i > 3000 {
				t.Fatalf("the rollout has no end:\n%s\nplan:\n%s", tail(m.log), p)
			}
		}
		if m.broke != "" {
			t.Fatalf("%s\n%s", m.broke, tail(m.log))
		}
		for end, n := range m.ends {
			ends[end] += n
		}
	}
	for range 10 {
		rapid.Check(t, play)
	}
	t.Logf("rollouts by end: %v", ends)
}
