package reconciler

import (
	"fmt"
	"time"

	"berth/spec"
)

// unmet names the first dependency of s that does not hold yet, in words that
// follow "waits for"; final says that it never will by itself. The conditions
// are those of the Compose specification, depends_on; they are looked at
// whenever a task is created, so they hold at boot and after a crash too.
func (p *planner) unmet(s *Service) (why string, final bool) {
	for _, d := range s.DependsOn {
		dep, ok := p.want.Services[d.Service]
		if !ok || dep.Replicas == 0 {
			continue
		}
		why, final = p.condition(&dep, d.Condition)
		switch {
		case why == "":
		case !d.Required && final:
			// An optional dependency that failed is as good as none.
		case dep.Stopped && !d.Required:
		default:
			return why, final
		}
	}
	return "", false
}

// condition says what is missing before every slot of dep meets c.
func (p *planner) condition(dep *Service, c string) (why string, final bool) {
	for slot := 1; slot <= dep.Replicas; slot++ {
		var t *Task
		if tasks := p.slots[dep.Name][slot]; len(tasks) > 0 {
			t, _ = p.pick(dep, tasks)
		}
		switch c {
		case spec.DependsCompleted:
			why, final = p.completed(dep, slot, t)
		case spec.DependsHealthy:
			why, final = p.healthy(dep, t)
		default:
			why = p.started(dep, t)
		}
		if t == nil && why != "" && !final {
			// It may never come to be: what it needs itself has failed for good.
			if needs, never := p.unmet(dep); never {
				return needs, true
			}
		}
		if why != "" {
			return why, final
		}
	}
	return "", false
}

func (p *planner) completed(dep *Service, slot int, t *Task) (why string, final bool) {
	if t == nil && slot <= dep.Completed {
		return "", false
	}
	if t == nil || t.State != TaskExited {
		return dep.Name + " (to complete)", false
	}
	switch v, _, reason := judge(dep, t); v {
	case failed:
		return fmt.Sprintf("%s did not complete: %s", dep.Name, reason), true
	case restart:
		return dep.Name + " (to complete)", false
	}
	return "", false
}

func (p *planner) healthy(dep *Service, t *Task) (why string, final bool) {
	switch {
	case t == nil || t.State != TaskRunning:
		if why, failed := p.gone(dep, t); failed {
			return why, true
		}
		return dep.Name + " (healthy)", false
	case t.Checked && !t.Healthy, !t.Ready:
		return dep.Name + " (healthy)", false
	}
	return "", false
}

func (p *planner) started(dep *Service, t *Task) string {
	if t == nil || t.State == TaskPending || t.Hooking && t.up() {
		return dep.Name + " (started)"
	}
	if t.State == TaskExited {
		if v, _, _ := judge(dep, t); v == restart {
			return dep.Name + " (started)"
		}
	}
	return ""
}

// gone says that a task that should be healthy has ended for good.
func (p *planner) gone(dep *Service, t *Task) (why string, final bool) {
	if t == nil || t.State != TaskExited {
		return "", false
	}
	if v, _, _ := judge(dep, t); v == restart {
		return "", false
	}
	return fmt.Sprintf("%s to be healthy, but it %s", dep.Name, exitReason(t)), true
}

// Unmet is what a task outside of all slots waits for that depends on
// dependsOn: the first condition that does not hold, and whether it never will
// by itself. "": nothing.
func Unmet(want Stack, seen Observed, dependsOn []spec.Dependency, now time.Time) (why string, final bool) {
	return newPlanner(want, seen, now).unmet(&Service{DependsOn: dependsOn})
}
