package overlaynet

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Conntrack states of TCP (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
// From tcpLastAck to tcpClose the connection is over for the backend.
const (
	tcpEstablished = 3
	tcpLastAck     = 6
	tcpTimeWait    = 7
	tcpClose       = 8
)

// Flow is what goes on between clients and one backend address.
type Flow struct {
	Count int // flows that are not over
	// Idle is the time since the last packet on any of them, at most 1 s too
	// short; 0 while one of them is being opened or closed, waits for an
	// acknowledgement, or is UDP.
	Idle time.Duration
}

// Flows counts the conntrack flows to each of addrs: TCP connections, direct or
// through a VIP or published port, that are not over, and UDP flows through
// the latter (Sync forgets these when the backend leaves the rules; a direct
// one is no connection that could be lost). What a backend itself opened does
// not count. When the number is 0, nothing is lost by stopping the backend.
// Every address is in the result.
func (m *Manager) Flows(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]Flow, error) {
	out := make(map[netip.Addr]Flow, len(addrs))
	byFamily := map[netlink.InetFamily][]netip.Addr{}
	for _, a := range addrs {
		out[a] = Flow{}
		byFamily[familyOf(a)] = append(byFamily[familyOf(a)], a)
	}
	limits, err := readIdleLimits()
	if err != nil {
		return nil, err
	}
	for family, list := range byFamily {
		dumps := []picked{nil}
		if len(list) <= mostPicked {
			dumps = nil
			for _, a := range list {
				dumps = append(dumps, answeredBy(a))
			}
		}
		seen := map[string]bool{} // a kernel that does not pick gives all, each time
		for _, dump := range dumps {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			flows, err := m.flows(family, dump)
			if err != nil {
				return nil, err
			}
			for _, f := range flows {
				before, ok := out[f.from]
				if !ok || !f.alive() || seen[string(f.original)] {
					continue
				}
				seen[string(f.original)] = true
				idle := limits.idle(f)
				if before.Count > 0 {
					idle = min(idle, before.Idle)
				}
				out[f.from] = Flow{before.Count + 1, idle}
			}
		}
	}
	return out, nil
}

// mostPicked is how many dumps of one address each cost less than one of all.
const mostPicked = 8

func (f flow) alive() bool {
	if f.protocol == unix.IPPROTO_TCP {
		return f.state < tcpLastAck || f.state > tcpClose
	}
	return f.to.Addr() != f.from
}

// idleLimits are the lifetimes, in seconds, that a packet gives to the entry of
// an established connection: the usual one, and the one while data waits for
// an acknowledgement.
type idleLimits struct{ established, waiting uint32 }

func readIdleLimits() (idleLimits, error) {
	var l idleLimits
	for name, to := range map[string]*uint32{
		"established": &l.established, "unacknowledged": &l.waiting,
	} {
		path := "netfilter/nf_conntrack_tcp_timeout_" + name
		n, err := strconv.ParseUint(readSysctl(path), 10, 32)
		if err != nil {
			return l, fmt.Errorf("read sysctl net.%s: %w", strings.ReplaceAll(path, "/", "."), err)
		}
		*to = uint32(n)
	}
	return l, nil
}

// idle tells it from what is left of the entry's life, which the kernel rounds
// down to a second.
func (l idleLimits) idle(f flow) time.Duration {
	waits := l.waiting < l.established && f.timeout <= l.waiting
	if f.protocol != unix.IPPROTO_TCP || f.state != tcpEstablished || waits || f.timeout+1 >= l.established {
		return 0
	}
	return time.Duration(l.established-f.timeout-1) * time.Second
}

