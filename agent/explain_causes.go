package agent

import (
	"fmt"
	"net/netip"

	"berth/api"
	"berth/overlaynet"
	"berth/spec"
	"berth/store"
)

// causes are what stands in the way of a service, most important first: what
// the user did, what it needs, what the rollout does.
func (e *explainer) causes(svc *spec.Service, well bool) []api.Cause {
	switch {
	case e.s.Removing != nil:
		return nil
	case e.s.Stopped[svc.Name]:
		return []api.Cause{{Subject: svc.Name, Text: "stopped by the user", Hint: "berth start " + svc.Name}}
	case svc.Replicas == 0:
		return []api.Cause{{
			Subject: svc.Name, Text: "no tasks are wanted: it has 0 replicas", Hint: "berth scale " + svc.Name + "=1",
			Position: position(&e.r.Stack, "services."+svc.Name+".replicas"),
		}}
	}
	var out []api.Cause
	if _, why, attr := fits(e.a.node, svc); why != "" {
		out = append(out, api.Cause{
			Subject: svc.Name, Text: "pending: " + why, Position: position(&e.r.Stack, "services."+svc.Name+".deploy.placement."+attr),
			Hint: "give the node its labels in the agent's configuration (labels:), or correct deploy.placement",
		})
	}
	if !well {
		out = append(out, e.networks(svc)...)
		out = append(out, e.dependencies(svc, map[string]bool{svc.Name: true})...)
	}
	out = append(out, e.ports(svc)...)
	if e.a.traffic.failed.Load() {
		out = append(out, api.Cause{
			Subject: "traffic", Text: "rules and names are not up to date; the agent goes on trying", Hint: "the agent's log says why",
		})
	}
	return append(out, e.rollout(svc.Name, well)...)
}

func (e *explainer) networks(svc *spec.Service) []api.Cause {
	var out []api.Cause
	for _, at := range svc.Networks {
		c := api.Cause{Subject: at.Network}
		if e.trouble(&c, "the network can't be made", e.r.Stack.Networks[at.Network].Name); c.Text != "" {
			out = append(out, c)
		}
	}
	return out
}

// awaited are the conditions of depends_on in words.
var awaited = map[string]string{
	spec.DependsHealthy: "be healthy", spec.DependsCompleted: "complete", spec.DependsStarted: "start",
}

// dependencies explains what a service needs and is not as it should be, each
// followed by what that needs in turn.
func (e *explainer) dependencies(svc *spec.Service, seen map[string]bool) []api.Cause {
	var out []api.Cause
	for _, d := range svc.DependsOn {
		dep, ok := e.r.Stack.Services[d.Service]
		if !ok || seen[d.Service] {
			continue
		}
		seen[d.Service] = true
		st, _ := e.status(d.Service)
		switch {
		case st.Phase == api.PhaseReady, st.Phase == api.PhaseCompleted:
			continue
		case st.Phase == api.PhaseStopping && st.Ready >= dep.Replicas && st.Updated >= dep.Replicas:
			continue // it is there; old tasks of it drain
		}
		c := api.Cause{
			Subject: d.Service, Text: fmt.Sprintf("%d of %d ready", min(st.Ready, dep.Replicas), dep.Replicas),
			Position: position(&e.r.Stack, "services."+svc.Name+".depends_on."+d.Service),
		}
		if dep.OneShot {
			c.Text = "has not completed"
		}
		if st.Reason != "" {
			c.Text += ": " + st.Reason
		}
		if e.phase(svc.Name) == api.PhaseWaiting && awaited[d.Condition] != "" {
			c.Details = append(c.Details, fmt.Sprintf("%s waits for it to %s", svc.Name, awaited[d.Condition]))
		}
		out = append(out, c)
		out = append(out, e.dependencies(&dep, seen)...)
	}
	return out
}

