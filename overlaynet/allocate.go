package overlaynet

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

var (
	// ErrPoolExhausted says that no free subnet, or no free address, is left.
	ErrPoolExhausted = errors.New("address pool exhausted")
	// ErrOverlap says that a wanted subnet is in use already.
	ErrOverlap = errors.New("subnet overlaps")
)

// subnetBits4 and subnetBits6 are the sizes of subnets cut from the pools.
const (
	subnetBits4 = 24
	subnetBits6 = 64
)

const defaultMTU = 1500

// ulaPrefix is fd00::/8 (RFC 4193, section 3.1): locally assigned.
var ulaPrefix = netip.MustParsePrefix("fd00::/8")

func defaultPools() []netip.Prefix {
	var pools []netip.Prefix
	for second := 210; second <= 219; second++ {
		addr := netip.AddrFrom4([4]byte{10, byte(second), 0, 0})
		pools = append(pools, netip.PrefixFrom(addr, 16))
	}
	return pools
}

// taken is a prefix that new subnets must not touch, and whose it is.
type taken struct {
	prefix netip.Prefix
	owner  string
}

// Allocate chooses subnets and gateways for a new network: those asked for,
// else the first free ones of the pools, in order. It changes nothing. used
// are the networks that exist; routes and addresses of the host are avoided
// too, except those of the bridge of want.ID itself, so that an allocation
// repeated after a crash succeeds.
func (m *Manager) Allocate(want Request, used []Network) (Network, error) {
	host, err := m.hostPrefixes(bridgeName(m.prefix, want.ID))
	if err != nil {
		return Network{}, fmt.Errorf("allocate network %s: %w", want.ID, err)
	}
	n, err := allocate(want, used, host, m.pools)
	if err != nil {
		return Network{}, fmt.Errorf("allocate network %s: %w", want.ID, err)
	}
	return n, nil
}

// allocate is Allocate without the kernel.
func allocate(want Request, used []Network, host []taken, pools []netip.Prefix) (Network, error) {
	n := Network{ID: want.ID, Internal: want.Internal, MTU: want.MTU}
	busy := append([]taken(nil), host...)
	for _, u := range used {
		if u.ID == want.ID {
			continue
		}
		for _, p := range []netip.Prefix{u.Subnet4, u.Subnet6} {
			if p.IsValid() {
				busy = append(busy, taken{p, "network " + u.ID})
			}
		}
	}
	for _, p := range want.Subnets {
		if err := takeWanted(&n, p, busy); err != nil {
			return Network{}, err
		}
	}
	var err error
	if !n.Subnet4.IsValid() {
		if n.Subnet4, err = firstFree(pools, true, busy, len(used)); err != nil {
			return Network{}, err
		}
	}
	if want.IPv6 && !n.Subnet6.IsValid() {
		if n.Subnet6, err = firstFree(pools6(pools, used), false, busy, len(used)); err != nil {
			return Network{}, err
		}
	}
	n.Gateway4 = n.Subnet4.Addr().Next()
	if n.Subnet6.IsValid() {
		n.Gateway6 = n.Subnet6.Addr().Next()
	}
	return n, takeGateways(&n, want.Gateways)
}

func takeWanted(n *Network, p netip.Prefix, busy []taken) error {
	p = p.Masked()
	if !p.IsValid() {
		return errors.New("a wanted subnet is not valid")
	}
	if p.Addr().Is4() && p.Bits() > 30 || p.Addr().Is6() && p.Bits() > 126 {
		return fmt.Errorf("subnet %s has no room for a gateway and a task", p)
	}
	for _, b := range busy {
		if b.prefix.Overlaps(p) {
			return fmt.Errorf("%w: %s is used by %s (%s)", ErrOverlap, p, b.owner, b.prefix)
		}
	}
	slot := &n.Subnet4
	if p.Addr().Is6() {
		slot = &n.Subnet6
	}
	if slot.IsValid() {
		return fmt.Errorf("two subnets of one family: %s and %s", *slot, p)
	}
	*slot = p
	return nil
}

func takeGateways(n *Network, gateways []netip.Addr) error {
	for _, g := range gateways {
		switch {
		case g.Is4() && usable(n.Subnet4, g):
			n.Gateway4 = g
		case g.Is6() && usable(n.Subnet6, g):
			n.Gateway6 = g
		default:
			return fmt.Errorf("gateway %s is not a host address of the network's subnets", g)
		}
	}
	return nil
}

