package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// A pre_start step is a one-shot service that its service waits for: so it runs
// once per revision, before any replica of it is replaced, and a step that
// fails leaves the old version serving. The loader has given the step what it
// inherits from its service.

// preStart adds the one-shots of all pre_start steps to st.
func (l *loading) preStart(st *Stack) {
	for _, name := range sortedKeys(l.project.Services) {
		owner := st.Services[name]
		before := ""
		for i, hook := range l.project.Services[name].PreStart {
			step := l.step(&owner, stepName(name, i), hook)
			if _, taken := l.project.Services[step.Name]; taken {
				l.add(l.placed(l.atUp(), fmt.Sprintf("services.%s.pre_start.%d", name, i),
					fmt.Sprintf("step %d of pre_start runs as service %s, and there is one of that name", i+1, step.Name), "rename the service"))
				continue
			}
			if before != "" {
				step.DependsOn = append(step.DependsOn, completes(before))
			}
			st.Services[step.Name], before = step, step.Name
		}
		if before != "" {
			owner.DependsOn = append(slices.Clone(owner.DependsOn), completes(before))
			st.Services[name] = owner
		}
	}
}

func stepName(service string, i int) string { return fmt.Sprintf("%s-pre-start-%d", service, i+1) }

func completes(step string) Dependency {
	return Dependency{Service: step, Condition: DependsCompleted, Required: true}
}

// step is the service that runs one step of owner.
func (l *loading) step(owner *Service, name string, hook types.PreStartHook) Service {
	one, container := 1, hook.ContainerSpec
	// The loader leaves them out: a step has the volumes of its service.
	container.VolumesFrom = append(slices.Clone(container.VolumesFrom), owner.Name)
	s := l.service(name, types.ServiceConfig{Name: name, ContainerSpec: container, Scale: &one})
	s.DependsOn, s.Profiles = slices.Clone(owner.DependsOn), slices.Clone(owner.Profiles)
	s.StepOf, s.MACAddress = owner.Name, ""
	if s.PerReplica = hook.PerReplica; s.PerReplica {
		s.Replicas = owner.Replicas
	}
	s.Constraints, s.MaxPerNode = slices.Clone(owner.Constraints), owner.MaxPerNode
	for i := range s.Networks {
		// Addresses and names are those of the service itself.
		s.Networks[i].Aliases, s.Networks[i].IPv4, s.Networks[i].IPv6, s.Networks[i].MAC = nil, "", "", ""
	}
	return s
}

// placeSteps gives the one-shots the positions of their steps.
func (l *loading) placeSteps(positions map[string]Position) {
	for name, s := range l.project.Services {
		for i := range s.PreStart {
			from, to := fmt.Sprintf("services.%s.pre_start.%d", name, i), "services."+stepName(name, i)
			for path, p := range l.places {
				if rest, ok := strings.CutPrefix(path, from); ok && (rest == "" || rest[0] == '.') {
					positions[to+rest] = p.position()
				}
			}
		}
	}
}
