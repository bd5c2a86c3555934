package agent

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"berth/api"
	"berth/crash"
	"berth/reconciler"
	"berth/spec"
	"berth/store"
)

// jobs starts the runs of jobs that a schedule asks for, and keeps the newest
// runs of each. A run is a one-off task; its record is its history.
//
// What falls due is read from the records (store.JobState.Fired), so a new agent
// goes on where the last one was. The fire is noted in the commit that records
// the run: it is never run twice, and a run that an agent's death cuts off while
// it is made is one that failed.
type jobs struct {
	a    *Agent
	mu   sync.Mutex
	busy map[string]bool // by "stack job", or by task
}

func newJobs(a *Agent) *jobs { return &jobs{a: a, busy: map[string]bool{}} }

// keptRuns is how many runs of a job are remembered, with their logs.
const keptRuns = 10

// runPatience is how long a run waits for what its job depends on.
const runPatience = 2 * time.Minute

// claim says that the caller, and nobody else, does something.
func (j *jobs) claim(key string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.busy[key] {
		return false
	}
	j.busy[key] = true
	return true
}

func (j *jobs) free(key string) {
	j.mu.Lock()
	delete(j.busy, key)
	j.mu.Unlock()
	j.a.loop.wake()
}

// sync starts what is due. It returns when to look again.
func (j *jobs) sync(ctx context.Context, wg *sync.WaitGroup, v view, now time.Time) (next time.Time) {
	j.collect(ctx, wg, v)
	for stack, s := range v.stacks {
		r := v.revisions[stack]
		if s.Removing != nil {
			continue
		}
		for _, name := range sortedKeys(r.Stack.Jobs) {
			job := r.Stack.Jobs[name]
			f := dueFire(&job, later(s.Jobs[name].Fired, r.Created), j.a.started, now)
			if f.next.IsZero() || f.next.After(now) {
				if next.IsZero() || !f.next.IsZero() && f.next.Before(next) {
					next = f.next
				}
				continue
			}
			j.fire(ctx, wg, v, stack, &job, f)
		}
	}
	return next
}

func later(x, y time.Time) time.Time {
	if x.After(y) {
		return x
	}
	return y
}

// fire is the next time that a job falls due.
type fire struct {
	next        time.Time
	skip, queue bool
}

// dueFire finds the next fire of a job after since. What fell due before the
// agent was there is one fire, or none.
func dueFire(job *spec.Job, since, started, now time.Time) fire {
	var out fire
	for _, s := range job.Schedule {
		at, err := s.Next(since)
		if err != nil || at.IsZero() {
			continue // Load has refused it; or this machine does not know the zone
		}
		skip := false
		if at.Before(started) && !at.After(now) {
			skip = s.SkipMissed
			// The last of them stands for all.
			for n := 0; n < 100_000; n++ {
				following, err := s.Next(at)
				if err != nil || following.IsZero() || !following.Before(started) {
					break
				}
				at = following
			}
		}
		if out.next.IsZero() || at.Before(out.next) {
			out = fire{next: at, skip: skip, queue: s.Queue}
		}
	}
	return out
}

// fire runs a job that is due, as its policies say.
func (j *jobs) fire(ctx context.Context, wg *sync.WaitGroup, v view, stack string, job *spec.Job, f fire) {
	runs := slices.ContainsFunc(v.tasks, func(t *store.Task) bool { return isRun(t, stack, job.Name) && t.Live() })
	if runs && f.queue {
		return // its end wakes the loop
	}
	key := stack + " " + job.Name
	if !j.claim(key) {
		return
	}
	j.a.spawn(wg, func() {
		defer j.free(key)
		switch {
		case f.skip:
			j.skipped(stack, job.Name, f.next, "no agent ran when it fell due")
		case runs:
			j.skipped(stack, job.Name, f.next, "the run before had not ended")
		default:
			if _, err := j.a.startRun(ctx, stack, job.Name, f.next, "", func(api.Progress) {}); err != nil && ctx.Err() == nil {
				j.a.log.Error("run a job", "stack", stack, "job", job.Name, "err", err)
				j.note(stack, job.Name, f.next, err.Error())
				j.a.events.emit(apiEvent{Type: "job", Action: "fail", Stack: stack, Service: job.Name, Message: err.Error()})
			}
		}
	})
}

func (j *jobs) skipped(stack, job string, at time.Time, why string) {
	j.a.events.emit(apiEvent{Type: "job", Action: "skip", Stack: stack, Service: job, Message: why})
	j.note(stack, job, at, "")
}

// note remembers that a fire is over, and what kept it from being a run.
func (j *jobs) note(stack, job string, at time.Time, trouble string) {
	err := j.a.w.commit(func(c *change) error {
		s := c.w.stacks[stack]
		if s == nil {
			return nil
		}
		putJob(c, s, job, func(st *store.JobState) {
			st.Fired = later(st.Fired, at)
			if st.Trouble = trouble; trouble != "" {
				st.TroubleAt = time.Now()
			}
		})
		return nil
	})
	if err != nil {
		j.a.log.Error("note a run", "stack", stack, "job", job, "err", err)
	}
}

func putJob(c *change, s *store.Stack, job string, f func(*store.JobState)) {
	next := *s
	next.Jobs = cloned(s.Jobs)
	st := next.Jobs[job]
	f(&st)
	next.Jobs[job] = st
	c.putStack(next)
}

func isRun(t *store.Task, stack, job string) bool {
	return t.OneOff != nil && t.OneOff.Job == job && t.Stack == stack
}

