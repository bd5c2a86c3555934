package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"berth/api"
	"berth/reconciler"
	"berth/runtime"
	"berth/store"
)

// explain says why a service is as it is: how each of its tasks is and, unless
// all are well, what stands in the way.
func (a *Agent) explain(ctx context.Context, stack, service string) (*api.Explanation, error) {
	v := a.w.view()
	s, r := v.stacks[stack], v.revisions[stack]
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	plan, _ := a.loop.plan(stack)
	if plan == nil {
		plan = &reconciler.Plan{}
	}
	e := &explainer{a: a, ctx: ctx, v: v, s: s, r: r, plan: plan, keys: a.derive(v, s, r).keys, now: time.Now()}
	svc, wanted := r.Stack.Services[service]
	status, known := e.status(service)
	if !wanted && !known {
		return nil, &api.Error{
			Status: http.StatusNotFound, Code: api.CodeNotFound, Detail: fmt.Sprintf("no service %s in stack %s", service, stack),
			Hint: "its services are " + strings.Join(sortedKeys(r.Stack.Services), ", "),
		}
	}
	out := &api.Explanation{Stack: stack, Service: service, Status: status}
	out.Tasks = e.tasks(service, svc.Replicas)
	well := !slices.ContainsFunc(out.Tasks, func(c api.Cause) bool { return !c.Well })
	switch {
	case s.Removing != nil:
		out.Summary = "its stack is being removed"
	case !wanted:
		out.Summary = "no longer in the file"
	case s.Stopped[service]:
		out.Summary = "stopped"
	case svc.OneShot && well:
		out.Summary = "completed"
	default:
		out.Summary = fmt.Sprintf("%d of %d tasks ready", min(status.Ready, svc.Replicas), svc.Replicas)
	}
	if wanted {
		out.Causes = e.causes(&svc, well)
	}
	return out, nil
}

// explainer looks at one moment of a stack.
type explainer struct {
	a    *Agent
	ctx  context.Context
	v    view
	s    *store.Stack
	r    *store.Revision
	plan *reconciler.Plan
	keys map[string]string // of current tasks, by service
	now  time.Time
}

func (e *explainer) status(service string) (api.ServiceStatus, bool) {
	for _, st := range e.plan.Services {
		if st.Service == service {
			return e.a.serviceStatus(st, e.r), true
		}
	}
	return api.ServiceStatus{Service: service, Phase: api.PhaseStarting, Reason: "the agent has not looked at it yet"}, false
}

// tasks has a cause for each slot, and for each further task that still runs.
func (e *explainer) tasks(service string, replicas int) []api.Cause {
	slots := map[int][]*store.Task{} // newest first
	for n := range replicas {
		slots[n+1] = nil
	}
	for _, t := range slices.Backward(e.v.tasks) {
		if t.Stack == e.s.Name && t.Service == service && t.OneOff == nil && (t.Live() || t.State == store.StateExited && t.Slot <= replicas) {
			slots[t.Slot] = append(slots[t.Slot], t)
		}
	}
	var out []api.Cause
	for _, slot := range sortedKeys(slots) {
		cur := e.current(service, slots[slot])
		subject := fmt.Sprintf("%s-%d", service, slot)
		switch {
		case slot > replicas:
		case cur == nil:
			out = append(out, e.missing(service, slot, subject))
		default:
			c := e.task(cur)
			c.Subject = subject
			out = append(out, c)
		}
		for _, t := range slots[slot] {
			if t != cur && t.Live() {
				out = append(out, api.Cause{
					Subject: subject, Well: true, Text: fmt.Sprintf("of revision %d, %s", t.Revision, e.leaving(t)),
				})
			}
		}
	}
	return out
}

// current is the task of a slot that is to stay, as the planner picks it: a
// live one of the wanted version, else the newest if it is of that version.
func (e *explainer) current(service string, tasks []*store.Task) *store.Task {
	i := slices.IndexFunc(tasks, func(t *store.Task) bool { return t.Live() && t.Key == e.keys[service] })
	if i < 0 && len(tasks) > 0 && tasks[0].Key == e.keys[service] {
		i = 0
	}
	if i < 0 {
		return nil
	}
	return tasks[i]
}

