package agent

import (
	"fmt"
	"strings"

	"berth/api"
	"berth/reconciler"
	"berth/spec"
	"berth/store"
)

// serviceStatus is a planner's status as clients see it.
func (a *Agent) serviceStatus(st reconciler.Status, r *store.Revision) api.ServiceStatus {
	out := api.ServiceStatus{
		Service: st.Service, Phase: st.Phase.String(), Replicas: st.Replicas,
		Updated: st.Updated, Ready: st.Ready, Available: st.Available, Old: st.Old, Reason: st.Reason,
	}
	if st.Removed {
		out.Phase = api.PhaseStopping
		if st.Old == 0 {
			out.Phase = api.PhaseRemoved
		}
	}
	if svc, ok := r.Stack.Services[st.Service]; ok && st.Phase == reconciler.PhasePending {
		_, _, attr := fits(a.node, &svc)
		out.Position = position(&r.Stack, "services."+st.Service+".deploy.placement."+attr)
	}
	if st.Phase == reconciler.PhaseFailed || st.Phase == reconciler.PhaseFailing {
		out.Position = position(&r.Stack, "services."+st.Service)
	}
	// What the planner wants but the agent can't do says more than "starting".
	if st.Phase != reconciler.PhaseStarting {
		return out
	}
	var targets []string
	for _, at := range r.Stack.Services[st.Service].Networks {
		targets = append(targets, r.Stack.Networks[at.Network].Name)
	}
	for slot := 1; slot <= st.Replicas; slot++ {
		targets = append(targets, fmt.Sprintf("%s/%d", st.Service, slot))
	}
	for _, t := range a.w.view().tasks {
		if t.Stack == r.Stack.Name && t.Service == st.Service && t.Live() {
			targets = append(targets, t.ID)
		}
	}
	if err := a.loop.trouble(r.Stack.Name, targets...); err != nil {
		out.Phase, out.Reason = api.PhaseFailing, err.Error()
	}
	return out
}

// exitText says how a task ended.
func exitText(t *store.Task) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.ExitCode > 128:
		return fmt.Sprintf("ended by signal %d", t.ExitCode-128)
	}
	return fmt.Sprintf("exited %d", t.ExitCode)
}

// apiTask is a record as clients see it.
func (a *Agent) apiTask(v view, t *store.Task) api.Task {
	out := api.Task{
		ID: t.ID, Name: t.Name(), Stack: t.Stack, Service: t.Service, Slot: t.Slot, Revision: t.Revision,
		Image: t.Image, Digest: t.Digest, State: string(t.State), Health: t.Health,
		Readiness: t.Readiness, Liveness: t.Liveness,
		Ready: t.Published && t.State == store.StateRunning, CreatedAt: t.Created, StartedAt: t.Started,
		FinishedAt: t.Finished, ExitCode: t.ExitCode, OOMKilled: t.OOM, Restarts: t.Restarts,
		Labels: labels(t), Current: true, OneOff: t.OneOff != nil,
	}
	if r := v.revisions[t.Stack]; r != nil {
		out.ServiceLabels = r.Stack.Services[t.Service].DeployLabels
	}
	if img, err := a.images.Resolve(t.Digest); err == nil {
		out.Command = strings.Join(arguments(&t.Spec, img), " ")
	}
	switch t.State {
	case store.StatePending:
		out.State = api.TaskCreated
	case store.StateExited:
		out.Health, out.Readiness, out.Liveness = "", "", ""
		if t.Reason != "" || t.ExitCode != 0 {
			out.Reason = exitText(t)
		}
	case store.StateRemoved:
		out.State = api.TaskRemoving
	case store.StateRunning, store.StatePaused:
		if which, ok := notPassed(t); ok {
			out.Reason = a.probes.reason(t, which)
			if n, since := a.probes.streak(t.ID, which); n > 0 {
				out.Reason += fmt.Sprintf(" (%s since %s)", times(n), clock(since))
			}
		}
	}
	if r := v.revisions[t.Stack]; r != nil {
		// What Portainer, Dockge and others find a project's files by.
		out.Labels["com.docker.compose.project.config_files"] = strings.Join(r.Stack.Files, ",")
		out.Labels["com.docker.compose.project.working_dir"] = r.Stack.Dir
	}
	for _, e := range t.Endpoints {
		n := api.TaskNetwork{Network: e.Network, Aliases: e.Aliases}
		if e.IPv4.IsValid() {
			n.IPv4 = e.IPv4.String()
		}
		if e.IPv6.IsValid() {
			n.IPv6 = e.IPv6.String()
		}
		out.Networks = append(out.Networks, n)
	}
	a.describeMounts(v, t, &out)
	a.describePorts(v, t, &out)
	return out
}

