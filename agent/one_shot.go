package agent

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"berth/spec"
	"berth/store"
)

// runs says for each one-shot of next in which revision it has to run: again
// when it, or a service that waits for its end, has changed.
func runs(v view, rev, next *store.Revision) map[string]uint64 {
	changed := func(name string) bool {
		now := next.Stack.Services[name]
		before, ok := rev.Stack.Services[name]
		return !ok || spec.Hash(&before, identity(v, rev, name)) != spec.Hash(&now, identity(v, next, name))
	}
	out := map[string]uint64{}
	for name, s := range next.Stack.Services {
		if !s.OneShot {
			continue
		}
		out[name] = next.Number
		if rev == nil || changed(name) {
			continue
		}
		again := false
		for other, o := range next.Stack.Services {
			waits := slices.ContainsFunc(o.DependsOn, func(d spec.Dependency) bool {
				return d.Service == name && d.Condition == spec.DependsCompleted
			})
			again = again || waits && !o.OneShot && changed(other)
		}
		if !again {
			out[name] = rev.Runs[name]
		}
	}
	return out
}

// keptCompletions is how many completed versions of a one-shot are remembered.
const keptCompletions = 2 * keptRevisions

// completed adds the versions of one-shots that have run to their end.
func (a *Agent) completed(c *change, s *store.Stack, rev *store.Revision) map[string][]string {
	out := maps.Clone(s.Completed)
	if out == nil {
		out = map[string][]string{}
	}
	type version struct{ service, key string }
	done := map[version]map[int]bool{}
	for _, t := range c.w.tasks {
		svc, ok := rev.Stack.Services[t.Service]
		if !ok || t.OneOff != nil || !svc.OneShot || t.Stack != s.Name || t.State != store.StateExited || t.ExitCode != 0 || t.Reason != "" {
			continue
		}
		v := version{t.Service, t.Key}
		if done[v] == nil {
			done[v] = map[int]bool{}
		}
		done[v][t.Slot] = true
	}
	for v, slots := range done {
		n := 0
		for slots[n+1] {
			n++
		}
		if n > completions(out[v.service], v.key) {
			out[v.service] = addCompletions(out[v.service], v.key, n)
		}
	}
	return out
}

// completions is how many slots of a version have run to their end.
func completions(list []string, key string) int {
	n := 0
	for _, s := range list {
		version, slots, more := strings.Cut(s, "*")
		if version != key {
			continue
		}
		n = 1
		if more {
			n, _ = strconv.Atoi(slots) // written by addCompletions
		}
	}
	return n
}

func addCompletions(list []string, key string, n int) []string {
	list = slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == key || strings.HasPrefix(s, key+"*") })
	if n > 1 {
		key = fmt.Sprintf("%s*%d", key, n)
	}
	list = append(list, key)
	return list[max(0, len(list)-keptCompletions):]
}
