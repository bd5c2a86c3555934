package agent

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"berth/dataplane"
	"berth/spec"
	"berth/store"
)

// Lifetimes of DNS answers, in seconds: short, because a replaced task's
// address is dead; the VIP outlives its tasks.
const (
	ttlVIP  = 5
	ttlTask = 1
)

// namespace collects the names of one network.
type namespace struct {
	rec   *store.Network
	names map[string]dataplane.Name
	ptr   map[netip.Addr]string
	// elsewhere are the other networks of those that are on several.
	elsewhere map[netip.Addr][]string
	clients   map[netip.Addr]dataplane.Client
}

func newNamespace(n *store.Network) *namespace {
	return &namespace{
		rec: n, names: map[string]dataplane.Name{}, ptr: map[netip.Addr]string{}, elsewhere: map[netip.Addr][]string{},
		clients: map[netip.Addr]dataplane.Client{},
	}
}

func (n *namespace) add(name string, ttl uint32, addrs ...netip.Addr) {
	if name == "" {
		return
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	e := n.names[name]
	for _, a := range addrs {
		if a.IsValid() && !slices.Contains(e.Addrs, a) {
			e.Addrs = append(e.Addrs, a)
		}
	}
	if e.TTL == 0 || ttl < e.TTL {
		e.TTL = ttl
	}
	n.names[name] = e
}

// service gives a service's names its virtual addresses: its own name, its
// aliases on this network, and container_name.
func (n *namespace) service(r *store.Revision, s *spec.Service, vip *store.VIP) {
	for _, a := range s.Networks {
		if r.Stack.Networks[a.Network].Name != n.rec.Name {
			continue
		}
		if a.NoServiceName {
			break
		}
		n.add(s.Name, ttlVIP, vip.IPv4, vip.IPv6)
	}
	n.add(s.ContainerName, ttlVIP, vip.IPv4, vip.IPv6)
	n.add(s.Hostname, ttlVIP, vip.IPv4, vip.IPv6)
	for _, a := range s.Networks {
		if r.Stack.Networks[a.Network].Name != n.rec.Name {
			continue
		}
		for _, alias := range a.Aliases {
			n.add(alias, ttlVIP, vip.IPv4, vip.IPv6)
		}
	}
	for _, addr := range []netip.Addr{vip.IPv4, vip.IPv6} {
		if addr.IsValid() {
			n.ptr[addr] = s.Name + "." + n.rec.Name
		}
	}
}

// task gives a running task its own names, one in rotation a place in
// tasks.SERVICE, and, without a VIP, in its service's name and aliases.
func (n *namespace) task(t *store.Task, e store.Endpoint, hasVIP bool) {
	n.add(t.Name(), ttlTask, e.IPv4, e.IPv6)
	n.add(t.ID, ttlTask, e.IPv4, e.IPv6)
	for _, addr := range []netip.Addr{e.IPv4, e.IPv6} {
		if addr.IsValid() {
			n.ptr[addr] = t.Name() + "." + n.rec.Name
		}
	}
	n.client(t, e)
	if !t.Rotation {
		return
	}
	n.add("tasks."+t.Service, ttlTask, e.IPv4, e.IPv6)
	if hasVIP {
		return
	}
	for _, name := range append([]string{t.Spec.ContainerName, t.Spec.Hostname}, e.Aliases...) {
		n.add(name, ttlTask, e.IPv4, e.IPv6)
	}
	if !e.NoServiceName {
		n.add(t.Service, ttlTask, e.IPv4, e.IPv6)
	}
}

// alsoOn tells n that t, whose address there is e, is on other networks too.
func (n *namespace) alsoOn(all map[string]*namespace, t *store.Task, e store.Endpoint) {
	for _, other := range t.Endpoints {
		ns := all[other.Network]
		if ns == nil || ns == n {
			continue
		}
		for _, addr := range []netip.Addr{e.IPv4, e.IPv6} {
			if addr.IsValid() {
				n.elsewhere[addr] = append(n.elsewhere[addr], ns.rec.ID)
			}
		}
	}
}

// client notes what t alone has of names: links and its own name servers.
func (n *namespace) client(t *store.Task, e store.Endpoint) {
	c := dataplane.Client{}
	for _, link := range slices.Concat(t.Spec.Links, t.Spec.ExternalLinks) {
		target, alias, found := strings.Cut(link, ":")
		if !found {
			continue // its own name is known as it is
		}
		if c.Links == nil {
			c.Links = map[string]string{}
		}
		c.Links[strings.ToLower(alias)] = strings.ToLower(target)
	}
	for _, server := range t.Spec.DNS {
		if a, err := netip.ParseAddr(server); err == nil {
			c.Upstreams = append(c.Upstreams, netip.AddrPortFrom(a, dnsPort))
		}
	}
	if c.Links == nil && c.Upstreams == nil {
		return
	}
	for _, addr := range []netip.Addr{e.IPv4, e.IPv6} {
		if addr.IsValid() {
			n.clients[addr] = c
		}
	}
}

const dnsPort = 53

func (n *namespace) network() dataplane.Network {
	out := dataplane.Network{
		ID: n.rec.ID, Internal: n.rec.Internal, Names: n.names, PTR: n.ptr, Elsewhere: n.elsewhere, Clients: n.clients,
	}
	for _, g := range []netip.Addr{n.rec.Gateway4, n.rec.Gateway6} {
		if g.IsValid() {
			out.Gateways = append(out.Gateways, g)
		}
	}
	for _, e := range n.names {
		slices.SortFunc(e.Addrs, netip.Addr.Compare)
	}
	return out
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