// startRun starts a run of a job; a zero fire: somebody asked for it.
func (a *Agent) startRun(ctx context.Context, stack, name string, fire time.Time, actor string, report func(api.Progress)) (*store.Task, error) {
	s, r := a.w.stack(stack)
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	job, ok := r.Stack.Jobs[name]
	if !ok {
		return nil, notFound("no job %s in stack %s", name, stack)
	}
	if err := a.awaitUnmet(ctx, stack, job.Service.DependsOn); err != nil {
		return nil, err
	}
	crash.At("job.run")
	t, err := a.makeOneOff(ctx, &api.RunRequest{
		Stack: r.Stack, Spec: job.Service, Actor: actor, Job: name, Fire: fire, Name: fmt.Sprintf("%s-%s-%d", stack, name, s.Jobs[name].Runs+1),
	}, report)
	if err != nil {
		return nil, err
	}
	return a.startOneOff(ctx, t)
}

// awaitUnmet waits until what a job depends on is as it asks.
func (a *Agent) awaitUnmet(ctx context.Context, stack string, deps []spec.Dependency) error {
	patience := time.After(runPatience)
	for {
		_, changed := a.loop.plan(stack)
		v := a.w.view()
		s, r := v.stacks[stack], v.revisions[stack]
		if s == nil || s.Removing != nil {
			return conflict("", "stack %s is being removed", stack)
		}
		why, final := reconciler.Unmet(a.desired(v, s, r), a.observed(v, s, r), deps, time.Now())
		switch {
		case why == "":
			return nil
		case final:
			return conflict("", "%s", why)
		}
		select {
		case <-changed:
		case <-patience:
			return conflict("", "it waits for %s, since %s", why, runPatience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// runJob starts a run that somebody asks for and waits for its end.
func (a *Agent) runJob(ctx context.Context, stack, name string, req *api.JobRunRequest, report func(api.Progress)) (*api.Done, error) {
	if _, r := a.w.stack(stack); r != nil && r.Stack.Jobs[name].NotByHand {
		return nil, placed(&r.Stack, "jobs."+name+".triggers.manual", invalid("job %s is not run by hand: triggers.manual is false", name))
	}
	t, err := a.startRun(ctx, stack, name, time.Time{}, req.Actor, report)
	if err != nil {
		return nil, err
	}
	began := a.apiTask(a.w.view(), t)
	report(api.Progress{Task: &began})
	if req.Detach {
		return &api.Done{Outcome: api.OutcomeDone}, nil
	}
	if t, err = a.awaitEnd(ctx, t); err != nil {
		return nil, err
	}
	ended := a.apiTask(a.w.view(), t)
	report(api.Progress{Task: &ended})
	return &api.Done{Outcome: api.OutcomeDone}, nil
}

// collect frees what runs that have ended hold, but their logs, and forgets the
// oldest ones.
func (j *jobs) collect(ctx context.Context, wg *sync.WaitGroup, v view) {
	kept := map[string][]*store.Task{}
	for _, t := range v.tasks {
		if t.OneOff == nil || t.OneOff.Job == "" || t.Live() {
			continue
		}
		if t.State == store.StateExited {
			j.tidy(ctx, wg, t, j.a.removeTask)
		}
		key := t.Stack + " " + t.OneOff.Job
		kept[key] = append(kept[key], t)
	}
	for _, runs := range kept {
		slices.SortFunc(runs, func(x, y *store.Task) int { return y.OneOff.Run - x.OneOff.Run })
		for _, t := range runs[min(len(runs), keptRuns):] {
			j.tidy(ctx, wg, t, j.a.removeOneOff)
		}
	}
}

func (j *jobs) tidy(ctx context.Context, wg *sync.WaitGroup, t *store.Task, f func(context.Context, *store.Task) error) {
	if !j.claim(t.ID) {
		return
	}
	j.a.spawn(wg, func() {
		defer func() {
			j.mu.Lock()
			delete(j.busy, t.ID)
			j.mu.Unlock()
		}()
		if err := f(ctx, t); err != nil && ctx.Err() == nil {
			j.a.log.Error("tidy up after a run", "task", t.Name(), "err", err)
		}
	})
}

// jobList says how the jobs of a stack are.
func (a *Agent) jobList(stack string) ([]api.Job, error) {
	v := a.w.view()
	s, r := v.stacks[stack], v.revisions[stack]
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	out := []api.Job{}
	for _, name := range sortedKeys(r.Stack.Jobs) {
		job := r.Stack.Jobs[name]
		st := s.Jobs[name]
		o := api.Job{Name: name, Image: job.Service.Image, Trouble: st.Trouble, TroubleAt: st.TroubleAt, Runs: []api.JobRun{}}
		for _, sch := range job.Schedule {
			o.Schedule = append(o.Schedule, sch.Cron)
		}
		if f := dueFire(&job, time.Now(), a.started, time.Now()); !f.next.IsZero() {
			o.Next = f.next
		}
		for _, t := range v.tasks {
			if isRun(t, stack, name) {
				o.Runs = append(o.Runs, jobRun(t))
			}
		}
		slices.SortFunc(o.Runs, func(x, y api.JobRun) int { return y.Number - x.Number })
		out = append(out, o)
	}
	return out, nil
}

func jobRun(t *store.Task) api.JobRun {
	out := api.JobRun{
		Number: t.OneOff.Run, Task: t.ID, Fire: t.OneOff.Fire, StartedAt: t.Started, FinishedAt: t.Finished, ExitCode: t.ExitCode,
		State: api.RunRunning,
	}
	if t.Live() {
		return out
	}
	out.State = api.RunSucceeded
	if t.ExitCode != 0 || t.Reason != "" {
		out.State, out.Reason = api.RunFailed, or(t.Reason, "exited "+strconv.Itoa(t.ExitCode))
	}
	return out
}
