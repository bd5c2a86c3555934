package reconciler

import (
	"slices"
	"testing"
	"time"

	"berth/spec"
)

// during is the rollout of a stack whose services are all touched, begun a
// minute ago, with a stable revision behind it.
func during(st Stack, more ...func(*Rollout)) Stack {
	r := &Rollout{Stable: true, Touched: map[string]bool{}, Since: ago(time.Minute)}
	for name := range st.Services {
		r.Touched[name] = true
	}
	for _, f := range more {
		f(r)
	}
	st.Rollout = r
	return st
}

func at(state RolloutState) func(*Rollout)    { return func(r *Rollout) { r.State = state } }
func theFirst(r *Rollout)                     { r.Stable = false }
func since(at time.Time) func(*Rollout)       { return func(r *Rollout) { r.Since = at } }
func canaryOf(service string) func(*Rollout)  { return func(r *Rollout) { r.Canary = service } }
func alsoTouched(name string) func(*Rollout)  { return func(r *Rollout) { r.Touched[name] = true } }
func untouched(name string) func(*Rollout)    { return func(r *Rollout) { delete(r.Touched, name) } }
func minReady(d time.Duration) func(*Service) { return func(s *Service) { s.MinReady = d } }

// watched is a service with what a silent file has: a watch of 10 s, a deadline
// of 2 min.
func watched(n int, more ...func(*Service)) Service {
	s := web(n, func(s *Service) {
		s.Update.Monitor, s.Deadline = 10*time.Second, 2*time.Minute
	})
	for _, f := range more {
		f(&s)
	}
	return s
}

func updating(f func(*Update)) func(*Service) { return func(s *Service) { f(&s.Update) } }

func parallel(n int) func(*Service)        { return updating(func(u *Update) { u.Parallelism = n }) }
func delay(d time.Duration) func(*Service) { return updating(func(u *Update) { u.Delay = d }) }
func onFailure(a FailureAction) func(*Service) {
	return updating(func(u *Update) { u.OnFailure = a })
}

func tolerates(ratio float64) func(*Service) {
	return updating(func(u *Update) { u.MaxFailureRatio = ratio })
}

// fresh is a task that started a second before it was ready, which is d ago.
func fresh(d time.Duration) func(*Task) {
	return func(t *Task) {
		t.Published, t.ReadyAt, t.ReadySince, t.StartedAt = false, ago(d), ago(d), ago(d+time.Second)
	}
}

// serving is a task that was ready d ago, and takes traffic.
func serving(d time.Duration) func(*Task) {
	return func(t *Task) { fresh(d)(t); t.Published, t.Exposed = true, true }
}

// lostReady is a task that was ready until d ago.
func lostReady(d time.Duration) func(*Task) {
	return func(t *Task) {
		t.Ready, t.Checked, t.ReadySince, t.UnreadyAt, t.Reason = false, true, time.Time{}, ago(d), "probe exits 1"
	}
}

// neverReady is a task that started d ago.
func neverReady(d time.Duration) func(*Task) {
	return func(t *Task) { unready(t); t.StartedAt = ago(d) }
}

func unhealthy(t *Task)               { t.Unhealthy, t.Checked, t.Reason = true, true, "probe exits 1" }
func afterFailures(n int) func(*Task) { return func(t *Task) { t.Failures = n } }
func exclusive(t *Task)               { t.Exclusive = true }
func doubtful(t *Task)                { t.Doubtful = true }

// readyAt is when the exited task was ready.
func readyAt(d time.Duration) func(*Task) { return func(t *Task) { t.ReadyAt = ago(d) } }

func flows(n int, idle time.Duration) func(*Task) {
	return func(t *Task) { t.Flows, t.Idle = n, idle }
}

