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

// retryMark is the bit, in the mark of connections, that has a refused SYN
// tried at another backend.
const retryMark = 0x20000000

// Render gives the text of the nftables table, named by prefix, that puts r in
// force: `nft -f` replaces the whole table in one transaction. It is
// deterministic: equal rules, in any order, are equal text. r must have passed
// Check.
//
// No anonymous sets: the kernel finds a free name for each by reading all
// others, which made 3000 services take 7 s.
func Render(prefix string, r Rules) string {
	return fmt.Sprintf("add table inet %[1]s\ndelete table inet %[1]s\n", prefix) + newTable(prefix, r, closed{}).text(prefix)
}

// closed are the links between which the host forwarded nothing before us.
type closed struct{ v4, v6 []string }

func newTable(prefix string, rules Rules, c closed) table {
	r := &renderer{prefix: prefix}
	for _, s := range sorted(rules.Services, func(s Service) string { return s.ID }) {
		r.addVIP(&r.v4, s, s.VIP4, "dnat ip to", addr4)
		r.addVIP(&r.v6, s, s.VIP6, "dnat ip6 to", addr6)
	}
	for _, p := range sorted(rules.Ports, portKey) {
		r.addPort(p)
	}
	for _, a := range rules.HostUsers {
		f := &r.v4
		if a.Is6() {
			f = &r.v6
		}
		f.hostUsers = append(f.hostUsers, a.String())
	}
	for _, n := range sorted(rules.Networks, func(n Network) string { return n.ID }) {
		r.addNetwork(n)
	}
	for _, f := range []struct {
		*familySets
		closed []string
	}{{&r.v4, c.v4}, {&r.v6, c.v6}} {
		slices.Sort(f.hostUsers)
		slices.Sort(f.hairpin)
		f.hairpin = slices.Compact(f.hairpin)
		for _, link := range f.closed {
			f.familySets.closed = append(f.familySets.closed, quoted(link))
		}
	}
	r.chains = append(r.chains, chain{name: "same", statements: r.same})
	return table{sets: r.sets(), chains: append(r.chains, r.baseChains()...)}
}

// renderer gathers what the rules need.
type renderer struct {
	prefix string
	chains []chain

	internal, same, sources []string
	v4, v6                  familySets
	held6                   []string
}

// familySets are elements of one address family's sets and maps.
type familySets struct {
	closed, gateways, subnets, egress []string
	hostUsers                         []string
	hairpin                           []string
	vips, ports, hostPorts            []string // with a verdict
	anyVIPs                           []string
	noVIPs, noPorts, noHostPorts      []string // refused
}

func sorted[T any](list []T, key func(T) string) []T {
	return slices.SortedStableFunc(slices.Values(list), func(a, b T) int { return strings.Compare(key(a), key(b)) })
}

func (r *renderer) addNetwork(n Network) {
	bridge := quoted(bridgeName(r.prefix, n.ID))
	if n.Isolated {
		// What is not published: a connection to a published port has our mark.
		r.same = append(r.same, "iifname "+bridge+" oifname "+bridge+" ct mark & "+markText+" != "+markText+" reject with icmpx admin-prohibited")
	} else {
		r.same = append(r.same, "iifname "+bridge+" oifname "+bridge+" accept")
	}
	r.sources = append(r.sources, bridge+" : goto "+ruleName("from", n.ID))
	r.addSources(n)
	if n.Internal {
		r.internal = append(r.internal, bridge)
	}
	for _, one := range []struct {
		f       *familySets
		subnet  netip.Prefix
		gateway netip.Addr
	}{{&r.v4, n.Subnet4, n.Gateway4}, {&r.v6, n.Subnet6, n.Gateway6}} {
		if !one.subnet.IsValid() {
			continue
		}
		subnet := one.subnet.Masked().String()
		one.f.gateways = append(one.f.gateways, bridge+" . "+one.gateway.String())
		one.f.subnets = append(one.f.subnets, subnet)
		if !n.Internal && !n.Unmasqueraded {
			one.f.egress = append(one.f.egress, subnet)
		}
	}
}

// Chains are named by what leads to them, the address or the port, and not by
// the service: an address that goes from one service to another in one change
// keeps its chain.

