package overlaynet

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Conntrack states of TCP in which the connection is over for the backend
// (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
const (
	tcpLastAck  = 6
	tcpTimeWait = 7
	tcpClose    = 8
)

// Flows counts the conntrack flows to each of addrs: connections through a VIP
// or published port, and direct ones. Those that a backend itself opened, and
// TCP connections that are over, do not count: when the number is 0, nothing
// is lost by stopping the backend. Every address is in the result.
func (m *Manager) Flows(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]int, error) {
	counts := make(map[netip.Addr]int, len(addrs))
	families := map[netlink.InetFamily]bool{}
	for _, a := range addrs {
		counts[a] = 0
		families[familyOf(a)] = true
	}
	for family := range families {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		flows, err := complete(func() ([]*netlink.ConntrackFlow, error) {
			return m.nl.ConntrackTableList(netlink.ConntrackTable, family)
		})
		if err != nil {
			return nil, fmt.Errorf("list connections: %w", err)
		}
		for _, f := range flows {
			backend := addrOf(f.Reverse.SrcIP)
			if _, ok := counts[backend]; ok && alive(f) {
				counts[backend]++
			}
		}
	}
	return counts, nil
}

func alive(f *netlink.ConntrackFlow) bool {
	tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP)
	return !ok || tcp.State < tcpLastAck || tcp.State > tcpClose
}

func familyOf(a netip.Addr) netlink.InetFamily {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// forgetUDP deletes UDP flows that the new rules would have sent elsewhere.
// A UDP client that keeps its port would stick to a dead backend, or to a
// refusal from before there was one, for as long as it goes on sending. TCP
// flows are never deleted: that is how a connection survives until it is
// drained. It costs a dump of the table, so only when a backend left or a
// target is new.
func (m *Manager) forgetUDP(now, before Rules, all bool) error {
	if !all && !redirected(now, before) {
		return nil
	}
	local, err := m.localAddrs()
	if err != nil {
		return err
	}
	stale := newStaleUDP(now, local)
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		// An interrupted dump is gone through again; deleting twice is fine.
		_, err := complete(func() ([]struct{}, error) {
			_, err := m.nl.ConntrackDeleteFilters(netlink.ConntrackTable, family, stale)
			return nil, err
		})
		if err != nil {
			return fmt.Errorf("forget UDP flows to backends that left: %w", err)
		}
	}
	return nil
}

// target is what a client addresses: a VIP, or a port, of one address or any.
type target struct {
	addr netip.Addr
	port uint16 // 0: a VIP
}

// targets lists who may serve what, for UDP.
func targets(r Rules) map[target]map[netip.Addr]bool {
	out := map[target]map[netip.Addr]bool{}
	put := func(t target, list []Backend, is4, is6 bool) {
		set := map[netip.Addr]bool{}
		for _, b := range list {
			if is4 && b.Addr4.IsValid() {
				set[b.Addr4] = true
			}
			if is6 && b.Addr6.IsValid() {
				set[b.Addr6] = true
			}
		}
		out[t] = set
	}
	for _, s := range r.Services {
		if s.VIP4.IsValid() {
			put(target{addr: s.VIP4}, s.Backends, true, false)
		}
		if s.VIP6.IsValid() {
			put(target{addr: s.VIP6}, s.Backends, false, true)
		}
	}
	for _, p := range r.Ports {
		if p.Protocol != "udp" {
			continue
		}
		ip := p.HostIP.Unmap()
		if !ip.IsValid() || ip == netip.IPv4Unspecified() {
			put(target{netip.IPv4Unspecified(), p.Port}, p.Backends, true, false)
		}
		if !ip.IsValid() || ip == netip.IPv6Unspecified() {
			put(target{netip.IPv6Unspecified(), p.Port}, p.Backends, false, true)
		}
		if ip.IsValid() && !ip.IsUnspecified() {
			put(target{ip, p.Port}, p.Backends, ip.Is4(), ip.Is6())
		}
	}
	return out
}

// redirected says whether a flow that was right before may be wrong now.
func redirected(now, before Rules) bool {
	next, last := targets(now), targets(before)
	for t, backends := range last {
		for b := range backends {
			if !next[t][b] {
				return true
			}
		}
	}
	for t, backends := range next {
		if len(backends) > 0 && len(last[t]) == 0 {
			return true
		}
	}
	return false
}

// staleUDP matches flows whose backend is not one that the rules name.
type staleUDP struct {
	targets map[target]map[netip.Addr]bool
	subnets []netip.Prefix
	local   map[netip.Addr]bool // of the host
}

func newStaleUDP(r Rules, local map[netip.Addr]bool) staleUDP {
	s := staleUDP{targets: targets(r), local: local}
	for _, n := range r.Networks {
		s.subnets = append(s.subnets, n.Subnet4)
		if n.Subnet6.IsValid() {
			s.subnets = append(s.subnets, n.Subnet6)
		}
	}
	return s
}

// MatchConntrackFlow is netlink's filter interface.
func (s staleUDP) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, from := addrOf(f.Forward.DstIP), addrOf(f.Reverse.SrcIP)
	every := netip.IPv4Unspecified()
	if to.Is6() {
		every = netip.IPv6Unspecified()
	}
	translated := to != from
	for _, t := range []target{{addr: to}, {to, f.Forward.DstPort}, {every, f.Forward.DstPort}} {
		backends, ok := s.targets[t]
		if !ok {
			continue
		}
		if t.addr == every && !translated && (s.inside(to) || !s.local[to]) {
			// A task or a gateway asked directly, or somebody else's server, on
			// a port that is also published here.
			return false
		}
		return len(backends) > 0 && !backends[from] || len(backends) == 0 && translated && s.inside(from)
	}
	// Through a target that is gone.
	return translated && s.inside(from)
}

func (s staleUDP) inside(a netip.Addr) bool {
	for _, p := range s.subnets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
