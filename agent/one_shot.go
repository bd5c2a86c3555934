package agent

import (
	"maps"
	"slices"

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
	for _, t := range c.w.tasks {
		svc, ok := rev.Stack.Services[t.Service]
		done := t.State == store.StateExited && t.ExitCode == 0 && t.Reason == ""
		if !ok || t.OneOff != nil || !svc.OneShot || t.Stack != s.Name || !done || slices.Contains(out[t.Service], t.Key) {
			continue
		}
		list := append(slices.Clone(out[t.Service]), t.Key)
		out[t.Service] = list[max(0, len(list)-keptCompletions):]
	}
	return out
}
