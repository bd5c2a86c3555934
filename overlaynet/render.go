package overlaynet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// mark is the bit, in the mark of packets and of connections, that lets a
// packet to a task's address pass the ip rule guard. It is set on connections
// to published ports, on answers, and on what tasks send.
const mark = 0x10000000

// Render gives the text of the nftables table, named by prefix, that puts r in
// force: `nft -f` replaces the whole table in one transaction. It is
// deterministic: equal rules, in any order, are equal text. r must have passed
// Check.
//
// No anonymous sets: the kernel finds a free name for each by reading all
// others, which made 3000 services take 7 s. Backends of all services share
// one map; a chain draws from its own range of it.
func Render(prefix string, r Rules) string { return render(prefix, r, closed{}) }

// closed are the links between which the host forwarded nothing before us.
type closed struct{ v4, v6 []string }

func render(prefix string, r Rules, c closed) string {
	t := &table{prefix: prefix}
	t.v4.backendMap, t.v6.backendMap = "backends4", "backends6"
	t.collect(r)
	w := &t.out
	fmt.Fprintf(w, "add table inet %s\ndelete table inet %s\ntable inet %s {\n", prefix, prefix, prefix)
	t.renderSets()
	w.WriteString(t.chains.String())
	t.renderSources(r)
	writeChain(w, "same", t.same...)
	for _, chain := range baseChains {
		var statements []string
		for _, s := range chain.statements {
			statements = append(statements, strings.ReplaceAll(s, "BRIDGES", quoted(prefix+"-*")))
		}
		writeChain(w, chain.name, statements...)
	}
	t.renderClosed(c)
	w.WriteString("}\n")
	return w.String()
}

// table gathers what the rules need, then prints it.
type table struct {
	prefix string
	out    strings.Builder
	chains strings.Builder

	internal, same, sources []string
	v4, v6                  familySets
}

// familySets are elements of one address family's sets and maps.
type familySets struct {
	backends                     []string // of all services, in ranges
	gateways, subnets, egress    []string
	hairpin                      []string
	vips, ports, hostPorts       []string // with a verdict
	noVIPs, noPorts, noHostPorts []string // without backends: refused
	backendMap                   string
}

func (t *table) collect(r Rules) {
	for _, n := range sorted(r.Networks, func(n Network) string { return n.ID }) {
		t.addNetwork(n)
	}
	for _, s := range sorted(r.Services, func(s Service) string { return s.ID }) {
		t.addService(s)
	}
	for _, p := range sorted(r.Ports, portKey) {
		t.addPort(p)
	}
	for _, f := range []*familySets{&t.v4, &t.v6} {
		slices.Sort(f.hairpin)
		f.hairpin = slices.Compact(f.hairpin)
	}
}

func sorted[T any](list []T, key func(T) string) []T {
	return slices.SortedStableFunc(slices.Values(list), func(a, b T) int { return strings.Compare(key(a), key(b)) })
}

func (t *table) addNetwork(n Network) {
	bridge := quoted(bridgeName(t.prefix, n.ID))
	t.same = append(t.same, "iifname "+bridge+" oifname "+bridge+" accept")
	t.sources = append(t.sources, bridge+" : goto "+ruleName("from", n.ID))
	if n.Internal {
		t.internal = append(t.internal, bridge)
	}
	for _, one := range []struct {
		f       *familySets
		subnet  netip.Prefix
		gateway netip.Addr
	}{{&t.v4, n.Subnet4, n.Gateway4}, {&t.v6, n.Subnet6, n.Gateway6}} {
		if !one.subnet.IsValid() {
			continue
		}
		subnet := one.subnet.Masked().String()
		one.f.gateways = append(one.f.gateways, bridge+" . "+one.gateway.String())
		one.f.subnets = append(one.f.subnets, subnet)
		if !n.Internal {
			one.f.egress = append(one.f.egress, subnet)
		}
	}
}

