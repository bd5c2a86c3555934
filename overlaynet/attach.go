package overlaynet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/crash"
)

// Attach makes the network namespace of a task with loopback up and one veth
// per endpoint, and returns its path. Idempotent: what is missing is added,
// and host ends go back into their bridges. With no endpoints the namespace is
// isolated (network_mode none). On failure a namespace that it made is removed
// again. It runs no command: everything is netlink and /proc/sys.
func (m *Manager) Attach(ctx context.Context, taskID string, eps []Endpoint) (string, error) {
	plugs, err := m.plan(taskID, eps)
	if err != nil {
		return "", fmt.Errorf("attach task %s: %w", taskID, err)
	}
	defer m.plugging.lock(taskID)()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	path := m.netnsPath(taskID)
	var inside *netlink.Handle // works from any thread
	made := false
	err = m.inNetns(path, func(created bool) error {
		made = created
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink in the task's namespace: %w", err)
		}
		inside = nl
		return m.furnish(nl, plugs, created)
	})
	if inside != nil {
		defer inside.Close()
	}
	crash.At("veth.made")
	for i := 0; err == nil && i < len(plugs); i++ {
		if err = m.plugHostEnd(plugs[i]); err == nil {
			err = awaitCarrier(inside, plugs[i].Ifname)
		}
	}
	if err != nil {
		if made {
			err = errors.Join(err, m.detach(taskID))
		}
		return "", fmt.Errorf("attach task %s: %w", taskID, err)
	}
	return path, nil
}

// plug is an endpoint with all that is needed to make it.
type plug struct {
	Endpoint
	network  Network
	bridge   netlink.Link
	mac      net.HardwareAddr
	hostName string
	table    int // of the routes of answers, 0 with the default route
}

// answerTable is the first routing table, inside a task, of endpoints that do
// not carry the default route.
const answerTable = 100

func (m *Manager) plan(taskID string, eps []Endpoint) ([]plug, error) {
	if err := checkID("task", taskID); err != nil {
		return nil, err
	}
	if len(eps) > maxEndpoints {
		return nil, fmt.Errorf("%d endpoints: at most %d are possible", len(eps), maxEndpoints)
	}
	var plugs []plug
	for i, ep := range eps {
		n, bridge, err := m.network(ep.NetworkID)
		if err != nil {
			return nil, err
		}
		if !ep.Addr4.Is4() || !n.Subnet4.Contains(ep.Addr4) {
			return nil, fmt.Errorf("address %s is not in subnet %s of network %s", ep.Addr4, n.Subnet4, n.ID)
		}
		if ep.Addr6.IsValid() && !n.Subnet6.Contains(ep.Addr6) {
			return nil, fmt.Errorf("address %s is not in subnet %s of network %s", ep.Addr6, n.Subnet6, n.ID)
		}
		if ep.Ifname == "" || len(ep.Ifname) > ifNameMax {
			return nil, fmt.Errorf("interface name %q: want 1 to %d bytes", ep.Ifname, ifNameMax)
		}
		p := plug{Endpoint: ep, network: n, bridge: bridge, mac: hardwareAddr(ep.Addr4), hostName: vethName(m.prefix, taskID, i)}
		if ep.MAC != "" {
			if p.mac, err = net.ParseMAC(ep.MAC); err != nil {
				return nil, fmt.Errorf("endpoint %s: %w", ep.Ifname, err)
			}
		}
		if !ep.DefaultRoute {
			p.table = answerTable + i
		}
		plugs = append(plugs, p)
	}
	return plugs, nil
}

// namespaceSysctls are written once into a new namespace, before it has links.
var namespaceSysctls = []sysctl{
	{path: "ipv4/conf/all/accept_redirects", value: "0"},
	{path: "ipv4/conf/default/accept_redirects", value: "0"},
	{path: "ipv6/conf/default/accept_redirects", value: "0", optional: true},
	{path: "ipv6/conf/default/accept_ra", value: "0", optional: true},
	{path: "ipv6/conf/default/autoconf", value: "0", optional: true},
	// Else the first IPv6 connections of a task fail for about a second.
	{path: "ipv6/conf/default/accept_dad", value: "0", optional: true},
	{path: "ipv6/conf/default/router_solicitations", value: "0", optional: true},
	// As Docker does: ports below 1024 and ping need no capability.
	{path: "ipv4/ip_unprivileged_port_start", value: "0", optional: true},
	{path: "ipv4/ping_group_range", value: "0 2147483647", optional: true},
}