// missing explains a slot that has no task of the wanted version.
func (e *explainer) missing(service string, slot int, subject string) api.Cause {
	c := api.Cause{Subject: subject, Text: "is to be created"}
	if e.s.Stopped[service] {
		return api.Cause{Subject: subject, Well: true, Text: "stopped"}
	}
	for _, w := range e.plan.Waits {
		if w.Service == service && w.Slot == slot {
			c.Text = "waits for " + w.For + e.until(w)
		}
	}
	e.trouble(&c, "can't be created", fmt.Sprintf("%s/%d", service, slot))
	return c
}

func (e *explainer) until(w reconciler.Wait) string {
	if w.Until.After(e.now) {
		return ", " + span(w.Until.Sub(e.now)) + " more"
	}
	return ""
}

// trouble lets c say which action on the target fails, if one does.
func (e *explainer) trouble(c *api.Cause, what, target string) {
	err := e.a.loop.trouble(e.s.Name, target)
	if err == nil {
		return
	}
	p := problem(err)
	c.Well, c.Text, c.Position, c.Hint = false, what+": "+firstLine(c, p.Detail), p.Position, p.Hint
}

// firstLine gives the first line of text and makes the others details of c.
func firstLine(c *api.Cause, text string) string {
	first, rest, more := strings.Cut(strings.TrimSpace(text), "\n")
	if more {
		c.Details = append(c.Details, strings.Split(rest, "\n")...)
	}
	return first
}

// task explains a task that is to stay.
func (e *explainer) task(t *store.Task) api.Cause {
	c := api.Cause{}
	switch t.State {
	case store.StatePending:
		c.Text = "is being created, for " + span(e.now.Sub(t.Created))
		e.trouble(&c, "can't be created", t.ID)
		return c
	case store.StatePaused:
		c.Text = "is paused: its program does not run"
		return c
	case store.StateExited:
		e.exited(&c, t)
	default:
		e.running(&c, t)
	}
	if !c.Well {
		c.Log = e.lastLines(t.ID)
	}
	return c
}

func (e *explainer) running(c *api.Cause, t *store.Task) {
	ready, reason := e.a.readiness(t)
	switch {
	case !t.StopAt.IsZero():
		c.Text = "stops, since " + clock(t.StopAt) + stopHooks(t)
	case !ready:
		c.Text = "not ready: " + reason
		e.probes(c, t)
	case !t.Published:
		c.Text = "ready, and not in the traffic yet"
		for _, w := range e.plan.Waits {
			if w.Service == t.Service && w.Slot == t.Slot {
				c.Text += ": waits for " + w.For + e.until(w)
			}
		}
	case e.a.unhealthy(t):
		c.Text = "takes traffic, but is unhealthy and is to be replaced: " + e.a.probes.reason(t, livenessTest)
		e.probes(c, t)
	default:
		c.Well, c.Text = true, "ready for "+span(e.now.Sub(either(t.ReadySince, t.Started)))
	}
	e.trouble(c, "not as it should be", t.ID)
}

// probes adds how often the test that fails has failed in a row, and what it
// said last.
func (e *explainer) probes(c *api.Cause, t *store.Task) {
	which, ok := notPassed(t)
	if !ok {
		return
	}
	failed, since := e.a.probes.streak(t.ID, which)
	list := e.a.probes.of(t.ID, which)
	if failed == 0 || len(list) == 0 {
		return
	}
	c.Text += fmt.Sprintf(" (%s since %s)", times(failed), clock(since))
	lines := strings.Split(strings.TrimSpace(list[len(list)-1].Output), "\n")
	for _, line := range lines[1:min(len(lines), explainedLines)] { // the first is in the reason
		c.Details = append(c.Details, bounded(line))
	}
}