func (t *table) addService(s Service) {
	bridge := quoted(bridgeName(t.prefix, s.NetworkID))
	if s.VIP4.IsValid() {
		key := bridge + " . " + s.VIP4.String()
		if b := t.v4.draw(s.Backends, addr4); b.to != "" {
			name := ruleName("vip4", s.ID)
			t.v4.vips = append(t.v4.vips, key+" : goto "+name)
			writeChain(&t.chains, name, append(b.notes, "dnat ip to "+b.to)...)
		} else {
			t.v4.noVIPs = append(t.v4.noVIPs, key)
		}
	}
	if s.VIP6.IsValid() {
		key := bridge + " . " + s.VIP6.String()
		if b := t.v6.draw(s.Backends, addr6); b.to != "" {
			name := ruleName("vip6", s.ID)
			t.v6.vips = append(t.v6.vips, key+" : goto "+name)
			writeChain(&t.chains, name, append(b.notes, "dnat ip6 to "+b.to)...)
		} else {
			t.v6.noVIPs = append(t.v6.noVIPs, key)
		}
	}
}

func (t *table) addPort(p PublishedPort) {
	ip := p.HostIP.Unmap()
	port := fmt.Sprintf("%s . %d", p.Protocol, p.Port)
	key := port
	if ip.IsValid() && !ip.IsUnspecified() {
		key = ip.String() + " . " + port
	}
	publish := func(f *familySets, kind, nat string, addr func(Backend) netip.Addr) {
		ports, none := &f.ports, &f.noPorts
		if key != port {
			ports, none = &f.hostPorts, &f.noHostPorts
		}
		b := f.draw(p.Backends, addr)
		switch {
		case b.to != "":
			name := ruleName(kind, p.ID)
			*ports = append(*ports, key+" : goto "+name)
			writeChain(&t.chains, name, append(b.notes,
				fmt.Sprintf("ct mark set ct mark | 0x%08x", mark),
				fmt.Sprintf("meta l4proto %s %s to %s : %d", p.Protocol, nat, b.to, p.Target))...)
		case len(p.Backends) == 0:
			*none = append(*none, key)
		}
		// Else there are backends of the other family only, and the host's
		// own sockets answer: for [::1] the proxy of the dataplane.
	}
	if !ip.IsValid() || ip.Is4() {
		publish(&t.v4, "port4", "dnat ip", addr4)
	}
	if !ip.IsValid() || ip.Is6() {
		publish(&t.v6, "port6", "dnat ip6", addr6)
	}
}

func addr4(b Backend) netip.Addr { return b.Addr4 }
func addr6(b Backend) netip.Addr { return b.Addr6 }

// drawn is how a chain picks one of its backends.
type drawn struct {
	notes []string // one comment per backend
	to    string   // an nft expression, empty without backends
}

// draw gives backends their range in the shared map. One backend needs none.
func (f *familySets) draw(backends []Backend, addr func(Backend) netip.Addr) drawn {
	var d drawn
	var addrs []string
	for _, b := range sorted(backends, func(b Backend) string { return b.TaskID }) {
		a := addr(b)
		if !a.IsValid() {
			continue
		}
		addrs = append(addrs, a.String())
		d.notes = append(d.notes, "# "+a.String()+" "+comment(b.TaskID))
		f.hairpin = append(f.hairpin, a.String()+" . "+a.String())
	}
	switch len(addrs) {
	case 0:
		return drawn{}
	case 1:
		d.to = addrs[0]
		return d
	}
	first := len(f.backends)
	for i, a := range addrs {
		f.backends = append(f.backends, fmt.Sprintf("%d : %s", first+i, a))
	}
	d.to = fmt.Sprintf("numgen inc mod %d offset %d map @%s", len(addrs), first, f.backendMap)
	if first == 0 {
		d.to = fmt.Sprintf("numgen inc mod %d map @%s", len(addrs), f.backendMap)
	}
	return d
}

// comment keeps an id on its line.
func comment(id string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, id)
}

func quoted(name string) string { return `"` + name + `"` }

func portKey(p PublishedPort) string {
	return fmt.Sprintf("%s %s %05d %s", p.HostIP, p.Protocol, p.Port, p.ID)
}
