package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"berth/api"
	"berth/reconciler"
	"berth/spec"
	"berth/store"
)

// Defaults of a rollout for a silent file (DESIGN.md, Rollout).
const (
	defaultGrace       = 10 * time.Second
	defaultDrain       = 30 * time.Second
	defaultParallelism = 1
	defaultMonitor     = 10 * time.Second
)

// updateOf fills the defaults of update_config in, or those of
// rollback_config while rolling back: then all at once, as what is gone back
// to has been watched before, and a failure pauses.
func updateOf(s *spec.Service, rollback bool) reconciler.Update {
	u := reconciler.Update{Parallelism: defaultParallelism, Monitor: defaultMonitor}
	from := s.Update
	if rollback {
		u = reconciler.Update{OnFailure: reconciler.ActionPause}
		from = s.Rollback
	}
	if from == nil {
		return u
	}
	if from.Parallelism != nil {
		u.Parallelism = *from.Parallelism
	}
	if from.Delay != nil {
		u.Delay = *from.Delay
	}
	if from.Monitor != nil {
		u.Monitor = *from.Monitor
	}
	u.MaxFailureRatio = from.MaxFailureRatio
	switch from.FailureAction {
	case "rollback":
		u.OnFailure = reconciler.ActionRollback
	case "pause":
		u.OnFailure = reconciler.ActionPause
	case "continue":
		u.OnFailure = reconciler.ActionContinue
	}
	return u
}

// identity gives what the hash of a service covers beside its own fields.
func identity(v view, r *store.Revision, service string) spec.Identity {
	s := r.Stack.Services[service]
	id := spec.Identity{
		ImageDigest: r.Digests[service],
		Configs:     map[string]string{}, Secrets: map[string]string{},
		Volumes: map[string]string{}, Networks: map[string]string{},
	}
	for _, f := range s.Configs {
		id.Configs[f.Source] = contentIdentity(&r.Stack, &s, api.KindConfig, f.Source)
	}
	for _, f := range s.Secrets {
		id.Secrets[f.Source] = contentIdentity(&r.Stack, &s, api.KindSecret, f.Source)
	}
	for _, m := range s.Mounts {
		if m.Type == spec.MountVolume && m.Source != "" {
			id.Volumes[m.Source] = r.Stack.Volumes[m.Source].Name
		}
	}
	for _, at := range s.Networks {
		if n := v.networks[r.Stack.Networks[at.Network].Name]; n != nil {
			id.Networks[at.Network] = n.ID
		}
	}
	return id
}

// keys gives the key of a current task for each service: its hash, the number
// of its explicit restarts, the keys of the services whose replacement restarts
// it (depends_on.restart), and for a one-shot the revision in which it runs.
func keys(v view, s *store.Stack, r *store.Revision) map[string]string {
	out := map[string]string{}
	var key func(name string, seen []string) string
	key = func(name string, seen []string) string {
		if k, ok := out[name]; ok {
			return k
		}
		svc := r.Stack.Services[name]
		k := spec.Hash(&svc, identity(v, r, name))
		var more []string
		if svc.OneShot {
			more = append(more, fmt.Sprintf("run %d", r.Runs[name]))
		}
		if e := s.Epochs[name]; e > 0 {
			more = append(more, fmt.Sprintf("epoch %d", e))
		}
		for _, d := range svc.DependsOn {
			if _, ok := r.Stack.Services[d.Service]; ok && d.Restart && !slices.Contains(seen, d.Service) {
				more = append(more, d.Service+" "+key(d.Service, append(seen, name)))
			}
		}
		if more != nil {
			sum := sha256.Sum256([]byte(k + "\n" + strings.Join(more, "\n")))
			k = "v1:" + hex.EncodeToString(sum[:])
		}
		out[name] = k
		return k
	}
	for name := range r.Stack.Services {
		key(name, nil)
	}
	return out
}

