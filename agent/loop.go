package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/reconciler"
)

// loop observes, plans and starts actions, for ever. Actions run at the same
// time, one per target; how many tasks are created at once is bounded.
type loop struct {
	a      *Agent
	wakeup chan struct{}
	create chan struct{} // semaphore of task creations
	// gather is how long a pass waits for what else happens at the moment of
	// its wake-up. 0 in an agent; a simulation wants one order of events.
	gather time.Duration

	mu       sync.Mutex
	inflight map[string]bool // "stack target"
	plans    map[string]*reconciler.Plan
	failures map[string]*failure // by "stack kind target"
	changed  *signal             // broadcast after each pass
	begun    int                 // passes
	ended    int                 // the newest pass that has ended
}

// failure of an action is retried with back-off; it never ends the loop.
type failure struct {
	err   error
	count int
	next  time.Time
}

// Back-off of a failed action.
const (
	retryFirst = 250 * time.Millisecond
	retryMost  = 30 * time.Second
)

func newLoop(a *Agent) *loop {
	return &loop{
		a: a, wakeup: make(chan struct{}, 1), create: make(chan struct{}, a.cfg.Parallel),
		inflight: map[string]bool{}, plans: map[string]*reconciler.Plan{},
		failures: map[string]*failure{}, changed: newSignal(),
	}
}

// wake makes the loop look again, soon.
func (l *loop) wake() {
	select {
	case l.wakeup <- struct{}{}:
	default:
	}
}

func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(0)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wakeup:
		case <-timer.C:
		}
		if l.gather > 0 {
			time.Sleep(l.gather)
		}
		next := l.pass(ctx, &wg)
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// pass plans every stack once and starts what can start. It returns when to
// pass again if nothing happens.
func (l *loop) pass(ctx context.Context, wg *sync.WaitGroup) time.Time {
	l.mu.Lock()
	l.begun++
	n := l.begun
	l.mu.Unlock()
	v := l.a.w.view()
	if l.a.noteReadiness(v) {
		v = l.a.w.view()
	}
	now := time.Now()
	var next time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	l.mu.Lock()
	for name := range l.plans {
		if v.stacks[name] == nil {
			l.forget(name)
		}
	}
	l.mu.Unlock()
	for name, s := range v.stacks {
		r := v.revisions[name]
		plan := reconciler.PlanStack(l.a.desired(v, s, r), l.a.observed(v, s, r), now)
		sooner(plan.Next)
		l.mu.Lock()
		l.plans[name] = plan
		l.mu.Unlock()
		sooner(l.start(ctx, wg, plan, now))
	}
	l.a.probes.sync(v)
	l.a.flows.sync(ctx, wg, v)
	l.a.listens.sync(ctx, wg, v)
	l.a.holds.sync(ctx, wg, v)
	l.a.hooks.sync(ctx, wg, v)
	l.a.ships.sync(ctx, wg, v)
	sooner(l.a.jobs.sync(ctx, wg, v, now))
	sooner(l.a.oneOffs.sync(ctx, wg, v))
	l.mu.Lock()
	l.ended = n
	l.changed.broadcast()
	l.mu.Unlock()
	return next
}

// forget drops what is remembered of a stack that is gone.
func (l *loop) forget(stack string) {
	delete(l.plans, stack)
	for key := range l.failures {
		if strings.HasPrefix(key, stack+" ") {
			delete(l.failures, key)
		}
	}
	l.a.deriveMu.Lock()
	defer l.a.deriveMu.Unlock()
	delete(l.a.derivedOf, stack)
}

// start launches the actions of a plan whose targets are free. The records of
// all tasks to create are committed first, together.
func (l *loop) start(ctx context.Context, wg *sync.WaitGroup, plan *reconciler.Plan, now time.Time) (retry time.Time) {
	done := make([]chan struct{}, len(plan.Actions))
	ok := make([]bool, len(plan.Actions))
	var creations []int
	for i, act := range plan.Actions {
		target := plan.Stack + " " + act.Target
		l.mu.Lock()
		f := l.failures[target+" "+act.Kind.String()]
		busy := l.inflight[target]
		if f != nil && f.next.After(now) {
			busy = true
			if retry.IsZero() || f.next.Before(retry) {
				retry = f.next
			}
		}
		// What follows an action that is busy or backs off has another pass.
		busy = busy || slices.ContainsFunc(act.After, func(n int) bool { return done[n] == nil })
		if !busy {
			l.inflight[target] = true
		}
		l.mu.Unlock()
		if busy {
			continue
		}
		done[i] = make(chan struct{})
		if act.Kind == reconciler.CreateTask {
			creations = append(creations, i)
			continue
		}
		l.a.spawn(wg, func() {
			defer close(done[i])
			if !ended(act.After, done, ok) {
				l.release(plan.Stack, act)
				return
			}
			ok[i] = l.finish(plan.Stack, act, l.a.do(ctx, plan, act))
		})
	}
	if len(creations) == 0 {
		return retry
	}
	// Networks come first: a task's addresses are taken from them.
	l.a.spawn(wg, func() { l.createTasks(ctx, wg, plan, creations, done, ok) })
	return retry
}

