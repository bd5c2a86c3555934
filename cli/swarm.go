package cli

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"berth/api"
	"berth/spec"
)

// SwarmStack is a row of `docker stack ls`.
type SwarmStack struct{ Name, Services, Orchestrator string }

// SwarmService is a row of `docker stack services`.
type SwarmService struct {
	ID, Name, Mode, Replicas, Image, Ports string

	Service string `json:"-"` // the name without the stack's
}

// SwarmTask is a row of `docker stack ps`.
type SwarmTask struct {
	ID, Name, Image, Node, DesiredState, CurrentState, Error, Ports string
}

// SwarmServices are the services of a stack in Swarm's words. A service has no
// id in Berth: it is made of the names.
func SwarmServices(stack api.StackStatus, whole bool) []SwarmService {
	ready := map[string]api.ServiceStatus{}
	for _, s := range stack.Services {
		ready[s.Service] = s
	}
	ports := map[string][]api.PortMapping{}
	for _, t := range stack.Tasks {
		if t.Current && len(t.Ports) > 0 {
			ports[t.Service] = t.Ports
		}
	}
	var rows []SwarmService
	for _, name := range slices.Sorted(maps.Keys(stack.Stack.Services)) {
		s := stack.Stack.Services[name]
		sum := sha256.Sum256([]byte(stack.Name + "/" + name))
		row := SwarmService{
			ID: hex.EncodeToString(sum[:])[:25], Name: stack.Name + "_" + name, Mode: cmp.Or(s.Mode, "replicated"),
			Image: s.Image, Ports: swarmPorts(ports[name], s.Ports), Service: name,
		}
		if !whole {
			row.ID = row.ID[:12]
		}
		row.Replicas = fmt.Sprintf("%d/%d", ready[name].Ready, cmp.Or(ready[name].Replicas, s.Replicas))
		rows = append(rows, row)
	}
	return rows
}

// swarmPorts gives ports as Swarm does: "*:8080->80/tcp".
func swarmPorts(published []api.PortMapping, wanted []spec.Port) string {
	if len(published) == 0 {
		for _, p := range wanted {
			published = append(published, api.PortMapping{HostIP: p.HostIP, Published: p.Published, Target: p.Target, Protocol: p.Protocol})
		}
	}
	text := ""
	for _, p := range published {
		if p.Published == 0 {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%s:%d->%d/%s", cmp.Or(p.HostIP, "*"), p.Published, p.Target, p.Protocol)
	}
	return text
}

// SwarmTasks are the tasks of a stack in Swarm's words, each slot's newest
// first.
func SwarmTasks(stack api.StackStatus, node string, now time.Time, whole bool) []SwarmTask {
	tasks := slices.Clone(stack.Tasks)
	slices.SortStableFunc(tasks, func(x, y api.Task) int {
		return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Slot, y.Slot), y.CreatedAt.Compare(x.CreatedAt))
	})
	var rows []SwarmTask
	for _, t := range tasks {
		row := SwarmTask{
			ID: t.ID, Name: fmt.Sprintf("%s_%s.%d", t.Stack, t.Service, t.Slot), Image: t.Image, Node: node,
			DesiredState: "Running", CurrentState: swarmState(t, now), Error: t.Reason, Ports: swarmPorts(t.Ports, nil),
		}
		if !t.Current {
			row.Name, row.DesiredState = `\_ `+row.Name, "Shutdown"
		}
		if !whole {
			row.ID = ShortID(t.ID, false)
		}
		rows = append(rows, row)
	}
	return rows
}

func swarmState(t api.Task, now time.Time) string {
	switch t.State {
	case api.TaskRunning, api.TaskPaused:
		return "Running " + ago(t.StartedAt, now)
	case api.TaskExited, api.TaskRestarting:
		if t.ExitCode != 0 || t.OOMKilled {
			return "Failed " + ago(t.FinishedAt, now)
		}
		if !t.Current {
			return "Shutdown " + ago(t.FinishedAt, now)
		}
		return "Complete " + ago(t.FinishedAt, now)
	case api.TaskRemoving:
		return "Shutdown " + ago(t.FinishedAt, now)
	}
	return "Preparing " + ago(t.CreatedAt, now)
}
