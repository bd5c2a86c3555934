package overlaynet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/crash"
)

// Ensure makes the bridge of n exist, up, with its gateway addresses, and the
// host forward packets. Idempotent and cheap when nothing is missing. A bridge
// that had vanished gets the ports of the tasks that still run back.
//
// It changes on the host: net.ipv4.ip_forward=1; with IPv6
// net.ipv6.conf.all.forwarding=1, and accept_ra from 1 to 2 where it was 1;
// net.netfilter.nf_conntrack_acct=1, so that packets of a flow are counted.
// Everything else is set on the bridge only.
func (m *Manager) Ensure(ctx context.Context, n Network) error {
	if err := checkNetwork(n); err != nil {
		return err
	}
	defer m.ensuring.lock(n.ID)()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.ensureBridge(n); err != nil {
		return fmt.Errorf("ensure network %s: %w", n.ID, err)
	}
	m.mu.Lock()
	m.networks[n.ID] = n
	m.mu.Unlock()
	return nil
}

func checkNetwork(n Network) error {
	if err := checkID("network", n.ID); err != nil {
		return err
	}
	if len(n.ID) < bridgeIDLen || strings.ContainsAny(n.ID, " /\"") {
		return fmt.Errorf("network id %q: want at least %d hex digits", n.ID, bridgeIDLen)
	}
	if !n.Subnet4.Addr().Is4() || !n.Subnet4.Contains(n.Gateway4) {
		return fmt.Errorf("network %s: gateway %s is not in subnet %s", n.ID, n.Gateway4, n.Subnet4)
	}
	if n.Subnet6.IsValid() && (!n.Subnet6.Addr().Is6() || !n.Subnet6.Contains(n.Gateway6)) {
		return fmt.Errorf("network %s: gateway %s is not in subnet %s", n.ID, n.Gateway6, n.Subnet6)
	}
	return nil
}

func (m *Manager) ensureBridge(n Network) error {
	name := bridgeName(m.prefix, n.ID)
	created := false
	link, err := m.nl.LinkByName(name)
	if gone(err) {
		link, err = m.addBridge(name, n)
		created = true
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("link %s exists and is a %s, not a bridge: remove it or use another prefix", name, link.Type())
	}
	if created || link.Attrs().Flags&net.FlagUp == 0 {
		// The addresses' first packets must find these in force.
		if err := setSysctls(bridgeSysctls(name, n)); err != nil {
			return err
		}
	}
	if mtu := mtuOf(n); link.Attrs().MTU != mtu {
		if err := m.nl.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set MTU %d on %s: %w", mtu, name, err)
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := m.nl.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	if n.AltName != "" && !slices.Contains(link.Attrs().AltNames, n.AltName) && name != n.AltName {
		if err := m.nl.LinkAddAltName(link, n.AltName); err != nil {
			return fmt.Errorf("name %s also %s: %w", name, n.AltName, err)
		}
	}
	if err := m.ensureGateways(link, n); err != nil {
		return err
	}
	if err := m.forward4(); err != nil {
		return err
	}
	if err := setSysctls([]sysctl{{path: "netfilter/nf_conntrack_acct", value: "1", optional: true}}); err != nil {
		return err
	}
	if n.Subnet6.IsValid() {
		if err := m.forward6(); err != nil {
			return err
		}
	}
	if created {
		return m.replug(link, n.ID)
	}
	return nil
}

func (m *Manager) addBridge(name string, n Network) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	// A fixed address: else the bridge takes its lowest port's, and every
	// task's neighbour entry of the gateway goes stale when that port leaves.
	attrs.HardwareAddr = hardwareAddr(n.Gateway4)
	// Snooping without a querier loses neighbour solicitations (multicast).
	snooping := false
	b := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := m.nl.LinkAdd(b); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("create: %w", err)
	}
	crash.At("bridge.made")
	return m.nl.LinkByName(name)
}

