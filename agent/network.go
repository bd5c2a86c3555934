package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"berth/crash"
	"berth/overlaynet"
	"berth/spec"
	"berth/store"
)

// ensured are the networks whose bridge exists, as far as is known.
type ensured struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (e *ensured) has(n *store.Network) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ids[n.ID]
}

func (e *ensured) set(id string, there bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ids == nil {
		e.ids = map[string]bool{}
	}
	e.ids[id] = there
}

func randomID() string {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// recordNetwork allocates subnets for a network that the file asks for and
// puts its record into c. A network whose settings changed gets a new id and
// new subnets; the old one lives on under another name until its last task
// has moved.
func (a *Agent) recordNetwork(c *change, stack string, n spec.Network) error {
	if n.External { // the machine's own: no stack has it
		stack, n = "", spec.Network{Key: n.Key, Name: n.Name}
	}
	if cur := c.network(n.Name); cur != nil {
		if cur.Stack == "" && cur.Key == n.Key && sameNetwork(cur.Spec, n) {
			back := *cur
			back.Stack = stack
			c.putNetwork(back)
			return nil
		}
		if cur.Stack != stack {
			return fmt.Errorf("network %s exists already and belongs to %s", n.Name, ownerName(cur.Stack))
		}
		if sameNetwork(cur.Spec, n) {
			return nil
		}
		a.retireNetwork(c, cur)
		if a.reviveNetwork(c, stack, n) {
			return nil
		}
	}
	rec, err := a.allocate(c, stack, n)
	if err != nil {
		return err
	}
	c.putNetwork(*rec)
	return nil
}

// ours says that a network is made when it is missing: those of the stack, and
// the one that all share.
func ours(n spec.Network) bool { return !n.External || n.Name == spec.MachineBridge }

// removeShared takes the network away that all stacks share, once none uses it,
// unless somebody made it by hand.
func (a *Agent) removeShared(ctx context.Context) error {
	n := a.w.view().networks[spec.MachineBridge]
	if n == nil || n.Key == "" || n.Stack != "" || a.foreign(n) != "" {
		return nil
	}
	return a.removeNetwork(ctx, n.Name)
}

func ownerName(stack string) string {
	if stack == "" {
		return "nobody: it was created by hand (use external: true)"
	}
	return "stack " + stack
}

func sameNetwork(x, y spec.Network) bool {
	return fmt.Sprint(x.Driver == "bridge" || x.Driver == "", x.DriverOpts, x.Internal, x.EnableIPv6, x.IPAM) ==
		fmt.Sprint(y.Driver == "bridge" || y.Driver == "", y.DriverOpts, y.Internal, y.EnableIPv6, y.IPAM)
}

// reviveNetwork gives a network that was retired its name back, if its settings
// are those that n asks for: a rollback finds the tasks on it as they were.
func (a *Agent) reviveNetwork(c *change, stack string, n spec.Network) bool {
	for _, name := range sortedKeys(c.w.networks) {
		old := c.network(name)
		if old == nil || old.Stack != stack || !strings.HasPrefix(name, n.Name+"~") || !sameNetwork(old.Spec, n) {
			continue
		}
		back := *old
		back.Name = n.Name
		c.dropNetwork(name)
		c.putNetwork(back)
		c.renameEndpoints(name, n.Name)
		return true
	}
	return false
}

// retireNetwork renames the record of a network that a new one follows.
func (a *Agent) retireNetwork(c *change, cur *store.Network) {
	old := *cur
	old.Name = cur.Name + "~" + cur.ID
	c.dropNetwork(cur.Name)
	c.putNetwork(old)
	c.renameEndpoints(cur.Name, old.Name)
	for key, v := range c.w.vips {
		if v.Network == cur.Name {
			c.dropVIP(key)
		}
	}
}

// renameEndpoints moves the endpoints of tasks to another name of their
// network.
func (c *change) renameEndpoints(from, to string) {
	for id, t := range c.w.tasks {
		if changed, ok := c.tasks[id]; ok {
			t = changed
		}
		if t == nil || !slices.ContainsFunc(t.Endpoints, func(e store.Endpoint) bool { return e.Network == from }) {
			continue
		}
		next := *t
		next.Endpoints = slices.Clone(t.Endpoints)
		for i := range next.Endpoints {
			if next.Endpoints[i].Network == from {
				next.Endpoints[i].Network = to
			}
		}
		c.putTask(next)
	}
}

func (a *Agent) allocate(c *change, stack string, n spec.Network) (*store.Network, error) {
	req := overlaynet.Request{ID: randomID(), IPv6: n.EnableIPv6, Internal: n.Internal}
	var range4, range6 netip.Prefix
	for _, pool := range n.IPAM {
		within, err := addPool(&req, n.Name, pool)
		if err != nil {
			return nil, err
		}
		switch {
		case !within.IsValid():
		case within.Addr().Is4():
			range4 = within
		default:
			range6 = within
		}
	}
	if mtu := cmp.Or(n.DriverOpts["com.docker.network.driver.mtu"], n.DriverOpts["mtu"]); mtu != "" {
		if _, err := fmt.Sscan(mtu, &req.MTU); err != nil {
			return nil, fmt.Errorf("mtu of network %s: %q is not a number", n.Name, mtu)
		}
	}
	var used []overlaynet.Network
	for name, rec := range c.w.networks {
		if _, changed := c.networks[name]; !changed {
			used = append(used, netOf(rec))
		}
	}
	for _, rec := range c.networks {
		if rec != nil {
			used = append(used, netOf(rec))
		}
	}
	got, err := a.networks.Allocate(req, used)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", n.Name, err)
	}
	return &store.Network{
		Name: n.Name, ID: got.ID, Stack: stack, Key: n.Key, Subnet4: got.Subnet4, Gateway4: got.Gateway4,
		Range4: range4, Range6: range6, Subnet6: got.Subnet6, Gateway6: got.Gateway6, Internal: got.Internal, MTU: got.MTU,
		Labels: n.Labels, Created: time.Now(), Spec: n,
	}, nil
}