// inPlace is the digest of what UpdateTask brings to a running container: its
// limits, and contents whose change does not replace it. The other in-place
// fields (ports, tests, restart policy, grace) are read from the wanted
// revision where they are used.
func inPlace(s *spec.Service, contents map[string]string) string {
	data, err := json.Marshal(s.Resources)
	if err != nil {
		panic(fmt.Sprintf("resources of %s: %v", s.Name, err)) // numbers and strings only
	}
	for _, key := range sortedKeys(contents) {
		data = fmt.Appendf(data, "\n%s %s", key, contents[key])
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// writable names what the tasks of s write to and share with their successor.
func writable(st *spec.Stack, s *spec.Service, imageVolumes []string) []string {
	var out []string
	for _, m := range s.Mounts {
		if m.ReadOnly {
			continue
		}
		switch {
		case m.Type == spec.MountVolume && m.Source == "":
			out = append(out, "anonymous volume "+m.Target)
		case m.Type == spec.MountVolume:
			out = append(out, "volume "+m.Source)
		case m.Type == spec.MountBind:
			if fi, err := os.Stat(m.Source); err == nil && fi.IsDir() {
				out = append(out, "bind "+strings.TrimPrefix(m.Source, st.Dir+"/"))
			}
		}
	}
	for _, target := range imageVolumes {
		if !slices.ContainsFunc(s.Mounts, func(m spec.Mount) bool { return m.Target == target }) {
			out = append(out, "anonymous volume "+target)
		}
	}
	return out
}

// order is the order of replacing tasks of s, and why.
func (a *Agent) order(st *spec.Stack, s *spec.Service, digest string) (reconciler.Order, string) {
	return reconciler.OrderOf(s, writable(st, s, a.imageVolumes(digest)))
}

func (a *Agent) imageVolumes(digest string) []string {
	if digest == "" {
		return nil
	}
	img, err := a.images.Resolve(digest)
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(img.Config.Volumes))
	for target := range img.Config.Volumes {
		out = append(out, target)
	}
	slices.Sort(out)
	return out
}

// desired is what the planner shall reach for one stack.
func (a *Agent) desired(v view, s *store.Stack, r *store.Revision) reconciler.Stack {
	out := reconciler.Stack{
		Name: s.Name, Revision: r.Number, Removing: s.Removing != nil, Rollout: rolloutOf(s),
		Services: map[string]reconciler.Service{},
	}
	back := out.Rollout != nil && out.Rollout.State >= reconciler.RollingBack
	for _, n := range r.Stack.Networks {
		if ours(n) {
			out.Networks = append(out.Networks, n.Name)
		}
	}
	d := a.derive(v, s, r)
	for name, svc := range r.Stack.Services {
		e := reconciler.Service{
			Name: name, Key: d.keys[name], InPlace: d.inPlace[name], Replicas: svc.Replicas,
			Order: d.orders[name], Update: updateOf(&svc, back), MinReady: svc.MinReady, Deadline: d.deadlines[name],
			DependsOn: svc.DependsOn, Restart: svc.Restart, OneShot: svc.OneShot,
			Completed: completions(s.Completed[name], d.keys[name]),
			Stopped:   s.Stopped[name], Drain: drain(&svc), Grace: grace(s, &svc),
		}
		e.Fits, e.Unfit, _ = fits(a.node, &svc)
		e.Shares, e.Containers = shares(v, &svc)
		for _, at := range svc.Networks {
			e.Networks = append(e.Networks, r.Stack.Networks[at.Network].Name)
		}
		out.Services[name] = e
	}
	return out
}

// drain is how long a withdrawn task of s may finish its connections.
func drain(s *spec.Service) time.Duration {
	if s.Drain != nil {
		return *s.Drain
	}
	return defaultDrain
}

// leastDeadline is how long a task may at least take to become ready
// (DESIGN.md, Rollout).
const leastDeadline = 120 * time.Second

// deadline is how long a task of s may take to become ready: as long as its
// health test may rightly take, and a minute.
func (a *Agent) deadline(s *spec.Service, digest string) time.Duration {
	if s.ProgressDeadline > 0 {
		return s.ProgressDeadline
	}
	d := leastDeadline
	for _, which := range []test{healthTest, readinessTest} {
		if c := a.check(&store.Task{Digest: digest, Spec: *s}, which); c != nil {
			d = max(d, c.startPeriod+time.Duration(c.retries)*c.interval+time.Minute)
		}
	}
	return d
}

func grace(st *store.Stack, s *spec.Service) time.Duration {
	switch {
	case st.Removing != nil && st.Removing.Timeout != nil:
		return *st.Removing.Timeout
	case st.StopTimeout != nil && (st.StopTimeoutAll || st.Stopped[s.Name]):
		return *st.StopTimeout
	case s.StopGracePeriod != nil:
		return *s.StopGracePeriod
	}
	return defaultGrace
}

// derived is what desired computes from a revision and the loop needs often.
type derived struct {
	revision *store.Revision
	stack    *store.Stack
	networks string
	keys     map[string]string
	inPlace  map[string]string
	orders   map[string]reconciler.Order
	// deadlines are how long a task may take to become ready.
	deadlines map[string]time.Duration
}

// derive computes keys and orders once per revision and network identity.
func (a *Agent) derive(v view, s *store.Stack, r *store.Revision) *derived {
	var ids []string
	for _, n := range r.Stack.Networks {
		if rec := v.networks[n.Name]; rec != nil {
			ids = append(ids, n.Name+" "+rec.ID)
		}
	}
	slices.Sort(ids)
	networks := strings.Join(ids, " ")
	a.deriveMu.Lock()
	defer a.deriveMu.Unlock()
	if d := a.derivedOf[s.Name]; d != nil && d.revision == r && d.stack == s && d.networks == networks {
		return d
	}
	d := &derived{
		revision: r, stack: s, networks: networks, keys: keys(v, s, r),
		inPlace: map[string]string{}, orders: map[string]reconciler.Order{}, deadlines: map[string]time.Duration{},
	}
	for name, svc := range r.Stack.Services {
		d.inPlace[name] = inPlace(&svc, inPlaceContents(r, name))
		d.orders[name], _ = a.order(&r.Stack, &svc, r.Digests[name])
		if underWay(s.Rollout) && s.Rollout.State == api.RolloutRollingBack && svc.Rollback != nil && svc.Rollback.Order != "" {
			back := svc
			back.Update = svc.Rollback
			d.orders[name], _ = a.order(&r.Stack, &back, r.Digests[name])
		}
		d.deadlines[name] = a.deadline(&svc, r.Digests[name])
	}
	a.derivedOf[s.Name] = d
	return d
}

// observed is what the records and the watchers know of one stack.
func (a *Agent) observed(v view, s *store.Stack, r *store.Revision) reconciler.Observed {
	o := reconciler.Observed{Networks: map[string]bool{}, Attempts: map[string]int{}}
	used := map[string]bool{}
	for _, t := range v.tasks {
		if t.Stack != s.Name {
			continue
		}
		if t.OneOff != nil && s.Removing == nil { // none of the planner's before it ends the stack
			if t.State != store.StateRemoved {
				for _, e := range t.Endpoints {
					used[e.Network] = true
				}
			}
			continue
		}
		slot := fmt.Sprintf("%s/%d", t.Service, t.Slot)
		o.Attempts[slot] = max(o.Attempts[slot], t.Attempt)
		if t.State == store.StateRemoved {
			continue
		}
		for _, e := range t.Endpoints {
			used[e.Network] = true
		}
		seen, own := a.observeTask(t), grace(s, &t.Spec)
		seen.Grace = &own
		if _, still := r.Stack.Services[t.Service]; !still {
			order, _ := a.order(&r.Stack, &t.Spec, t.Digest)
			seen.Exclusive = order == reconciler.StopFirst
		}
		o.Tasks = append(o.Tasks, seen)
	}
	for name, n := range v.networks {
		if n.Stack != s.Name && name != spec.MachineBridge {
			continue
		}
		if a.ensured.has(n) {
			o.Networks[name] = true
		}
		if n.Stack != s.Name {
			continue
		}
		if !wants(r, name) && !used[name] {
			o.Idle = append(o.Idle, name)
		}
	}
	slices.Sort(o.Idle)
	return o
}

func wants(r *store.Revision, network string) bool {
	for _, n := range r.Stack.Networks {
		if n.Name == network {
			return true
		}
	}
	return false
}

func (a *Agent) observeTask(t *store.Task) reconciler.Task {
	out := reconciler.Task{
		ID: t.ID, Service: t.Service, Slot: t.Slot, Attempt: t.Attempt, Key: t.Key, InPlace: t.InPlace,
		// One that is being withdrawn still may get connections, and serves no more.
		Published: t.Published && t.Rotation, Exposed: t.Published || t.Rotation, WithdrawnAt: t.Withdrawn, StopAt: t.StopAt, KilledAt: t.KilledAt,
		StartedAt: t.Started, FinishedAt: t.Finished, ExitCode: t.ExitCode, Lost: t.Lost,
		Failures: t.Failures, Restarts: t.Restarts, Restarted: t.Restarted, Parents: parents(t), Reason: t.Reason,
		Unstartable: t.Unstartable, Retry: t.Retry, LastLine: t.LastLine,
	}
	if len(t.Endpoints) > 0 { // else it has no address that connections lead to
		out.Flows, out.Idle = a.flows.count(t.ID)
	}
	switch t.State {
	case store.StatePending:
		out.State = reconciler.TaskPending
	case store.StateRunning:
		out.State = reconciler.TaskRunning
	case store.StatePaused:
		out.State = reconciler.TaskPaused
	default:
		out.State = reconciler.TaskExited
	}
	out.Hooking = beginning(t)
	out.Checked, out.Healthy = tested(t)
	out.Unhealthy, out.Doubtful = a.unhealthy(t), a.doubtful(t)
	ready, reason := a.readiness(t)
	out.ReadyAt, out.UnreadyAt = t.ReadyAt, t.UnreadyAt
	switch {
	case ready && t.ReadySince.IsZero():
		out.Reason = "it becomes ready" // the next pass knows since when
	case ready:
		out.Ready, out.ReadySince, out.Reason = true, t.ReadySince, ""
		if out.Unhealthy {
			out.Reason = a.probes.reason(t, livenessTest)
		}
	case out.State == reconciler.TaskRunning:
		out.Reason = reason
	}
	return out
}
