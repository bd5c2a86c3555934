package agent

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"berth/api"
	"berth/reconciler"
	"berth/spec"
	"berth/store"
)

// surge is the memory that a rollout needs beside what runs, in bytes.
type surge struct {
	reserved int64 // by reservations: asked for
	limit    int64 // by limits: possible
	// most is the service that reserves, or may use, the most.
	most string
}

// checkMemory finds out before anything is touched whether new tasks fit
// beside the old ones. What is reserved must fit; what is only limited may
// not, and gets a warning.
func (a *Agent) checkMemory(req *api.ApplyRequest, cur *store.Stack, rev, next *store.Revision, record *store.Stack, report func(api.Progress)) error {
	available, ok := availableMemory(a.meminfo)
	if !ok || req.NoStart {
		return nil
	}
	need := a.surgeOf(cur, rev, next, record)
	svc := next.Stack.Services[need.most]
	switch {
	case need.reserved > available:
		order := ""
		if rev != nil {
			order = ", or set deploy.update_config.order: stop-first"
		}
		return placed(&next.Stack, "services."+need.most, &api.Error{
			Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid,
			Detail: fmt.Sprintf("the new tasks reserve %s beside what runs, and %s are available", bytesText(need.reserved), bytesText(available)),
			Hint:   "free some memory, lower the reservations of " + svc.Name + order,
		})
	case need.limit > available:
		report(api.Progress{Warning: fmt.Sprintf(
			"new tasks may use up to %s beside what runs, and %s are available", bytesText(need.limit), bytesText(available))})
	}
	return nil
}

// surgeOf adds up what runs at the same time as the old tasks: all of a new
// service, and of a replaced one as many as are replaced at once.
func (a *Agent) surgeOf(cur *store.Stack, rev, next *store.Revision, record *store.Stack) surge {
	v := a.w.view()
	var before map[string]string
	if rev != nil {
		before = keys(v, cur, rev)
	}
	after := keys(v, record, next)
	var out surge
	var most int64
	for _, name := range sortedKeys(next.Stack.Services) {
		svc := next.Stack.Services[name]
		n := int64(a.surplus(&svc, next, rev, before[name] != after[name]))
		reserved, limit := n*svc.Resources.MemoryReservation, n*svc.Resources.Memory
		out.reserved += reserved
		out.limit += max(limit, reserved)
		if w := max(limit, reserved); w > most {
			out.most, most = name, w
		}
	}
	return out
}

// surplus is how many tasks of svc come beside those that run.
func (a *Agent) surplus(svc *spec.Service, next, rev *store.Revision, changed bool) int {
	was := 0
	if rev != nil {
		was = rev.Stack.Services[svc.Name].Replicas
	}
	more := max(0, svc.Replicas-was)
	if !changed || was == 0 {
		return more
	}
	if order, _ := a.order(&next.Stack, svc, next.Digests[svc.Name]); order == reconciler.StopFirst {
		return more
	}
	atOnce := updateOf(svc, false).Parallelism
	if atOnce == 0 {
		atOnce = was
	}
	return more + min(atOnce, was)
}

// checkCPUs holds the processors that a stack reserves, beside what all other
// stacks do, against those of the machine.
func (a *Agent) checkCPUs(req *api.ApplyRequest, next *store.Revision) error {
	if req.NoStart {
		return nil
	}
	reserved, most := reservedCPUs(&next.Stack)
	others := int64(0)
	if most == "" {
		return nil
	}
	v := a.w.view()
	for name, r := range v.revisions {
		if name != next.Stack.Name && v.stacks[name].Removing == nil {
			n, _ := reservedCPUs(&r.Stack)
			others += n
		}
	}
	if reserved+others <= int64(a.cpus)*1e9 {
		return nil
	}
	beside := ""
	if others > 0 {
		beside = fmt.Sprintf(" beside %.2f of other stacks", float64(others)/1e9)
	}
	return placed(&next.Stack, "services."+most+".deploy.resources.reservations.cpus", &api.Error{
		Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid,
		Detail: fmt.Sprintf("the stack reserves %.2f CPUs%s, and this machine has %d", float64(reserved)/1e9, beside, a.cpus),
		Hint:   "lower the reservations of " + most + ", or its replicas",
	})
}

// reservedCPUs adds the reservations of st up, in billionths; most is the
// service that reserves the most.
func reservedCPUs(st *spec.Stack) (sum int64, most string) {
	var top int64
	for _, name := range sortedKeys(st.Services) {
		s := st.Services[name]
		n := s.Resources.CPUReservation * int64(s.Replicas)
		if sum += n; n > top {
			top, most = n, name
		}
	}
	return sum, most
}

// availableMemory reads MemAvailable of meminfo (proc(5)), in bytes.
func availableMemory(path string) (int64, bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		rest, found := strings.CutPrefix(lines.Text(), "MemAvailable:")
		if !found {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		return kib << 10, err == nil
	}
	return 0, false
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	default:
		return fmt.Sprintf("%d MiB", n>>20)
	}
}