// ended waits for actions of the same pass, which stand before their
// dependents in the plan, and says whether all succeeded.
func ended(after []int, done []chan struct{}, ok []bool) bool {
	all := true
	for _, n := range after {
		<-done[n]
		all = all && ok[n]
	}
	return all
}

func (l *loop) createTasks(ctx context.Context, wg *sync.WaitGroup, plan *reconciler.Plan, creations []int, done []chan struct{}, ok []bool) {
	var ready []reconciler.Action
	for _, i := range creations {
		act := plan.Actions[i]
		if !ended(act.After, done, ok) {
			l.release(plan.Stack, act)
			continue
		}
		ready = append(ready, act)
	}
	if len(ready) == 0 {
		return
	}
	errs := l.a.recordTasks(plan, ready)
	for i, act := range ready {
		if errs[i].err != nil || errs[i].stale {
			l.finish(plan.Stack, act, errs[i].err)
			continue
		}
		id := errs[i].id
		l.a.spawn(wg, func() {
			select {
			case l.create <- struct{}{}:
				defer func() { <-l.create }()
			case <-ctx.Done():
				l.release(plan.Stack, act)
				return
			}
			l.finish(plan.Stack, act, l.a.runTask(ctx, id))
		})
	}
	l.wake()
}

// finish frees the target of an action and remembers whether it failed.
func (l *loop) finish(stack string, act reconciler.Action, err error) bool {
	key := stack + " " + act.Target + " " + act.Kind.String()
	try := 0
	l.mu.Lock()
	delete(l.inflight, stack+" "+act.Target)
	if err == nil {
		delete(l.failures, key)
	} else {
		f := l.failures[key]
		if f == nil {
			f = &failure{}
			l.failures[key] = f
		}
		f.err, f.count = err, f.count+1
		f.next = time.Now().Add(min(retryFirst<<min(f.count-1, 10), retryMost))
		try = f.count
	}
	l.mu.Unlock()
	if err != nil {
		l.a.log.Error("action failed", "stack", stack, "action", act.Kind.String(), "target", act.Target, "try", try, "err", err)
	}
	l.wake()
	return err == nil
}

// release frees the target of an action that did not start, as what it follows
// failed. The pass that this failure woke may have found the target busy.
func (l *loop) release(stack string, act reconciler.Action) {
	l.mu.Lock()
	delete(l.inflight, stack+" "+act.Target)
	l.mu.Unlock()
	l.wake()
}

// forgive lets failed actions of a stack be tried again at once: what made
// them fail may have been put right.
func (l *loop) forgive(stack string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.failures {
		if strings.HasPrefix(key, stack+" ") {
			delete(l.failures, key)
		}
	}
}

// trouble gives the error that an action on one of the targets meets, if any.
func (l *loop) trouble(stack string, targets ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, target := range targets {
		for key, f := range l.failures {
			if strings.HasPrefix(key, stack+" "+target+" ") {
				return f.err
			}
		}
	}
	return nil
}

// anyTrouble gives the error of the failing action of a stack that is the first
// in order of names, if there is any.
func (l *loop) anyTrouble(stack string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range sortedKeys(l.failures) {
		if strings.HasPrefix(key, stack+" ") {
			return l.failures[key].err
		}
	}
	return nil
}

// plan gives the newest plan of a stack and a channel that closes when a
// newer one may be there.
func (l *loop) plan(stack string) (*reconciler.Plan, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plans[stack], l.changed.wait()
}

// settle waits for a pass that begins after the call: its plan knows of
// everything that was committed before.
func (l *loop) settle(ctx context.Context) {
	l.mu.Lock()
	target := l.begun + 1
	l.mu.Unlock()
	l.wake()
	for {
		l.mu.Lock()
		done, changed := l.ended >= target, l.changed.wait()
		l.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// signal tells any number of waiters that something changed.
type signal struct{ ch chan struct{} }

func newSignal() *signal { return &signal{ch: make(chan struct{})} }

func (s *signal) wait() <-chan struct{} { return s.ch }

func (s *signal) broadcast() {
	close(s.ch)
	s.ch = make(chan struct{})
}