// addPool asks for what a pool of the file says; within is where the addresses
// of tasks are to be.
func addPool(req *overlaynet.Request, network string, pool spec.IPAMPool) (within netip.Prefix, err error) {
	if pool.Subnet == "" {
		return within, nil
	}
	p, err := netip.ParsePrefix(pool.Subnet)
	if err != nil {
		return within, fmt.Errorf("subnet of network %s: %w", network, err)
	}
	if a := p.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() {
		return within, invalid("subnet %s of network %s can't be used for containers; take a private one such as 10.20.0.0/24", p, network)
	}
	req.Subnets = append(req.Subnets, p.Masked())
	if pool.Gateway != "" {
		g, err := netip.ParseAddr(pool.Gateway)
		if err != nil {
			return within, fmt.Errorf("gateway of network %s: %w", network, err)
		}
		req.Gateways = append(req.Gateways, g)
	}
	if pool.IPRange != "" {
		if within, err = netip.ParsePrefix(pool.IPRange); err != nil {
			return within, fmt.Errorf("ip_range of network %s: %w", network, err)
		}
	}
	return within, nil
}

// setAside are the addresses of a network that nobody gets who does not ask for
// them: its gateways and the file's aux_addresses.
func setAside(n *store.Network) map[netip.Addr]bool {
	out := map[netip.Addr]bool{n.Gateway4: true, n.Gateway6: true}
	for _, pool := range n.Spec.IPAM {
		for _, text := range pool.Aux {
			if a, err := netip.ParseAddr(text); err == nil {
				out[a] = true
			}
		}
	}
	return out
}

func (a *Agent) ensureNetwork(ctx context.Context, name string) error {
	v := a.w.view()
	n := v.networks[name]
	if n == nil {
		return fmt.Errorf("network %s has no record", name)
	}
	if err := a.networks.Ensure(ctx, netOf(n)); err != nil {
		return fmt.Errorf("make network %s: %w", name, err)
	}
	crash.At("network.ensured")
	a.ensured.set(n.ID, true)
	a.events.emit(apiEvent{Type: "network", Action: "create", Stack: n.Stack, Name: name})
	return a.traffic.sync(ctx)
}