// ports explains the published ports that somebody else has taken while no
// agent held them.
func (e *explainer) ports(svc *spec.Service) []api.Cause {
	if !publishes(svc) {
		return nil
	}
	var out []api.Cause
	for i, port := range svc.Ports {
		n := port.Published
		if c := e.s.Ports[portKey(svc.Name, i)]; c != 0 {
			n = c
		}
		err := e.a.ports.lost(e.s.Name, port, n)
		if err == nil {
			continue
		}
		p := problem(err)
		out = append(out, api.Cause{
			Subject: fmt.Sprintf("%d/%s", n, port.Protocol), Text: p.Detail, Hint: p.Hint,
			Position: position(&e.r.Stack, fmt.Sprintf("services.%s.ports.%d", svc.Name, i)),
		})
	}
	return out
}

// lost says why a stack does not hold a port; nil: it does, or could.
func (p *ports) lost(stack string, port spec.Port, n uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.held[portName(port.HostIP, n, port.Protocol)]; n == 0 || h != nil && h.stack == stack {
		return nil
	}
	if by := p.holder(stack, portClaims(port.HostIP, n, port.Protocol), nil); by != "" {
		return fmt.Errorf("published by %s: %w", by, overlaynet.ErrPortInUse)
	}
	host, _ := netip.ParseAddr(port.HostIP)
	c, err := p.reserve(overlaynet.PublishedPort{HostIP: host, Port: n, Protocol: port.Protocol, Target: port.Target})
	if err != nil {
		return err
	}
	return c.Close()
}

// rollout explains the newest rollout of the stack where it concerns the
// service: it waits for the user, goes back, or has gone back.
func (e *explainer) rollout(service string, well bool) []api.Cause {
	r := e.s.Rollout
	if r == nil || !r.Touched[service] {
		return nil
	}
	c := api.Cause{Subject: "rollout"}
	because := ""
	if r.Reason != "" {
		because = ": " + r.Reason
	}
	switch r.State {
	case api.RolloutPaused:
		c.Text = fmt.Sprintf("of revision %d, paused%s", r.Revision, because)
		c.Hint = "`berth rollout resume` goes on, `berth rollout undo` goes back"
	case api.RolloutCanary:
		if r.Canary == nil || r.Canary.Service != service {
			return nil
		}
		c.Text = fmt.Sprintf("revision %d gets %d%% of the new connections, since %s", r.Revision, r.Canary.Percent, clock(r.Started))
		c.Hint = "`berth canary promote` goes on, `berth canary abort` goes back"
	case api.RolloutRollingBack:
		c.Text = fmt.Sprintf("going back to revision %d%s", r.Revision, because)
	case api.RolloutRollbackPaused:
		c.Text = fmt.Sprintf("going back to revision %d met a failure, too%s", r.Revision, because)
		c.Hint = "`berth rollout resume` tries again"
	case api.RolloutRolledBack:
		if r.Failed == 0 {
			return nil // the user's own wish
		}
		c.Text = fmt.Sprintf("revision %d was rolled back to %d at %s%s", r.Failed, r.Revision, clock(r.Started), because)
		c.Hint = fmt.Sprintf("berth logs %s --revision %d", service, r.Failed)
		if t := e.culprit(service, r.Failed); t != nil {
			c.Log = e.lastLines(t.ID)
		}
	case api.RolloutProgressing:
		if well || r.From == 0 {
			return nil
		}
		c.Text = fmt.Sprintf("revision %d is on its way since %s", r.Revision, clock(r.Started))
	default:
		return nil
	}
	return []api.Cause{c}
}

// culprit is the newest task of a revision that ended by itself, and badly.
func (e *explainer) culprit(service string, revision uint64) *store.Task {
	var found *store.Task
	for _, t := range e.v.tasks {
		ended := t.State == store.StateExited || t.State == store.StateRemoved
		if t.Stack == e.s.Name && t.Service == service && t.OneOff == nil && t.Revision == revision && ended && t.ExitCode != 0 && t.StopAt.IsZero() &&
			(found == nil || t.Finished.After(found.Finished)) {
			found = t
		}
	}
	return found
}
