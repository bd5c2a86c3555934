package reconciler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"berth/spec"
)

// machine is a make-believe one: it carries plans out, slowly and not always,
// and checks what must never happen.
type machine struct {
	rng   *rand.Rand
	now   time.Time
	seen  Observed
	want  Stack
	calm  bool // no more faults
	log   []string
	broke string // the first invariant that was broken

	stable    Stack                // the revision that was complete last
	newest    uint64               // revision
	ends      map[string]int       // rollouts, by how they ended
	disturbed map[string]time.Time // when a task of a service failed by itself
}

func newMachine(seed uint64) *machine {
	return &machine{
		rng: rand.New(rand.NewPCG(seed, 1)), now: noon,
		seen:      Observed{Networks: map[string]bool{}, Attempts: map[string]int{}},
		disturbed: map[string]time.Time{}, ends: map[string]int{},
	}
}

func (m *machine) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *machine) note(format string, args ...any) {
	m.log = append(m.log, m.now.Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (m *machine) breach(format string, args ...any) {
	if m.broke == "" {
		m.broke = fmt.Sprintf(format, args...)
		m.note("BREACH %s", m.broke)
	}
}

func (m *machine) task(id string) *Task {
	for i := range m.seen.Tasks {
		if m.seen.Tasks[i].ID == id {
			return &m.seen.Tasks[i]
		}
	}
	return nil
}

// step lets the world move, plans, and carries out some of the plan.
func (m *machine) step() *Plan {
	m.now = m.now.Add(time.Duration(20+m.rng.IntN(400)) * time.Millisecond)
	m.live()
	plan := PlanStack(m.want, m.seen, m.now)
	failed := map[int]bool{}
	for i, a := range plan.Actions {
		if !m.calm && m.chance(20) || slices.ContainsFunc(a.After, func(n int) bool { return failed[n] }) {
			failed[i] = true // not started this time, or it failed before it did anything
			continue
		}
		m.do(a)
	}
	m.check()
	return plan
}

// live is what programs do by themselves. What a program is worth stands in the
// key of its version, after a colon.
func (m *machine) live() {
	for i := range m.seen.Tasks {
		t := &m.seen.Tasks[i]
		_, kind, _ := strings.Cut(t.Key, ":")
		switch t.State {
		case TaskPending:
			if m.calm || m.chance(70) {
				t.State, t.StartedAt = TaskRunning, m.now
				m.becomes(t, !t.Checked)
				if kind == "nostart" {
					t.Unstartable = true
					m.exit(t, 127)
				} else if !m.calm && m.chance(10) {
					m.exit(t, 127)
				}
			}
		case TaskRunning:
			served := !t.ReadyAt.IsZero() && m.now.Sub(t.ReadyAt) > 1500*time.Millisecond
			switch {
			case !t.StopAt.IsZero() && (!t.KilledAt.IsZero() || m.chance(60)):
				m.exit(t, 143)
			case kind == "crash" && m.chance(70), kind == "late" && served && m.chance(40), !m.calm && m.chance(1):
				m.exit(t, 1)
			case m.want.Services[t.Service].OneShot && m.chance(50):
				m.exit(t, map[bool]int{true: 3}[kind == "fails"])
			case t.Checked && !t.Ready && kind == "never", kind == "sick" && !t.UnreadyAt.IsZero():
				t.Unhealthy = t.Unhealthy || m.now.Sub(later(t.StartedAt, t.UnreadyAt)) > 2*time.Second
			case t.Checked && !t.Ready && (m.calm || m.chance(50)):
				m.becomes(t, true)
				t.Unhealthy = false
			case t.Checked && t.Ready && (kind == "sick" && served || !m.calm && m.chance(2)):
				m.becomes(t, false)
			}
			if !t.WithdrawnAt.IsZero() {
				t.Flows = m.rng.IntN(3)
				if m.calm {
					t.Flows = 0
				}
			}
		}
	}
}

// becomes ready, or not ready any more.
func (m *machine) becomes(t *Task, ready bool) {
	t.Ready, t.Healthy = ready, ready && t.Checked
	switch {
	case !ready && !t.ReadySince.IsZero():
		m.disturbed[t.Service] = m.now
		t.ReadySince, t.UnreadyAt = time.Time{}, m.now
	case ready:
		t.ReadySince = m.now
		if t.ReadyAt.IsZero() {
			t.ReadyAt = m.now
		}
	}
}

func (m *machine) exit(t *Task, code int) {
	t.State, t.ExitCode, t.FinishedAt, t.Ready, t.Healthy, t.ReadySince = TaskExited, code, m.now, false, false, time.Time{}
	t.Published, t.Exposed = false, false
	m.disturbed[t.Service] = m.now
	m.note("exit %s %d", t.ID, code)
}

func (m *machine) do(a Action) {
	m.note("%s %s: %s", a.Kind, a.Target, a.Cause)
	t := m.task(a.Target)
	switch a.Kind {
	case EnsureNetwork:
		m.seen.Networks[a.Target] = true
	case CreateTask:
		m.create(a)
	case UpdateTask:
		t.InPlace = m.want.Services[t.Service].InPlace
	case PublishTask:
		if !t.Ready {
			m.breach("%s was published and is not ready", t.ID)
		}
		// The rules may be in force, and nobody knows yet.
		t.Exposed, t.Published, t.WithdrawnAt = true, m.calm || m.chance(80), time.Time{}
	case WithdrawTask:
		m.withdraw(t)
	case StopTask, KillTask:
		if t.inTraffic() {
			m.breach("%s got a signal while it was in the traffic", t.ID)
		}
		if a.Kind == KillTask {
			t.KilledAt = m.now
			break
		}
		t.StopAt = m.now
	case RemoveTask:
		if t.State != TaskExited {
			m.breach("%s was removed while it was %s", t.ID, t.State)
		}
		m.seen.Tasks = slices.DeleteFunc(m.seen.Tasks, func(t Task) bool { return t.ID == a.Target })
	case RemoveNetwork:
		if len(m.seen.Tasks) > 0 && m.want.Removing {
			m.breach("network %s was removed under %d tasks", a.Target, len(m.seen.Tasks))
		}
		delete(m.seen.Networks, a.Target)
	case RemoveStack:
		if len(m.seen.Tasks) > 0 || len(m.seen.Networks) > 0 {
			m.breach("the stack was forgotten with %d tasks and %d networks", len(m.seen.Tasks), len(m.seen.Networks))
		}
		m.want.Services = nil
	case RollBack, PauseRollout, CompleteRollout:
		m.rollout(a)
	}
}

// withdraw takes t out of the traffic, unless that fails; and looks whether the
// others are enough: all replicas, or those that served, but for those that a
// stop-first replacement may leave out.
func (m *machine) withdraw(t *Task) {
	s, wanted := m.want.Services[t.Service]
	before := m.serving(t.Service)
	serves := t.Ready && t.Published && t.up()
	t.Published, t.Exposed, t.WithdrawnAt = false, !m.calm && m.chance(10), m.now
	if !wanted || s.Stopped || s.OneShot || m.want.Removing || !serves || m.disturbed[t.Service].After(m.now.Add(-time.Second)) {
		return
	}
	need := s.Replicas
	for i := range m.seen.Tasks {
		if e := &m.seen.Tasks[i]; e.Service == t.Service && e.Slot <= s.Replicas && e.State == TaskExited && e.ExitCode == 0 {
			need-- // it has done what it was for
		}
	}
	need = min(need, before)
	if s.Order == StopFirst {
		need -= s.Update.Parallelism
		if s.Update.Parallelism == 0 {
			need = 0
		}
	}
	if after := m.serving(t.Service); after < need {
		m.breach("%s left the traffic: %d of %d serve", t.ID, after, need)
	}
}

// serving counts the slots of a service with a task that takes traffic.
func (m *machine) serving(service string) int {
	slots := map[int]bool{}
	for i := range m.seen.Tasks {
		if t := &m.seen.Tasks[i]; t.Service == service && t.Ready && t.Published && t.up() && t.StopAt.IsZero() {
			slots[t.Slot] = true
		}
	}
	return len(slots)
}

func (m *machine) create(a Action) {
	s := m.want.Services[a.Service]
	id := fmt.Sprintf("%s-%d-%d", a.Service, a.Slot, a.Attempt)
	if m.seen.Attempts[a.Target] >= a.Attempt {
		m.breach("id %s was given twice", id)
	}
	for _, n := range s.Networks {
		if !m.seen.Networks[n] {
			m.breach("%s was created before network %s", id, n)
		}
	}
	m.seen.Attempts[a.Target] = a.Attempt
	for _, t := range m.seen.Tasks {
		if s.Order == StopFirst && t.live() && t.Service == a.Service && t.Slot == a.Slot {
			m.breach("stop-first: %s was created while %s lives", id, t.ID)
		}
	}
	m.seen.Tasks = append(m.seen.Tasks, Task{
		ID: id, Service: a.Service, Slot: a.Slot, Attempt: a.Attempt, Key: s.Key, InPlace: s.InPlace,
		State: TaskPending, Checked: strings.HasPrefix(a.Service, "c"), Flows: -1,
		Failures: a.Failures, Restarts: a.Restarts, Parents: a.Parents,
	})
}

// check holds what must be true at every moment.
func (m *machine) check() {
	liveIn := map[string]int{}
	for i := range m.seen.Tasks {
		t := &m.seen.Tasks[i]
		if t.live() && t.StopAt.IsZero() {
			liveIn[fmt.Sprint(t.Service, "/", t.Slot)]++
		}
	}
	for slot, n := range liveIn {
		if n > 4 { // one for each revision and one more
			m.breach("slot %s has %d live tasks", slot, n)
		}
	}
}

// settled says that the plan is done and everything is as wanted.
func (m *machine) settled(p *Plan) bool {
	if !p.Settled() {
		return false
	}
	for _, s := range p.Services {
		if s.Phase != PhaseReady && s.Phase != PhaseCompleted && s.Phase != PhaseStopped {
			return false
		}
	}
	return true
}

// wanted draws a stack: up to four services, each of which may depend on the
// ones before it.
func wanted(t *rapid.T, revision uint64) Stack {
	out := Stack{Name: "sim", Revision: revision, Services: map[string]Service{}, Networks: []string{"net"}}
	n := rapid.IntRange(1, 4).Draw(t, "services")
	for i := range n {
		name := []string{"a", "c", "b", "cc"}[i] // those with a c have a healthcheck
		s := Service{
			Name: name, Replicas: rapid.IntRange(0, 3).Draw(t, name+" replicas"),
			Key:     fmt.Sprint("k", rapid.IntRange(0, 2).Draw(t, name+" key")),
			InPlace: fmt.Sprint("i", rapid.IntRange(0, 1).Draw(t, name+" in place")),
			Order:   Order(rapid.IntRange(0, 1).Draw(t, name+" order")), Update: Update{Parallelism: rapid.IntRange(0, 2).Draw(t, name+" parallelism")},
			Networks: []string{"net"}, Drain: 2 * time.Second, Grace: time.Second,
			Stopped: rapid.IntRange(0, 9).Draw(t, name+" stopped") == 0,
		}
		if i == 0 && n > 1 {
			s.OneShot = rapid.Bool().Draw(t, "one-shot")
		}
		for _, dep := range []string{"a", "c", "b", "cc"}[:i] {
			if !rapid.Bool().Draw(t, name+" needs "+dep) {
				continue
			}
			condition := spec.DependsStarted
			switch {
			case out.Services[dep].OneShot:
				condition = spec.DependsCompleted
			case strings.HasPrefix(dep, "c"):
				condition = spec.DependsHealthy
			}
			if out.Services[dep].Stopped {
				continue // it would wait for ever, rightly
			}
			s.DependsOn = append(s.DependsOn, spec.Dependency{Service: dep, Condition: condition, Required: true})
		}
		out.Services[name] = s
	}
	return out
}

// A loop over random stacks, faults and timings never breaks an invariant,
// and once the faults stop it arrives, in bounded steps.
func TestPlanStack_FaultsAndChanges_NeverBreakAnInvariant_AndEndWhereWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(rapid.Uint64().Draw(t, "seed"))
		for revision := range uint64(rapid.IntRange(1, 3).Draw(t, "revisions")) {
			m.want = wanted(t, revision+1)
			m.calm = false
			for range rapid.IntRange(5, 60).Draw(t, "steps") {
				m.step()
			}
		}
		m.calm = true
		removing := rapid.Bool().Draw(t, "remove at the end")
		m.want.Removing = removing
		for i := 0; ; i++ {
			p := m.step()
			if m.broke != "" {
				break
			}
			if removing && m.want.Services == nil {
				break
			}
			if !removing && m.settled(p) {
				break
			}
			if failedJob(p) && i > 400 {
				break // a one-shot failed for good: dependents rightly wait
			}
			if i > 2000 {
				t.Fatalf("no end after %d steps:\n%s\nplan:\n%s", i, tail(m.log), p)
			}
		}
		if m.broke != "" {
			t.Fatalf("%s\n%s", m.broke, tail(m.log))
		}
	})
}