// exited explains how a task ended and what follows.
func (e *explainer) exited(c *api.Cause, t *store.Task) {
	svc := e.r.Stack.Services[t.Service]
	ran := span(t.Finished.Sub(t.Started))
	switch {
	case e.s.Stopped[t.Service]:
		c.Well, c.Text = true, "stopped"
		return
	case t.ExitCode == 0 && t.Reason == "" && (svc.OneShot || e.phase(t.Service) == api.PhaseCompleted):
		c.Well, c.Text = true, fmt.Sprintf("completed %s ago, in %s", span(e.now.Sub(t.Finished)), ran)
		return
	case t.OOM:
		c.Text = e.outOfMemory(t)
		c.Position, c.Hint = position(&e.r.Stack, "services."+t.Service), "raise its memory limit, or find out what it needs the memory for"
	case t.Started.IsZero():
		c.Text = "could not be started: " + firstLine(c, t.Reason)
	default:
		c.Text = fmt.Sprintf("%s after %s, at %s", firstLine(c, exitText(t)), ran, clock(t.Finished))
	}
	if n := t.Failures + 1; n > 1 {
		c.Text += fmt.Sprintf(", %d times in a row", n)
	}
	for _, w := range e.plan.Waits {
		if w.Service == t.Service && w.Slot == t.Slot && w.Until.After(e.now) {
			c.Text += "; restarts in " + span(w.Until.Sub(e.now))
			return
		}
	}
	if e.phase(t.Service) == api.PhaseFailed {
		c.Text += "; it stays down"
		c.Hint = or(c.Hint, "`berth up` tries it again")
	}
	// Its successor may be what can't be made.
	e.trouble(c, c.Text+"; its successor can't be created", fmt.Sprintf("%s/%d", t.Service, t.Slot))
}

func (e *explainer) phase(service string) string {
	st, _ := e.status(service)
	return st.Phase
}

// stopHooks says how far the pre_stop hooks of t are.
func stopHooks(t *store.Task) string {
	switch {
	case t.HookFailed != "":
		return "; " + t.HookFailed
	case stopHeld(t):
		return "; its pre_stop hooks run"
	}
	return ""
}

// oomWindow is how far back kills for memory are counted.
const oomWindow = 10 * time.Minute

func (e *explainer) outOfMemory(t *store.Task) string {
	times := 0
	for _, o := range e.v.tasks {
		if o.Stack == t.Stack && o.Service == t.Service && o.Slot == t.Slot && o.OOM && e.now.Sub(o.Finished) < oomWindow {
			times++
		}
	}
	text := "out of memory at " + clock(t.Finished)
	if times > 1 {
		text = fmt.Sprintf("out of memory %d times in %s", times, span(oomWindow))
	}
	if limit := t.Spec.Resources.Memory; limit > 0 {
		text += fmt.Sprintf(" (limit %s)", bytesText(limit))
	}
	return text
}

// leaving says how far the end of a task is that is not to stay.
func (e *explainer) leaving(t *store.Task) string {
	switch {
	case !t.StopAt.IsZero():
		return "stops, since " + clock(t.StopAt) + stopHooks(t)
	case t.Published:
		return "serves until it is replaced"
	case t.State == store.StatePending:
		return "is being created"
	case t.Withdrawn.IsZero():
		return "not in the traffic"
	}
	if n, _ := e.a.flows.count(t.ID); n > 0 {
		return fmt.Sprintf("drains: %d connections", n)
	}
	return "drains"
}

// Bounds of what is quoted of a task.
const (
	explainedLines = 5
	explainedLine  = 300 // bytes
)

// lastLines are the last lines that a task logged.
func (e *explainer) lastLines(id string) []string {
	var out []string
	each, flush := runtime.JoinPartial(joinMost, func(l runtime.LogLine) error {
		if text := bounded(l.Text); text != "" {
			out = append(out, text)
		}
		return nil
	})
	err := e.a.containers.Logs(e.ctx, id, runtime.LogOptions{Tail: explainedLines}, each)
	if err == nil {
		err = flush() // what it wrote last may have no newline
	}
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return append(out, "its log can't be read: "+err.Error())
	}
	return out
}

// bounded is text of a container, short and valid.
func bounded(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > explainedLine {
		text = text[:explainedLine] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// clock is a time of the last day, or with its date.
func clock(t time.Time) string {
	if time.Since(t) > 20*time.Hour {
		return t.Format("2006-01-02 15:04:05")
	}
	return t.Format("15:04:05")
}

// span is a duration for people: 0.4 s, 12 s, 3 min, 5 h, 4 days.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return strings.Replace(fmt.Sprintf("%.1f s", max(d, 0).Seconds()), ".0 ", " ", 1)
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
