package overlaynet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpTries is how often a dump that the kernel interrupted is asked for
// again. A partial list looks like missing devices.
const dumpTries = 5

// complete calls dump until its result is whole.
func complete[T any](dump func() ([]T, error)) ([]T, error) {
	var list []T
	var err error
	for range dumpTries {
		list, err = dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return nil, err
}

// hostPrefixes are what the host routes to or is addressed by, except what the
// link named own has and the routes that hold for everything.
func (m *Manager) hostPrefixes(own string) ([]taken, error) {
	links, err := complete(m.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var out []taken
	add := func(kind string, n *net.IPNet, index int) {
		p, ok := prefixOf(n)
		if !ok || p.Bits() < 4 || names[index] == own && own != "" ||
			p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() || p.Addr().IsLoopback() {
			return
		}
		owner := "the host's " + kind
		if name := names[index]; name != "" {
			owner += " on " + name
		}
		out = append(out, taken{p, owner})
	}
	addrs, err := complete(func() ([]netlink.Addr, error) { return m.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		add("address", a.IPNet, a.LinkIndex)
	}
	// Table 0 stands for all tables: a VPN keeps its routes in its own.
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	routes, err := complete(func() ([]netlink.Route, error) {
		return m.nl.RouteListFiltered(netlink.FAMILY_ALL, all, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		add("route", r.Dst, r.LinkIndex)
	}
	return out, nil
}

// localAddrs are the host's own addresses.
func (m *Manager) localAddrs() (map[netip.Addr]bool, error) {
	list, err := complete(func() ([]netlink.Addr, error) { return m.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	local := map[netip.Addr]bool{}
	for _, a := range list {
		local[addrOf(a.IP)] = true
	}
	return local, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	if a = a.Unmap(); a.Is4() && bits == 128 {
		ones -= 96
	}
	return netip.PrefixFrom(a, ones).Masked(), ones >= 0
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// host is the /32 or /128 of a.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