func failedJob(p *Plan) bool {
	return slices.ContainsFunc(p.Services, func(s Status) bool { return s.Phase == PhaseFailed })
}

func tail(log []string) string { return strings.Join(log[max(0, len(log)-60):], "\n") }

// While nothing fails, a start-first replacement never has fewer published
// tasks than the service has replicas.
func TestPlanStack_StartFirst_NeverServesWithFewer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(rapid.Uint64().Draw(t, "seed"))
		m.calm = true
		replicas := rapid.IntRange(1, 4).Draw(t, "replicas")
		m.want = Stack{Name: "sim", Revision: 1, Networks: []string{"net"}, Services: map[string]Service{"c": {
			Name: "c", Key: "k1", Replicas: replicas, Update: Update{Parallelism: rapid.IntRange(0, 3).Draw(t, "parallelism")},
			Networks: []string{"net"}, Drain: time.Second, Grace: time.Second,
		}}}
		run := func() {
			for i := 0; ; i++ {
				if p := m.step(); m.settled(p) {
					return
				}
				if i > 1000 {
					t.Fatalf("no end:\n%s", tail(m.log))
				}
			}
		}
		run()
		s := m.want.Services["c"]
		s.Key = "k2"
		m.want.Services = map[string]Service{"c": s}
		for i := 0; ; i++ {
			p := m.step()
			serving := 0
			for _, task := range m.seen.Tasks {
				if task.Published && task.up() {
					serving++
				}
			}
			if serving < replicas {
				t.Fatalf("%d of %d serve:\n%s", serving, replicas, tail(m.log))
			}
			if m.settled(p) {
				return
			}
			if i > 1000 {
				t.Fatalf("no end:\n%s", tail(m.log))
			}
		}
	})
}

func TestPlanStack_SameSeed_SameLog(t *testing.T) {
	play := func() []string {
		m := newMachine(7)
		m.want = stack(web(3), web(2, named("c"), needs("web", spec.DependsStarted)))
		for range 300 {
			m.step()
		}
		return m.log
	}
	if a, b := play(), play(); !slices.Equal(a, b) {
		t.Error("one seed gave two different logs")
	}
}