func (r *renderer) addVIP(f *familySets, s Service, vip netip.Addr, dnat string, addr func(Backend) netip.Addr) {
	if !vip.IsValid() {
		return
	}
	c := chain{name: chainName("vip", vip.String())}
	key := quoted(bridgeName(r.prefix, s.NetworkID)) + " . " + vip.String()
	f.vips = append(f.vips, key+" : goto "+c.name)
	f.anyVIPs = append(f.anyVIPs, key)
	balance := f.balance(s.Backends, addr, dnat, "", s.ID)
	switch {
	case len(balance) > 1 || len(balance) > 0 && s.Hold:
		c.statements = append([]string{setMark(retryMark)}, balance...)
	case len(balance) > 0:
		c.statements = balance
	case s.Hold:
		c.statements = held(s.ID)
	default:
		f.noVIPs = append(f.noVIPs, key)
		c.statements = refused(s.ID)
	}
	r.chains = append(r.chains, c)
}

func (r *renderer) addPort(p PublishedPort) {
	ip := p.HostIP.Unmap()
	if !ip.IsValid() || ip.Is4() {
		r.publish(&r.v4, p, ip, "port4", "dnat ip to", addr4)
	}
	if !ip.IsValid() || ip.Is6() {
		r.publish(&r.v6, p, ip, "port6", "dnat ip6 to", addr6)
	}
}

func (r *renderer) publish(f *familySets, p PublishedPort, ip netip.Addr, kind, dnat string, addr func(Backend) netip.Addr) {
	ports, none := &f.ports, &f.noPorts
	key := fmt.Sprintf("%s . %d", p.Protocol, p.Port)
	if ip.IsValid() && !ip.IsUnspecified() {
		ports, none = &f.hostPorts, &f.noHostPorts
		key = ip.String() + " . " + key
	}
	c := chain{name: chainName(kind, strings.ReplaceAll(key, " . ", "-"))}
	balance := f.balance(p.Backends, addr, "meta l4proto "+p.Protocol+" "+dnat, fmt.Sprintf(" : %d", p.Target), p.ID)
	switch {
	case len(balance) > 1 || len(balance) > 0 && p.Hold:
		c.statements = append([]string{setMark(mark | retryMark)}, balance...)
	case len(balance) > 0:
		c.statements = append([]string{setMark(mark)}, balance...)
	case len(p.Backends) > 0:
		// Of the other family only: the host's own sockets answer.
		return
	case p.Hold:
		c.statements = held(p.ID)
		if f == &r.v6 && (ip == netip.IPv6Loopback() || !ip.IsValid() || ip.IsUnspecified()) {
			r.held6 = append(r.held6, fmt.Sprintf("%s . %d", p.Protocol, p.Port))
		}
	default:
		*none = append(*none, key)
		c.statements = refused(p.ID)
	}
	*ports = append(*ports, key+" : goto "+c.name)
	r.chains = append(r.chains, c)
}

func addr4(b Backend) netip.Addr { return b.Addr4 }
func addr6(b Backend) netip.Addr { return b.Addr6 }

func setMark(bits int) string { return fmt.Sprintf("ct mark set ct mark | 0x%08x", bits) }

// held drops the packet before its flow is remembered: the client's next
// attempt is judged anew.
func held(id string) []string { return []string{"drop" + comment(id)} }

// refused leaves the packet untranslated, for the hooks that can refuse it.
func refused(id string) []string { return []string{"return" + comment(id)} }

// balance gives each backend its turns: of n rules, the first takes every nth
// new flow, the next every n-1th of what is left, and so on. Rules rather than
// one that looks a backend up in a map: the rules of a chain change all at once
// for a packet, the elements of a map do not.
func (f *familySets) balance(backends []Backend, addr func(Backend) netip.Addr, dnat, port, id string) []string {
	var able []Backend
	for _, b := range sorted(backends, func(b Backend) string { return b.TaskID }) {
		if a := addr(b); a.IsValid() {
			able = append(able, b)
			f.hairpin = append(f.hairpin, a.String()+" . "+a.String())
		}
	}
	order := turns(able)
	out := make([]string, len(order))
	for i, b := range order {
		if left := len(order) - i; left > 1 {
			out[i] = fmt.Sprintf("numgen inc mod %d == 0 ", left)
		}
		out[i] += dnat + " " + addr(able[b]).String() + port + comment(id+" "+able[b].TaskID)
	}
	return out
}

// comment is shown by nft list; the kernel keeps 127 bytes.
func comment(text string) string {
	const longest = 127
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, text)
	return ` comment "` + text[:min(len(text), longest)] + `"`
}

// chainName says what leads to a chain.
func chainName(kind, key string) string { return ruleName(kind, strings.ReplaceAll(key, ":", ".")) }

func quoted(name string) string { return `"` + name + `"` }

func portKey(p PublishedPort) string {
	return fmt.Sprintf("%s %s %05d %s", p.HostIP, p.Protocol, p.Port, p.ID)
}