// pools6 are the configured IPv6 pools. Without any, the /48 that the existing
// networks are in, else a random one (RFC 4193, section 3.2): it lives on in
// the networks' own records.
func pools6(pools []netip.Prefix, used []Network) []netip.Prefix {
	for _, p := range pools {
		if p.Addr().Is6() {
			return pools
		}
	}
	for _, u := range used {
		if u.Subnet6.IsValid() && u.Subnet6.Bits() == subnetBits6 && ulaPrefix.Contains(u.Subnet6.Addr()) {
			return []netip.Prefix{netip.PrefixFrom(u.Subnet6.Addr(), 48).Masked()}
		}
	}
	b := [16]byte{0: 0xfd}
	rand.Read(b[1:6])
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom16(b), 48)}
}

// firstFree cuts the first subnet that touches nothing busy.
func firstFree(pools []netip.Prefix, is4 bool, busy []taken, networks int) (netip.Prefix, error) {
	bits := subnetBits6
	if is4 {
		bits = subnetBits4
	}
	var full []string
	for _, pool := range pools {
		if pool.Addr().Is4() != is4 {
			continue
		}
		size := max(bits, pool.Bits())
		sub := netip.PrefixFrom(pool.Masked().Addr(), size)
		for pool.Contains(sub.Addr()) {
			block, hit := overlapping(sub, busy)
			if !hit {
				return sub, nil
			}
			// Go on after the larger of the two: a busy /8 is one step.
			next := lastAddr(sub).Next()
			if block.Bits() < size {
				next = lastAddr(block).Next()
			}
			if !next.IsValid() {
				break
			}
			sub = netip.PrefixFrom(next, size)
		}
		full = append(full, pool.String())
	}
	if len(full) == 0 {
		return netip.Prefix{}, fmt.Errorf("%w: no pool for the wanted address family is configured", ErrPoolExhausted)
	}
	return netip.Prefix{}, fmt.Errorf("%w: %d networks exist and no /%d is free in %s; remove networks or configure another pool",
		ErrPoolExhausted, networks, bits, strings.Join(full, ", "))
}

func overlapping(p netip.Prefix, busy []taken) (netip.Prefix, bool) {
	for _, b := range busy {
		if b.prefix.Overlaps(p) {
			return b.prefix, true
		}
	}
	return netip.Prefix{}, false
}

// NextAddr finds a free address for a task or a VIP: in within if it is valid,
// else in the network's IPv4 subnet (for IPv6 pass n.Subnet6). It starts after
// last, the address given out most recently, and wraps: an address that has
// just been freed, and that clients may still know, comes round again as late
// as possible. Network, broadcast and gateway addresses are never given.
// ErrPoolExhausted if all are taken. It is pure; the caller keeps the record.
func NextAddr(n Network, within netip.Prefix, last netip.Addr, taken func(netip.Addr) bool) (netip.Addr, error) {
	if !within.IsValid() {
		within = n.Subnet4
	}
	within = within.Masked()
	subnet := n.Subnet4
	if within.Addr().Is6() {
		subnet = n.Subnet6
	}
	if !subnet.IsValid() || !subnet.Contains(within.Addr()) || within.Bits() < subnet.Bits() {
		return netip.Addr{}, fmt.Errorf("address range %s is outside subnet %s of network %s", within, subnet, n.ID)
	}
	start := within.Addr()
	if last.IsValid() && within.Contains(last) && last.Next().IsValid() && within.Contains(last.Next()) {
		start = last.Next()
	}
	a := start
	// An IPv6 range is never walked whole; so many taken in a row means that
	// the caller's record is wrong.
	const longestWalk = 1 << 20
	for range longestWalk {
		if usable(subnet, a) && a != n.Gateway4 && a != n.Gateway6 && !taken(a) {
			return a, nil
		}
		if a = a.Next(); !a.IsValid() || !within.Contains(a) {
			a = within.Addr()
		}
		if a == start {
			break
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: every address of %s in network %s is in use", ErrPoolExhausted, within, n.ID)
}

// usable says whether a may be given to a host of subnet p.
func usable(p netip.Prefix, a netip.Addr) bool {
	if !p.IsValid() || !p.Contains(a) || a == p.Masked().Addr() {
		return false
	}
	return a.Is6() || a != lastAddr(p)
}

// lastAddr is the broadcast address, in IPv6 the last one.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