func (a *Agent) describeMounts(v view, t *store.Task, out *api.Task) {
	st := v.revisions[t.Stack]
	if t.OneOff != nil {
		st = &store.Revision{Stack: t.OneOff.Stack}
	}
	for _, m := range t.Spec.Mounts {
		tm := api.TaskMount{Type: m.Type, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
		if m.Type == spec.MountVolume {
			tm.Name = t.Anonymous[m.Target]
			if m.Source != "" && st != nil {
				tm.Name = st.Stack.Volumes[m.Source].Name
			}
			tm.Source = a.mountpoint(tm.Name)
		}
		out.Mounts = append(out.Mounts, tm)
	}
	for _, target := range sortedKeys(t.Anonymous) {
		name := t.Anonymous[target]
		known := false
		for _, m := range out.Mounts {
			known = known || m.Target == target
		}
		if !known {
			out.Mounts = append(out.Mounts, api.TaskMount{Type: spec.MountVolume, Name: name, Source: a.mountpoint(name), Target: target})
		}
	}
}

func (a *Agent) describePorts(v view, t *store.Task, out *api.Task) {
	s, r := v.stacks[t.Stack], v.revisions[t.Stack]
	if s == nil || !t.Live() {
		return
	}
	svc, ok := r.Stack.Services[t.Service]
	if t.OneOff != nil {
		svc, ok = t.Spec, true
	}
	if !ok || svc.NetworkMode == "host" || svc.NetworkMode == "none" {
		return
	}
	for i, p := range svc.Ports {
		n := p.Published
		if c := s.Ports[portKey(t.Service, i)]; c != 0 && t.OneOff == nil {
			n = c
		}
		out.Ports = append(out.Ports, api.PortMapping{HostIP: p.HostIP, Published: n, Target: p.Target, Protocol: p.Protocol})
	}
}

// tasks lists the tasks of a stack ("" for all) as `ps` shows them: the newest
// of each slot, and older ones that still run. all adds the rest.
func (a *Agent) tasks(v view, stack string, all bool) []api.Task {
	newest := map[string]*store.Task{}
	for _, t := range v.tasks {
		if t.State != store.StateRemoved {
			newest[t.Name()] = t // in order of attempts
		}
	}
	var out []api.Task
	for _, t := range v.tasks {
		if stack != "" && t.Stack != stack || t.OneOff != nil && t.State == store.StateRemoved {
			continue
		}
		cur := newest[t.Name()] == t
		if !cur && !t.Live() && !all {
			continue
		}
		at := a.apiTask(v, t)
		at.Current = cur
		if cur && t.State == store.StateExited && a.restarting(t) {
			at.State = api.TaskRestarting
		}
		out = append(out, at)
	}
	return out
}

// restarting says that a successor of an exited task is due.
func (a *Agent) restarting(t *store.Task) bool {
	plan, _ := a.loop.plan(t.Stack)
	if plan == nil {
		return false
	}
	for _, w := range plan.Waits {
		if w.Service == t.Service && w.Slot == t.Slot && !w.Until.IsZero() {
			return true
		}
	}
	return false
}

func (a *Agent) summary(v view, s *store.Stack) api.StackSummary {
	out := api.StackSummary{
		Name: s.Name, Revision: s.Revision, States: map[string]int{}, Files: v.revisions[s.Name].Stack.Files,
		Removing: s.Removing != nil,
	}
	for _, t := range a.tasks(v, s.Name, false) {
		out.States[t.State]++
	}
	return out
}

func (a *Agent) stackStatus(name string) (*api.StackStatus, error) {
	v := a.w.view()
	s := v.stacks[name]
	if s == nil {
		return nil, notFound("no stack %s", name)
	}
	r := v.revisions[name]
	out := &api.StackStatus{StackSummary: a.summary(v, s), Stack: r.Stack, Tasks: a.tasks(v, name, true)}
	if plan, _ := a.loop.plan(name); plan != nil {
		for _, st := range plan.Services {
			out.Services = append(out.Services, a.serviceStatus(st, r))
		}
	}
	return out, nil
}