const loopbackIndex = 1

// furnish runs inside the task's namespace.
func (m *Manager) furnish(nl *netlink.Handle, plugs []plug, created bool) error {
	if created {
		if err := setSysctls(namespaceSysctls); err != nil {
			return err
		}
	}
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: loopbackIndex}}
	if err := nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	for _, p := range plugs {
		if err := m.furnishLink(nl, p, created); err != nil {
			return fmt.Errorf("endpoint %s: %w", p.Ifname, err)
		}
	}
	return nil
}

func (m *Manager) furnishLink(nl *netlink.Handle, p plug, created bool) error {
	var link netlink.Link
	var err error = netlink.LinkNotFoundError{}
	if !created {
		link, err = nl.LinkByName(p.Ifname)
	}
	if gone(err) {
		link, err = m.addVeth(nl, p)
	}
	if err != nil {
		return err
	}
	for _, a := range []netip.Addr{p.Addr4, p.Addr6} {
		if !a.IsValid() {
			continue
		}
		addr := &netlink.Addr{IPNet: ipNet(host(a))}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := nl.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	for _, a := range p.LinkLocal {
		addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, linkLocalBits(a))), Scope: unix.RT_SCOPE_LINK}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := nl.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	if err := setSysctls(linkSysctls(p.Ifname, p.Sysctls)); err != nil {
		return err
	}
	if err := nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return addRoutes(nl, link.Attrs().Index, p)
}

// linkLocalBits are the sizes of the link's own subnets: 169.254.0.0/16 (RFC
// 3927) and fe80::/64 (RFC 4291, section 2.5.6).
func linkLocalBits(a netip.Addr) int {
	if a.Is4() {
		return 16
	}
	return 64
}

// linkSysctls reads an endpoint's sysctls.
func linkSysctls(ifname string, list []string) []sysctl {
	var out []sysctl
	for _, s := range list {
		key, value, _ := strings.Cut(s, "=")
		path := strings.ReplaceAll(strings.TrimPrefix(key, "net."), ".", "/")
		out = append(out, sysctl{path: strings.Replace(path, "/IFNAME/", "/"+ifname+"/", 1), value: value})
	}
	return out
}

// addVeth makes the pair from inside: the host end appears in the host's
// namespace at once, and no link is ever renamed or moved.
func (m *Manager) addVeth(nl *netlink.Handle, p plug) (netlink.Link, error) {
	disable := "1"
	if p.Addr6.IsValid() || slices.ContainsFunc(p.LinkLocal, netip.Addr.Is6) {
		disable = "0"
	}
	// Read by the kernel when the link is made.
	err := setSysctls([]sysctl{{path: "ipv6/conf/default/disable_ipv6", value: disable, optional: true}})
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = p.Ifname, mtuOf(p.network), p.mac
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: p.hostName, PeerNamespace: netlink.NsFd(m.hostns.Fd())}
	err = nl.LinkAdd(veth)
	if errors.Is(err, unix.EEXIST) {
		// The host end of an earlier namespace that is not yet collected.
		var stale netlink.Link
		if stale, err = m.nl.LinkByName(p.hostName); err == nil {
			err = m.unplug([]netlink.Link{stale})
		}
		if err == nil || gone(err) {
			err = nl.LinkAdd(veth)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create veth pair: %w", err)
	}
	return nl.LinkByName(p.Ifname)
}

// addRoutes gives a task with a /32 its way: the gateway is on the link, and
// the subnet is behind the gateway. Answers from an endpoint without the
// default route go back through it (a table of its own, chosen by source), for
// the host drops packets that come from another network's bridge.
func addRoutes(nl *netlink.Handle, index int, p plug) error {
	type family struct {
		addr, gateway netip.Addr
		subnet        netip.Prefix
		all           netip.Prefix
	}
	families := []family{{p.Addr4, p.network.Gateway4, p.network.Subnet4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)}}
	if p.Addr6.IsValid() {
		families = append(families, family{p.Addr6, p.network.Gateway6, p.network.Subnet6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
	}
	for _, f := range families {
		src := f.addr.AsSlice()
		onLink := netlink.Route{LinkIndex: index, Dst: ipNet(host(f.gateway)), Scope: netlink.SCOPE_LINK, Src: src}
		via := netlink.Route{LinkIndex: index, Gw: f.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Src: src}
		toSubnet, toAll := via, via
		toSubnet.Dst, toAll.Dst = ipNet(f.subnet.Masked()), ipNet(f.all)
		routes := []netlink.Route{onLink, toSubnet, toAll}
		if p.DefaultRoute {
			routes = []netlink.Route{onLink, toAll}
		}
		for _, r := range routes {
			if r.Dst.IP.Equal(toAll.Dst.IP) {
				r.Table = p.table
			}
			if err := nl.RouteReplace(&r); err != nil {
				return fmt.Errorf("add route to %s: %w", r.Dst, err)
			}
		}
		if p.table == 0 {
			continue
		}
		rule := netlink.NewRule()
		rule.Src, rule.Table, rule.Priority = ipNet(host(f.addr)), p.table, p.table
		if err := nl.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add the rule for answers from %s: %w", f.addr, err)
		}
	}
	return nil
}