func (a *Agent) removeNetwork(ctx context.Context, name string) error {
	n := a.w.view().networks[name]
	if n == nil {
		return nil
	}
	if user := a.foreign(n); user != "" {
		return a.disown(n, user)
	}
	a.ensured.set(n.ID, false)
	if err := a.traffic.sync(ctx); err != nil {
		return err
	}
	crash.At("network.unruled")
	if err := a.networks.Remove(ctx, netOf(n)); err != nil {
		return fmt.Errorf("remove network %s: %w", name, err)
	}
	crash.At("network.unmade")
	err := a.w.commit(func(c *change) error {
		if s, r := c.w.stacks[n.Stack], c.w.revisions[n.Stack]; s != nil && s.Removing == nil && wants(r, name) {
			return errors.New("it is wanted again") // the loop makes its bridge anew
		}
		c.dropNetwork(name)
		for key, v := range c.w.vips {
			if v.Network == name {
				c.dropVIP(key)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove network %s: %w", name, err)
	}
	crash.At("network.removed")
	a.events.emit(apiEvent{Type: "network", Action: "destroy", Stack: n.Stack, Name: name})
	return nil
}

// foreign names another stack that uses a network, as an external one; "" if
// none does.
func (a *Agent) foreign(n *store.Network) string {
	v := a.w.view()
	for _, t := range v.tasks {
		if t.Stack != n.Stack && slices.ContainsFunc(t.Endpoints, func(e store.Endpoint) bool { return e.Network == n.Name }) {
			return t.Stack
		}
	}
	for _, name := range sortedKeys(v.revisions) {
		if name != n.Stack && wants(v.revisions[name], n.Name) {
			return name
		}
	}
	return ""
}

// disown lets a network live on without the stack that made it. That stack
// gets it back with its next up; else it is there until it is removed by hand.
func (a *Agent) disown(n *store.Network, user string) error {
	a.log.Warn("a network stays: another stack uses it", "network", n.Name, "user", user)
	err := a.w.commit(func(c *change) error {
		cur := c.network(n.Name)
		if cur == nil {
			return nil
		}
		next := *cur
		next.Stack = ""
		c.putNetwork(next)
		return nil
	})
	if err != nil {
		return fmt.Errorf("give up network %s: %w", n.Name, err)
	}
	return nil
}

// attachmentsInOrder are the networks as interfaces are numbered: by priority,
// highest first, then by name.
func attachmentsInOrder(list []spec.Attachment) []spec.Attachment {
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(x, y spec.Attachment) int { return y.Priority - x.Priority })
	return out
}

// defaultRoute chooses the network that carries the default route: the highest
// gw_priority among those that are not internal.
func defaultRoute(r *store.Revision, list []spec.Attachment) string {
	best, found := spec.Attachment{}, false
	for _, at := range attachmentsInOrder(list) {
		if r.Stack.Networks[at.Network].Internal && found {
			continue
		}
		internalBest := found && r.Stack.Networks[best.Network].Internal
		if !found || internalBest || at.GwPriority > best.GwPriority {
			best, found = at, true
		}
	}
	return best.Network
}

// upstreams are the resolvers for names that are not ours.
func (a *Agent) upstreams() []netip.AddrPort {
	if len(a.cfg.DNS) > 0 {
		return a.cfg.DNS
	}
	// systemd-resolved lists the real servers here; its own 127.0.0.53 is
	// reachable too, as the dataplane runs on the host.
	for _, path := range []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"} {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		conf, err := dns.ClientConfigFromFile(path)
		if err != nil {
			continue
		}
		var out []netip.AddrPort
		for _, s := range conf.Servers {
			if addr, err := netip.ParseAddr(s); err == nil {
				out = append(out, netip.AddrPortFrom(addr, 53))
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}