// rollouts are goldens like cases, for the rules of rollouts.
var rollouts = []goldenCase{
	// When a new task takes traffic.
	{"the first new task stays out of the traffic while it is watched", during(stack(watched(2))), []Task{running("web", 1, 1, "k1"), running("web", 2, 1, "k1"), running("web", 1, 2, "k2", fresh(4*time.Second))}},
	{"the first new task takes traffic after its watch", during(stack(watched(2))), []Task{running("web", 1, 1, "k1"), running("web", 2, 1, "k1"), running("web", 1, 2, "k2", fresh(10*time.Second))}},
	{"what the first task has shown counts for the others", during(stack(watched(2))), []Task{running("web", 1, 2, "k2", serving(3*time.Second)), running("web", 2, 1, "k1"), running("web", 2, 2, "k2", fresh(time.Second))}},
	{"in the first rollout nobody is watched out of the traffic", during(stack(watched(1)), theFirst), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", fresh(time.Second))}},
	{"in a rollback nobody is watched out of the traffic", during(stack(watched(1)), at(RollingBack)), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", fresh(time.Second))}},
	{"where nobody serves a new task takes traffic at once", during(stack(watched(1))), []Task{running("web", 1, 1, "k1", failing, withdrawn(time.Minute, 0)), running("web", 1, 2, "k2", fresh(time.Second))}},
	{"a service that is not touched waits for no watch", during(stack(watched(1)), untouched("web")), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", fresh(time.Second))}},
	{"min-ready is waited for before traffic", stack(watched(1, minReady(5*time.Second))), []Task{running("web", 1, 1, "k2", fresh(2*time.Second))}},
	{"min-ready begins anew when readiness was lost", stack(watched(1, minReady(5*time.Second))), []Task{running("web", 1, 1, "k2", fresh(2*time.Second), readyAt(time.Minute))}},
	{"a doubtful task stays out of the traffic", stack(watched(1)), []Task{running("web", 1, 1, "k2", fresh(20*time.Second), doubtful)}},

	// Which slots are replaced.
	{"the next slot waits for the delay", during(stack(watched(2, delay(10*time.Second)))), []Task{running("web", 1, 2, "k2", serving(4*time.Second)), running("web", 2, 1, "k1")}},
	{"the next slot begins after the delay", during(stack(watched(2, delay(10*time.Second)))), []Task{running("web", 1, 2, "k2", serving(11*time.Second)), running("web", 2, 1, "k1")}},
	{"two slots at a time", during(stack(watched(4, parallel(2)))), []Task{running("web", 1, 1, "k1"), running("web", 2, 1, "k1"), running("web", 3, 1, "k1"), running("web", 4, 1, "k1")}},
	{"parallelism 0 is all at once", during(stack(watched(3, parallel(0)))), []Task{running("web", 1, 1, "k1"), running("web", 2, 1, "k1"), running("web", 3, 1, "k1")}},
	{"a new slot of a touched service waits for its turn", during(stack(watched(3))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", neverReady(time.Second))}},
	{"new slots of a service that only grows come all at once", during(stack(watched(3)), untouched("web")), []Task{running("web", 1, 1, "k2")}},
	{"a paused rollout replaces no further slot", during(stack(watched(2)), at(Paused)), []Task{running("web", 1, 2, "k2", serving(30*time.Second)), running("web", 1, 1, "k1"), running("web", 2, 1, "k1")}},
	{"a paused rollout still restarts what fails", during(stack(watched(2)), at(Paused)), []Task{running("web", 1, 2, "k2", exited(1, time.Second, 40*time.Second, 0)), running("web", 2, 1, "k1")}},
	{"a canary renews the first slot only", during(stack(watched(3, parallel(3))), canaryOf("web")), []Task{running("web", 1, 1, "k1"), running("web", 2, 1, "k1"), running("web", 3, 1, "k1")}},
	{"a canary's predecessor stays beside it", during(stack(watched(2)), canaryOf("web")), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", serving(time.Minute)), running("web", 2, 1, "k1")}},
	{"a promoted canary goes on with the others", during(stack(watched(2))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", serving(time.Minute)), running("web", 2, 1, "k1")}},
	{"a version that was overtaken before it served ends", during(stack(watched(1))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k0", neverReady(time.Second))}},
	{"a task beyond the replicas serves until the replicas do", during(stack(watched(1))), []Task{running("web", 1, 1, "k1", failing, withdrawn(time.Minute, 0)), running("web", 2, 1, "k1")}},
	{"a task that was told to stop is not kept by a rollback", during(stack(watched(1)), at(RollingBack)), []Task{running("web", 1, 1, "k2", stopping(time.Second)), running("web", 1, 2, "k1")}},
	{"a task that stops and is started again is waited for", stack(watched(1)), []Task{running("web", 1, 1, "k2", stopping(time.Second))}},

	// What is a failure, and what follows.
	{"an exit within the watch rolls back", during(stack(watched(2))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, time.Second, 8*time.Second, 0), readyAt(8*time.Second)), running("web", 2, 1, "k1")}},
	{"an exit after the watch is a restart", during(stack(watched(2))), []Task{running("web", 1, 2, "k2", exited(1, time.Second, 30*time.Second, 0), readyAt(30*time.Second), func(t *Task) { t.WithdrawnAt = ago(time.Second) }), running("web", 2, 1, "k1")}},
	{"a failure may pause", during(stack(watched(1, onFailure(ActionPause)))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, time.Second, time.Second, 0))}},
	{"a failure may be no matter", during(stack(watched(1, onFailure(ActionContinue)))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, time.Second, time.Second, 0))}},
	{"max_failure_ratio tolerates one of three", during(stack(watched(3, tolerates(.5), parallel(3)))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, time.Second, time.Second, 0)), running("web", 2, 1, "k1"), running("web", 3, 1, "k1")}},
	{"max_failure_ratio does not tolerate two of three", during(stack(watched(3, tolerates(.5), parallel(3)))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, time.Second, time.Second, 0)), running("web", 2, 1, "k1"), running("web", 2, 2, "k2", exited(1, time.Second, time.Second, 0)), running("web", 3, 1, "k1")}},
	{"the first rollout has nothing to go back to", during(stack(watched(1)), theFirst), []Task{running("web", 1, 1, "k2", exited(1, time.Second, time.Second, 9))}},
	{"a new service may fail until its database is there", during(stack(watched(1))), []Task{running("web", 1, 3, "k2", exited(1, time.Second, time.Second, 2))}},
	{"a new service that fails five times rolls back", during(stack(watched(1))), []Task{running("web", 1, 5, "k2", exited(1, time.Second, time.Second, 4))}},
	{"a program that can't be run rolls back at once", during(stack(watched(1))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(127, time.Second, 0, 0), func(t *Task) { t.Unstartable, t.Reason = true, "start \"nosuch\": not found" })}},
	{"an unhealthy task within the watch rolls back", during(stack(watched(1))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", fresh(5*time.Second), lostReady(time.Second), unhealthy)}},
	{"readiness lost within the watch rolls back", during(stack(watched(1))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", fresh(5*time.Second), lostReady(time.Second))}},
	{"readiness lost after the watch is no failure", during(stack(watched(2))), []Task{running("web", 1, 2, "k2", serving(30*time.Second), lostReady(time.Second)), running("web", 2, 1, "k1")}},
	{"a task has its deadline to become ready", during(stack(watched(1))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", neverReady(50*time.Second))}},
	{"a task that is not ready by its deadline rolls back", during(stack(watched(1)), since(ago(3*time.Minute))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", neverReady(2*time.Minute))}},
	{"a rollout without progress rolls back", during(stack(watched(1, needs("db", spec.DependsHealthy)), watched(1, named("db"))), untouched("db"), since(ago(time.Hour))), []Task{running("web", 1, 1, "k1"), running("db", 1, 1, "k2", neverReady(time.Hour))}},
	{"failures from before it was resumed do not count", during(stack(watched(1)), since(ago(time.Second))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, 2*time.Second, time.Second, 0), func(t *Task) { t.Retry = true })}},
	{"a rollback that fails pauses", during(stack(watched(1, onFailure(ActionPause))), at(RollingBack)), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, time.Second, time.Second, 0))}},
	{"a rollback is never followed by another", during(stack(watched(1)), at(RollingBack)), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, time.Second, time.Second, 0))}},
	{"a canary that fails rolls back, however late", during(stack(watched(2)), canaryOf("web"), since(ago(time.Hour))), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, time.Second, 30*time.Minute, 0), readyAt(30*time.Minute)), running("web", 2, 1, "k1")}},

	// The end of a rollout.
	{"a rollout is watched to its end", during(stack(watched(2))), []Task{running("web", 1, 2, "k2", serving(30*time.Second)), running("web", 2, 2, "k2", serving(4*time.Second))}},
	{"a rollout is complete after its watch", during(stack(watched(2))), []Task{running("web", 1, 2, "k2", serving(30*time.Second)), running("web", 2, 2, "k2", serving(10*time.Second))}},
	{"a rollout is not complete while an old task drains", during(stack(watched(1))), []Task{running("web", 1, 1, "k1", withdrawn(time.Second, 3)), running("web", 1, 2, "k2", serving(30*time.Second))}},
	{"a rollout that changes limits is complete when they are changed", during(stack(watched(1))), []Task{running("web", 1, 2, "k2", serving(30*time.Second), func(t *Task) { t.InPlace = "i0" })}},
	{"the first rollout is complete when it is ready", during(stack(watched(1)), theFirst), []Task{running("web", 1, 1, "k2", serving(time.Second))}},
	{"a rollback is complete when it is ready", during(stack(watched(1)), at(RollingBack)), []Task{running("web", 1, 2, "k2", serving(time.Second))}},
	{"a removed service waits for what is replaced", during(stack(watched(1)), alsoTouched("cron")), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", fresh(time.Second)), running("cron", 1, 1, "k2")}},
	{"a removed service ends when the others are replaced", during(stack(watched(1)), alsoTouched("cron")), []Task{running("web", 1, 2, "k2", serving(30*time.Second)), running("cron", 1, 1, "k2")}},
	{"a removed service that holds a volume goes first", during(stack(watched(1, stopFirst)), alsoTouched("db")), []Task{running("db", 1, 1, "k1", exclusive)}},
	{"a one-shot that completed before does not run again", during(stack(watched(1, needs("job", spec.DependsCompleted)), watched(1, named("job"), oneShot, func(s *Service) { s.Completed = 1 }))), []Task{running("web", 1, 1, "k1")}},
	{"what a one-shot left that completed before is removed", stack(watched(1, named("job"), oneShot, func(s *Service) { s.Completed = 1 })), []Task{running("job", 1, 2, "k3", exited(3, time.Second, time.Second, 0))}},
	{"a failing one-shot rolls back", during(stack(watched(1, needs("job", spec.DependsCompleted)), watched(1, named("job"), oneShot))), []Task{running("web", 1, 1, "k1"), running("job", 1, 1, "k2", exited(3, time.Second, time.Second, 0))}},

	// Health outside of rollouts.
	{"an unhealthy task that serves has its successor first", stack(watched(1)), []Task{running("web", 1, 1, "k2", serving(time.Hour), unhealthy)}},
	{"an unhealthy task ends when its successor serves", stack(watched(1)), []Task{running("web", 1, 1, "k2", serving(time.Hour), unhealthy), running("web", 1, 2, "k2", serving(time.Second), afterFailures(1), func(t *Task) { t.StartedAt = ago(time.Minute) })}},
	{"an unhealthy task that does not serve ends first", stack(watched(1)), []Task{running("web", 1, 1, "k2", fresh(time.Hour), lostReady(time.Minute), unhealthy)}},
	{"an unhealthy task of a stop-first service ends first", stack(watched(1, stopFirst)), []Task{running("web", 1, 1, "k2", serving(time.Hour), unhealthy)}},
	{"unhealthy tasks are replaced one at a time", stack(watched(3)), []Task{running("web", 1, 1, "k2", serving(time.Hour), unhealthy), running("web", 2, 1, "k2", serving(time.Hour), unhealthy), running("web", 3, 1, "k2", serving(time.Hour))}},
	{"restart no leaves an unhealthy task alone", stack(watched(1, policy(spec.RestartNo, 0))), []Task{running("web", 1, 1, "k2", serving(time.Hour), unhealthy)}},

	// The drain.
	{"connections that are used keep a task", stack(watched(1)), []Task{running("web", 1, 1, "k1", withdrawn(8*time.Second, 2), flows(2, time.Second)), running("web", 1, 2, "k2")}},
	{"idle connections do not keep a task", stack(watched(1)), []Task{running("web", 1, 1, "k1", withdrawn(8*time.Second, 2), flows(2, 5*time.Second)), running("web", 1, 2, "k2")}},
}

func TestPlanStack_GoldenPlansOfRollouts(t *testing.T) { golden(t, rollouts) }

// Each rule is one golden: two of one name would share it.
func TestPlanStack_GoldenPlans_HaveNamesOfTheirOwn(t *testing.T) {
	var names []string
	for _, c := range slices.Concat(cases, rollouts) {
		if slices.Contains(names, c.name) {
			t.Errorf("%q is there twice", c.name)
		}
		names = append(names, c.name)
	}
}