// plugHostEnd puts a host end into its bridge.
func (m *Manager) plugHostEnd(p plug) error {
	link, err := m.nl.LinkByName(p.hostName)
	if err != nil {
		return fmt.Errorf("find host end %s: %w", p.hostName, err)
	}
	attrs := link.Attrs()
	if attrs.MasterIndex == p.bridge.Attrs().Index && attrs.Flags&net.FlagUp != 0 && attrs.Alias == p.NetworkID {
		return nil
	}
	if err := m.nl.LinkSetAlias(link, p.NetworkID); err != nil {
		return fmt.Errorf("set alias of %s: %w", p.hostName, err)
	}
	return m.plugIn(link, p.bridge)
}

// plugIn makes a link a hairpin port of a bridge and sets it up. A port needs
// no IPv6 of its own: the bridge has it.
func (m *Manager) plugIn(link, bridge netlink.Link) error {
	name := link.Attrs().Name
	err := setSysctls([]sysctl{{path: "ipv6/conf/" + name + "/disable_ipv6", value: "1", optional: true}})
	if err != nil {
		return err
	}
	if err := m.nl.LinkSetMasterByIndex(link, bridge.Attrs().Index); err != nil {
		return fmt.Errorf("put %s into bridge %s: %w", name, bridge.Attrs().Name, err)
	}
	if err := m.nl.LinkSetHairpin(link, true); err != nil {
		return fmt.Errorf("set hairpin on %s: %w", name, err)
	}
	if err := m.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return awaitCarrier(m.nl, name, bridge.Attrs().Name)
}

// carrierWait is the longest that the kernel puts a change of carrier off.
const carrierWait = time.Second

// awaitCarrier returns when the links carry packets. The other end of a veth,
// or the first port, gives a link its carrier, but until the kernel's link
// watch has run, within a second, it drops what it is to send and its IPv6
// addresses are not ready: the task's first connections would fail. Asking for
// a link makes the link watch run for it at once since Linux 6.8; before,
// there is nothing but to wait.
func awaitCarrier(nl *netlink.Handle, names ...string) error {
	deadline := time.Now().Add(carrierWait)
	for _, name := range names {
		for {
			link, err := nl.LinkByName(name)
			if err != nil {
				return fmt.Errorf("look at %s: %w", name, err)
			}
			state := link.Attrs().OperState
			ready := state == netlink.OperUp || state == netlink.OperUnknown
			if ready {
				if ready, err = addrsReady(nl, link); err != nil {
					return err
				}
			}
			if ready || time.Now().After(deadline) {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// addrsReady says whether the kernel has gone through all IPv6 addresses of a
// link: without duplicate detection they are tentative for a moment, too.
func addrsReady(nl *netlink.Handle, link netlink.Link) (bool, error) {
	addrs, err := complete(func() ([]netlink.Addr, error) { return nl.AddrList(link, netlink.FAMILY_V6) })
	if err != nil {
		return false, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			return false, nil
		}
	}
	return true, nil
}

// Detach removes the namespace and the links of a task. Idempotent. The links
// go first and at once, so that the addresses are free when it returns even if
// a process still holds the namespace.
func (m *Manager) Detach(ctx context.Context, taskID string) error {
	if err := checkID("task", taskID); err != nil {
		return err
	}
	defer m.plugging.lock(taskID)()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.detach(taskID); err != nil {
		return fmt.Errorf("detach task %s: %w", taskID, err)
	}
	return nil
}

func (m *Manager) detach(taskID string) error {
	links, err := m.hostEnds(taskID)
	if err == nil {
		err = m.unplug(links)
	}
	if err != nil {
		return err
	}
	crash.At("veth.deleted")
	return unpin(m.netnsPath(taskID))
}