// bridgeSysctls are set before the bridge is up. DESIGN.md, Network, has the
// measurements.
func bridgeSysctls(name string, n Network) []sysctl {
	v4, v6 := "ipv4/conf/"+name+"/", "ipv6/conf/"+name+"/"
	list := []sysctl{
		{path: v4 + "send_redirects", value: "0"},
		// Connections to ports published on 127.0.0.1 leave through the
		// bridge with a loopback source until they are masqueraded.
		{path: v4 + "route_localnet", value: "1"},
		// The reverse path check looks up the way from elsewhere to the task,
		// which the ip rule guard closes but for our mark.
		{path: v4 + "rp_filter", value: "1"},
		{path: v4 + "src_valid_mark", value: "1"},
		// A container asks for the gateway only; answer for nothing else.
		{path: v4 + "arp_ignore", value: "1"},
	}
	if !n.Subnet6.IsValid() {
		return append(list, sysctl{path: v6 + "disable_ipv6", value: "1", optional: true})
	}
	return append(list,
		sysctl{path: v6 + "disable_ipv6", value: "0"},
		sysctl{path: v6 + "accept_dad", value: "0"},
		sysctl{path: v6 + "accept_ra", value: "0"},
		sysctl{path: v6 + "autoconf", value: "0"},
	)
}

func (m *Manager) ensureGateways(link netlink.Link, n Network) error {
	have, err := complete(func() ([]netlink.Addr, error) { return m.nl.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	want := []netip.Prefix{netip.PrefixFrom(n.Gateway4, n.Subnet4.Bits())}
	if n.Subnet6.IsValid() {
		want = append(want, netip.PrefixFrom(n.Gateway6, n.Subnet6.Bits()))
	}
	for _, p := range want {
		if hasAddr(have, p) {
			continue
		}
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := m.nl.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s to %s: %w", p, link.Attrs().Name, err)
		}
	}
	return nil
}

func hasAddr(have []netlink.Addr, p netip.Prefix) bool {
	for _, h := range have {
		ones, _ := h.Mask.Size()
		if a, ok := netip.AddrFromSlice(h.IP); ok && a.Unmap() == p.Addr() && ones == p.Bits() {
			return true
		}
	}
	return false
}

// replug puts the host ends of tasks on this network, known by their alias,
// back into a bridge made anew.
func (m *Manager) replug(bridge netlink.Link, networkID string) error {
	links, err := complete(m.nl.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if isVeth(m.prefix, l.Attrs().Name) && l.Attrs().Alias == networkID {
			if err := m.plugIn(l, bridge); err != nil && !gone(err) {
				return err
			}
		}
	}
	return nil
}

// Remove deletes the bridge. Idempotent.
func (m *Manager) Remove(ctx context.Context, n Network) error {
	defer m.ensuring.lock(n.ID)()
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.networks, n.ID)
	m.mu.Unlock()
	name := bridgeName(m.prefix, n.ID)
	link, err := m.nl.LinkByName(name)
	if err == nil {
		m.watcher.expect(name)
		err = m.nl.LinkDel(link)
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("remove network %s: delete bridge %s: %w", n.ID, name, err)
	}
	return nil
}

// network finds what Attach must know of a network: as ensured by this
// process, else as the bridge in the kernel tells.
func (m *Manager) network(id string) (Network, netlink.Link, error) {
	link, err := m.nl.LinkByName(bridgeName(m.prefix, id))
	if err != nil {
		return Network{}, nil, fmt.Errorf("bridge of network %s: %w", id, err)
	}
	m.mu.Lock()
	n, ok := m.networks[id]
	m.mu.Unlock()
	if ok {
		return n, link, nil
	}
	addrs, err := complete(func() ([]netlink.Addr, error) { return m.nl.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return Network{}, nil, fmt.Errorf("list addresses of the bridge of network %s: %w", id, err)
	}
	n = Network{ID: id, MTU: link.Attrs().MTU}
	for _, a := range addrs {
		gateway, ok := netip.AddrFromSlice(a.IP)
		subnet, valid := prefixOf(a.IPNet)
		if gateway = gateway.Unmap(); !ok || !valid || gateway.IsLinkLocalUnicast() {
			continue
		}
		if gateway.Is4() {
			n.Gateway4, n.Subnet4 = gateway, subnet
		} else {
			n.Gateway6, n.Subnet6 = gateway, subnet
		}
	}
	if !n.Gateway4.IsValid() {
		return Network{}, nil, fmt.Errorf("the bridge of network %s has no gateway address: ensure the network first", id)
	}
	return n, link, nil
}

func mtuOf(n Network) int {
	if n.MTU > 0 {
		return n.MTU
	}
	return defaultMTU
}
