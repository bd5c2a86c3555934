package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"berth/crash"
	"berth/dataplane"
	"berth/overlaynet"
	"berth/spec"
	"berth/store"
)

// traffic keeps rules and names equal to the set of published tasks. Many
// requests that arrive while one change is made share the next one.
type traffic struct {
	a   *Agent
	req chan chan error

	failed atomic.Bool // the last apply did: what is in force is out of date

	mu       sync.Mutex
	snapshot dataplane.Snapshot
}

// Between two changes of the rules lies a time, so that fifty tasks that
// become ready together cost a few changes, not fifty: at least pace, and
// several times what the last change took, so that a machine under load is
// not kept busy by it.
const (
	pace     = 20 * time.Millisecond
	paceMost = 400 * time.Millisecond
	paceBy   = 4
	together = time.Millisecond // those that ask at one moment always share
)

func newTraffic(a *Agent) *traffic { return &traffic{a: a, req: make(chan chan error)} }

// sync makes the kernel and DNS match the records as they are now, and
// returns when they do.
func (t *traffic) sync(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case t.req <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// trafficRetryMost bounds the back-off after a change that failed. Somebody waits for
// most changes and asks again; an exit or a foreign flush has nobody.
const trafficRetryMost = 10 * time.Second

func (t *traffic) run(ctx context.Context) {
	var last time.Time
	var took, backoff time.Duration
	var again <-chan time.Time // set while the last change failed
	for {
		var waiting []chan error
		select {
		case <-ctx.Done():
			return
		case d := <-t.req:
			waiting = append(waiting, d)
		case <-again:
		}
		gap := min(max(pace, paceBy*took), paceMost)
		waiting, ok := t.gather(ctx, waiting, max(together, gap-time.Since(last)))
		if !ok {
			return
		}
		last = time.Now()
		err := t.apply(ctx)
		took = time.Since(last)
		for _, d := range waiting {
			d <- err
		}
		if err == nil {
			again, backoff = nil, 0
			continue
		}
		if backoff = min(max(2*backoff, retryFirst), trafficRetryMost); ctx.Err() == nil {
			t.a.log.Error("lead the traffic", "again in", backoff, "err", err)
		}
		again = time.After(backoff)
	}
}

// gather collects further requests for a while: they share the next change.
func (t *traffic) gather(ctx context.Context, waiting []chan error, d time.Duration) ([]chan error, bool) {
	hold := time.NewTimer(d)
	defer hold.Stop()
	for {
		select {
		case w := <-t.req:
			waiting = append(waiting, w)
		case <-hold.C:
			return waiting, true
		case <-ctx.Done():
			return nil, false
		}
	}
}

// apply computes rules and names whole and puts them in force.
func (t *traffic) apply(ctx context.Context) (err error) {
	defer func() { t.failed.Store(err != nil) }()
	v := t.a.w.view()
	rules, snap := t.a.rules(v)
	// Who takes traffic is durable before it does, or the next agent would take
	// it away. A disk that is full must not keep the dead in the traffic.
	if err := t.a.w.flush(); err != nil {
		t.a.log.Error("flush before a change of the rules", "err", err)
	}
	if err := t.a.traffics(ctx, rules); err != nil {
		return err
	}
	crash.At("traffic.ruled")
	t.mu.Lock()
	t.snapshot = snap
	t.mu.Unlock()
	return t.a.writeSnapshot(snap)
}

// traffics puts the rules in force, or takes them away with the last network.
func (a *Agent) traffics(ctx context.Context, r overlaynet.Rules) error {
	if len(r.Networks) == 0 && len(r.Ports) == 0 {
		return a.networks.Teardown(ctx)
	}
	return a.networks.Sync(ctx, r)
}

func (a *Agent) writeSnapshot(s dataplane.Snapshot) error {
	if err := a.dataplaneFolder(); err != nil {
		return err
	}
	if err := dataplane.Write(dataplane.SnapshotPath(a.cfg.Run), s); err != nil {
		return fmt.Errorf("write the names: %w", err)
	}
	return a.ensureDataplane(len(s.Networks) > 0 || len(s.Loopback) > 0)
}

// rules computes the wanted rules and names from the records.
func (a *Agent) rules(v view) (overlaynet.Rules, dataplane.Snapshot) {
	var r overlaynet.Rules
	snap := dataplane.Snapshot{Version: 1, Upstreams: a.upstreams()}
	names := map[string]*namespace{}
	for _, name := range sortedKeys(v.networks) {
		n := v.networks[name]
		if !a.ensured.has(n) {
			continue
		}
		r.Networks = append(r.Networks, netOf(n))
		names[name] = newNamespace(n)
	}
	for _, key := range sortedKeys(v.vips) {
		vip := v.vips[key]
		n := v.networks[vip.Network]
		if n == nil || names[vip.Network] == nil {
			continue
		}
		r.Services = append(r.Services, overlaynet.Service{
			ID: vip.Stack + "/" + vip.Service + "/" + vip.Network, NetworkID: n.ID, VIP4: vip.IPv4, VIP6: vip.IPv6,
			Backends: a.backends(v, vip.Stack, vip.Service, vip.Network), Hold: a.holds.has(vip.Stack, vip.Service),
		})
		rev := v.revisions[vip.Stack]
		if rev == nil {
			continue
		}
		svc, ok := rev.Stack.Services[vip.Service]
		if !ok { // it is no longer in the file, and what still uses it finds it
			svc, ok = lastSpec(v, vip.Stack, vip.Service)
		}
		if ok {
			names[vip.Network].service(rev, &svc, vip)
		}
	}
	for _, t := range v.tasks {
		if t.Live() {
			taskNames(v, t, names, &r)
		}
	}
	a.publishedPorts(v, &r, &snap)
	a.oneOffPorts(v, &r, &snap)
	for _, name := range sortedKeys(names) {
		snap.Networks = append(snap.Networks, names[name].network())
	}
	return r, snap
}

// taskNames gives t its names on all of its networks.
func taskNames(v view, t *store.Task, names map[string]*namespace, r *overlaynet.Rules) {
	for _, e := range t.Endpoints {
		ns := names[e.Network]
		if ns == nil {
			continue
		}
		ns.alsoOn(names, t, e)
		ns.task(t, e, v.vips[store.VIPKey(e.Network, t.Stack, t.Service)] != nil)
		if wantsHost(&t.Spec) {
			r.HostUsers = append(r.HostUsers, e.IPv4)
			if e.IPv6.IsValid() {
				r.HostUsers = append(r.HostUsers, e.IPv6)
			}
		}
	}
}

// wantsHost says that the file of s leads it to the host: extra_hosts with
// host-gateway.
func wantsHost(s *spec.Service) bool {
	return slices.ContainsFunc(s.ExtraHosts, func(h string) bool { return strings.HasSuffix(h, "=host-gateway") })
}

// lastSpec is the service as its live tasks run it.
func lastSpec(v view, stack, service string) (spec.Service, bool) {
	for _, t := range slices.Backward(v.tasks) {
		if t.Stack == stack && t.Service == service && t.OneOff == nil && t.Live() {
			return t.Spec, true
		}
	}
	return spec.Service{}, false
}

// backends are the tasks in rotation of a service on one network ("": on that
// of their default route, where its published ports lead, which are no one-off
// task's), with the weights that a canary asks for.
func (a *Agent) backends(v view, stack, service, network string) []overlaynet.Backend {
	var out []overlaynet.Backend
	var fresh []bool
	canary, key := a.canaryKey(v, stack, service)
	for _, t := range v.tasks {
		if t.Stack != stack || t.Service != service || !t.Rotation || !t.Live() || t.OneOff != nil && network == "" {
			continue
		}
		for _, e := range t.Endpoints {
			if e.Network == network || network == "" && e.Default {
				out = append(out, overlaynet.Backend{TaskID: t.ID, Addr4: e.IPv4, Addr6: e.IPv6})
				fresh = append(fresh, t.Key == key)
			}
		}
	}
	if canary == nil {
		return out
	}
	n := 0
	for _, f := range fresh {
		if f {
			n++
		}
	}
	ofFresh, ofOld := weights(canary.Percent, n, len(out)-n)
	for i := range out {
		out[i].Weight = ofOld
		if fresh[i] {
			out[i].Weight = ofFresh
		}
	}
	return out
}

// canaryKey is the canary of a service, if it has one, and the key of its
// tasks.
func (a *Agent) canaryKey(v view, stack, service string) (*store.Canary, string) {
	s, r := v.stacks[stack], v.revisions[stack]
	if s == nil || !underWay(s.Rollout) || s.Rollout.Canary == nil || s.Rollout.Canary.Service != service {
		return nil, ""
	}
	return s.Rollout.Canary, a.derive(v, s, r).keys[service]
}

// guests are the tasks in rotation of a service that has no addresses of its
// own: each is reached at those of the task whose network it shares.
func guests(v view, stack, service string) []overlaynet.Backend {
	byID := map[string]*store.Task{}
	for _, t := range v.tasks {
		byID[t.ID] = t
	}
	var out []overlaynet.Backend
	for _, t := range v.tasks {
		host := byID[t.Parent]
		if t.Stack != stack || t.Service != service || !t.Rotation || !t.Live() || host == nil {
			continue
		}
		for _, e := range host.Endpoints {
			if e.Default {
				out = append(out, overlaynet.Backend{TaskID: t.ID, Addr4: e.IPv4, Addr6: e.IPv6})
			}
		}
	}
	return out
}

func (a *Agent) publishedPorts(v view, r *overlaynet.Rules, snap *dataplane.Snapshot) {
	for _, name := range sortedKeys(v.stacks) {
		s, rev := v.stacks[name], v.revisions[name]
		if s.Removing != nil {
			continue
		}
		for _, service := range sortedKeys(rev.Stack.Services) {
			svc := rev.Stack.Services[service]
			if !publishes(&svc) {
				continue // nor does it hold its ports: another stack may
			}
			var targets []overlaynet.Backend
			switch {
			case svc.NetworkMode == "":
				targets = a.backends(v, name, service, "")
			case strings.HasPrefix(svc.NetworkMode, "service:"):
				targets = guests(v, name, service)
			default:
				continue
			}
			for i, p := range svc.Ports {
				port := s.Ports[portKey(service, i)]
				if port == 0 {
					port = p.Published
				}
				if port == 0 {
					continue
				}
				host, _ := netip.ParseAddr(p.HostIP)
				r.Ports = append(r.Ports, overlaynet.PublishedPort{
					ID:     fmt.Sprintf("%s/%s/%d", name, service, i),
					HostIP: host, Port: port, Protocol: p.Protocol, Target: p.Target, Backends: targets,
					Hold: a.holds.has(name, service),
				})
				if p.Protocol == "tcp" && (!host.IsValid() || host.IsUnspecified() || host == netip.IPv6Loopback()) {
					snap.Loopback = append(snap.Loopback, loopback(port, p, targets))
				}
			}
		}
	}
}

func loopback(port uint16, p spec.Port, targets []overlaynet.Backend) dataplane.Loopback {
	l := dataplane.Loopback{Port: port}
	for _, b := range targets {
		addr := b.Addr4
		if !addr.IsValid() {
			addr = b.Addr6
		}
		l.Backends = append(l.Backends, netip.AddrPortFrom(addr, p.Target))
	}
	slices.SortFunc(l.Backends, netip.AddrPort.Compare)
	return l
}

func portKey(service string, i int) string { return fmt.Sprintf("%s/%d", service, i) }