func familyOf(a netip.Addr) netlink.InetFamily {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// forgetUDP deletes UDP flows that the new rules would have sent elsewhere.
// A UDP client that keeps its port would stick to a dead backend, or to a
// refusal from before there was one, for as long as it goes on sending. TCP
// flows are never deleted: that is how a connection survives until it is
// drained. It costs a look at the table for each family (7 ms where it has
// 262,144 buckets), so only when a backend left or a target is new.
//
// An answer that is under way when its flow is forgotten reaches nobody: the
// kernel no longer knows whom it is for. So a flow goes when an answer has just
// passed, or when one has been waited for.
func (m *Manager) forgetUDP(ctx context.Context, now, before udpTargets, all bool) error {
	if !all && !now.redirects(before) {
		return nil
	}
	local, err := m.localAddrs()
	if err != nil {
		return err
	}
	wrong := staleUDP{now, local}
	families := map[netlink.InetFamily]bool{}
	for _, u := range []udpTargets{now, before} {
		for t := range u.backends {
			families[familyOf(t.addr)] = true
		}
	}
	if all {
		families = map[netlink.InetFamily]bool{unix.AF_INET: true, unix.AF_INET6: true}
	}
	var stale []flow
	for family := range families {
		flows, err := m.flows(family, overUDP())
		if err != nil {
			return fmt.Errorf("forget UDP flows to backends that left: %w", err)
		}
		for _, f := range flows {
			if wrong.match(f) {
				f.family = family
				stale = append(stale, f)
			}
		}
	}
	until := time.Now().Add(answerPatience)
	for tick := time.NewTicker(answerPause); len(stale) > 0; <-tick.C {
		if stale, err = m.forgetAnswered(stale, len(stale) > mostAwaited || ctx.Err() != nil || time.Now().After(until)); err != nil {
			tick.Stop()
			return fmt.Errorf("forget UDP flows to backends that left: %w", err)
		}
	}
	return nil
}

// How long an answer is waited for, how often it is looked for, and for how
// many flows.
const (
	answerPatience = 200 * time.Millisecond
	answerPause    = 2 * time.Millisecond
	mostAwaited    = 256
)

// forgetAnswered deletes the flows where nobody waits for an answer, or all,
// and returns the others. The moment after an answer is the best: the client's
// next packet is the farthest away.
func (m *Manager) forgetAnswered(stale []flow, all bool) (rest []flow, err error) {
	for _, f := range stale {
		now, err := m.look(f)
		switch {
		case err != nil:
			return nil, err
		case now == nil: // it is gone
		case !all && (now.waits() || now.packets > 1 && now.packets == f.packets):
			rest = append(rest, f)
		default:
			if err := m.forget(f.family, f); err != nil {
				return nil, err
			}
		}
	}
	return rest, nil
}

// waits says that a client may be waiting for an answer. Where it has sent more
// than once and nobody ever answered, nobody does.
func (f flow) waits() bool { return f.packets > f.answers && (f.answers > 0 || f.packets == 1) }

// udpTargets says who may serve what over UDP.
type udpTargets struct {
	backends map[udpTarget]map[netip.Addr]bool
	subnets  []netip.Prefix
}

// udpTarget is what a client addresses: a VIP, or a port of one address or of
// any (the unspecified address of its family).
type udpTarget struct {
	addr netip.Addr
	port uint16 // 0: a VIP
}

func newUDPTargets(r Rules) udpTargets {
	u := udpTargets{backends: map[udpTarget]map[netip.Addr]bool{}}
	for _, n := range r.Networks {
		u.subnets = append(u.subnets, n.Subnet4)
		if n.Subnet6.IsValid() {
			u.subnets = append(u.subnets, n.Subnet6)
		}
	}
	for _, s := range r.Services {
		if s.VIP4.IsValid() {
			u.put(udpTarget{addr: s.VIP4}, s.Backends)
		}
		if s.VIP6.IsValid() {
			u.put(udpTarget{addr: s.VIP6}, s.Backends)
		}
	}
	for _, p := range r.Ports {
		if p.Protocol != "udp" {
			continue
		}
		if ip := p.HostIP.Unmap(); ip.IsValid() {
			u.put(udpTarget{ip, p.Port}, p.Backends)
			continue
		}
		u.put(udpTarget{netip.IPv4Unspecified(), p.Port}, p.Backends)
		u.put(udpTarget{netip.IPv6Unspecified(), p.Port}, p.Backends)
	}
	return u
}

func (u udpTargets) put(t udpTarget, list []Backend) {
	set := map[netip.Addr]bool{}
	for _, b := range list {
		if a := b.Addr4; t.addr.Is4() && a.IsValid() {
			set[a] = true
		}
		if a := b.Addr6; t.addr.Is6() && a.IsValid() {
			set[a] = true
		}
	}
	u.backends[t] = set
}

// redirects says whether a flow that was right before may be wrong now.
func (u udpTargets) redirects(before udpTargets) bool {
	for t, backends := range before.backends {
		for b := range backends {
			if !u.backends[t][b] {
				return true
			}
		}
	}
	for t, backends := range u.backends {
		if len(backends) > 0 && len(before.backends[t]) == 0 {
			return true
		}
	}
	return false
}

// staleUDP matches flows whose backend is not one that the rules name.
type staleUDP struct {
	udpTargets
	local map[netip.Addr]bool // addresses of the host
}

func (s staleUDP) match(f flow) bool {
	if f.protocol != unix.IPPROTO_UDP {
		return false
	}
	to, from := f.to.Addr(), f.from
	every := netip.IPv4Unspecified()
	if to.Is6() {
		every = netip.IPv6Unspecified()
	}
	translated := to != from
	for _, t := range []udpTarget{{addr: to}, {to, f.to.Port()}, {every, f.to.Port()}} {
		backends, ok := s.backends[t]
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

func (u udpTargets) inside(a netip.Addr) bool {
	for _, p := range u.subnets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
