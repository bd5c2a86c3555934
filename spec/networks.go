package spec

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Options of Docker's bridge driver that Berth honours, on networks.
const (
	OptMTU         = "com.docker.network.driver.mtu"
	OptMTUShort    = "mtu"
	OptBridgeName  = "com.docker.network.bridge.name"
	OptICC         = "com.docker.network.bridge.enable_icc"
	OptMasquerade  = "com.docker.network.bridge.enable_ip_masquerade"
	OptHostBinding = "com.docker.network.bridge.host_binding_ipv4"
	OptIfPrefix    = "com.docker.network.container_iface_prefix"
	optGateway4    = "com.docker.network.bridge.gateway_mode_ipv4"
	optGateway6    = "com.docker.network.bridge.gateway_mode_ipv6"
)

// Options that Berth honours on the networks of a service.
const (
	OptSysctls   = "com.docker.network.endpoint.sysctls"
	optEndpoint  = "com.docker.network.endpoint.ifname"
	ifNameLength = 15 // IFNAMSIZ, without the final NUL
)

// MachineBridge is the network that `network_mode: bridge` leads to: all
// stacks share it, and it belongs to none.
const MachineBridge = "bridge"

func network(key string, n types.NetworkConfig) Network {
	out := Network{
		Key: key, Name: n.Name, External: bool(n.External), Driver: n.Driver, DriverOpts: filled(n.DriverOpts),
		Internal: n.Internal, Attachable: n.Attachable, EnableIPv4: n.EnableIPv4,
		EnableIPv6: n.EnableIPv6 != nil && *n.EnableIPv6, Labels: filled(n.Labels),
	}
	for _, pool := range n.Ipam.Config {
		if pool == nil {
			continue
		}
		out.IPAM = append(out.IPAM, IPAMPool{
			Subnet: pool.Subnet, Gateway: pool.Gateway, IPRange: pool.IPRange, Aux: filled(pool.AuxiliaryAddresses),
		})
	}
	return out
}

// hostNetwork says which network mode a network stands for: "host" or "none",
// as Swarm's files name them, or "" for a network of its own.
func hostNetwork(n types.NetworkConfig) string {
	name := n.Driver
	if bool(n.External) {
		name = n.Name
	}
	switch name {
	case "host":
		return "host"
	case "none", "null":
		return "none"
	}
	return ""
}

func (l *loading) networking(out *Service, s types.ServiceConfig) {
	switch mode := s.NetworkMode; {
	case mode == "host", mode == "none", strings.HasPrefix(mode, types.ServicePrefix), strings.HasPrefix(mode, types.ContainerPrefix):
		out.NetworkMode = mode
		return
	case mode == "bridge", mode == "default":
		out.Networks = []Attachment{l.byName(MachineBridge)}
		return
	case mode != "":
		out.Networks = []Attachment{l.byName(mode)}
		return
	}
	for key, n := range s.Networks {
		if mode := hostNetwork(l.project.Networks[key]); mode != "" {
			if len(s.Networks) > 1 {
				l.add(l.placed(Error, "services."+out.Name+".networks."+key,
					fmt.Sprintf("network %s is %s, and goes with no other", key, l.project.Networks[key].Name), "keep one of them"))
			}
			out.NetworkMode, out.Networks = mode, nil
			return
		}
		out.Networks = append(out.Networks, attachment(key, n))
	}
	slices.SortFunc(out.Networks, func(a, b Attachment) int { return cmp.Compare(a.Network, b.Network) })
	l.hostBinding(out)
}

func attachment(key string, n *types.ServiceNetworkConfig) Attachment {
	a := Attachment{Network: key}
	if n == nil {
		return a
	}
	a.Aliases, a.IPv4, a.IPv6 = list(n.Aliases), n.Ipv4Address, n.Ipv6Address
	a.LinkLocalIPs, a.MAC, a.Priority = list(n.LinkLocalIPs), n.MacAddress, n.Priority
	a.GwPriority, a.InterfaceName, a.DriverOpts = n.GatewayPriority, n.InterfaceName, filled(n.DriverOpts)
	a.NoServiceName = !n.ServiceNameAliasEnabled()
	if name := a.DriverOpts[optEndpoint]; a.InterfaceName == "" {
		a.InterfaceName = name
	}
	return a
}

// byName attaches to a network of the machine, which the file names outside of
// its networks.
func (l *loading) byName(name string) Attachment {
	if l.named == nil {
		l.named = map[string]Network{}
	}
	key := name
	for n, taken := l.project.Networks[key]; taken && n.Name != name; n, taken = l.project.Networks[key] {
		key += "~" // no key of a file ends so
	}
	l.named[key] = Network{Key: key, Name: name, External: true}
	return Attachment{Network: key}
}

// joinByName adds the networks that byName found.
func (l *loading) joinByName(st *Stack) {
	for key, n := range l.named {
		if _, ok := st.Networks[key]; !ok {
			st.Networks[key] = n
		}
	}
}

// hostBinding gives ports without an address that of the service's network.
func (l *loading) hostBinding(out *Service) {
	for _, a := range out.Networks {
		ip := l.project.Networks[a.Network].DriverOpts[OptHostBinding]
		if ip == "" || ip == "0.0.0.0" {
			continue
		}
		for i := range out.Ports {
			if out.Ports[i].HostIP == "" {
				out.Ports[i].HostIP = ip
			}
		}
	}
}

// networks holds what a service says of its networks to what it can be.
func (c serviceCheck) networks() {
	if c.s.NetworkMode != "" && len(c.s.Networks) > 0 {
		c.failValue(c.at+".network_mode", "network_mode and networks exclude each other ("+c.l.where(c.at+".networks")+")",
			"keep one of them")
	}
	for _, key := range sortedKeys(c.s.Networks) {
		if _, ok := c.l.project.Networks[key]; !ok {
			c.undefined(c.at+".networks."+key, "network", key, sortedKeys(c.l.project.Networks))
			continue
		}
		if a := c.s.Networks[key]; a != nil {
			c.endpoint(c.at+".networks."+key, a)
		}
	}
	if _, err := net.ParseMAC(c.s.MacAddress); c.s.MacAddress != "" && err != nil {
		c.failValue(c.at+".mac_address", fmt.Sprintf("%q is no MAC address", c.s.MacAddress), "write it as 02:42:ac:11:00:02")
	}
	c.otherNames()
}

// otherNames holds what a service says of names of others to what it can be.
func (c serviceCheck) otherNames() {
	for _, host := range sortedKeys(c.s.ExtraHosts) {
		for _, addr := range c.s.ExtraHosts[host] {
			if _, err := netip.ParseAddr(addr); err != nil && addr != "host-gateway" {
				c.failValue(c.at+".extra_hosts", fmt.Sprintf("%q of extra host %s is no address", addr, host), "write an IP address, or host-gateway")
			}
		}
	}
	for i, link := range c.s.ExternalLinks {
		if name, alias, found := strings.Cut(link, ":"); name == "" || found && alias == "" || strings.Contains(alias, ":") {
			c.failValue(fmt.Sprintf("%s.external_links.%d", c.at, i), fmt.Sprintf("external link %q names no container", link), "write CONTAINER:ALIAS")
		}
	}
}

var endpointSysctl = lazy(`^net\.(ipv4|ipv6|mpls)\.[a-z]+\.IFNAME\.[a-z0-9_]+=[^=]+$`)

func (c serviceCheck) endpoint(at string, a *types.ServiceNetworkConfig) {
	if _, err := net.ParseMAC(a.MacAddress); a.MacAddress != "" && err != nil {
		c.failValue(at+".mac_address", fmt.Sprintf("%q is no MAC address", a.MacAddress), "write it as 02:42:ac:11:00:02")
	}
	for i, text := range a.LinkLocalIPs {
		if ip, err := netip.ParseAddr(text); err != nil || !ip.IsLinkLocalUnicast() {
			c.failAtUp(fmt.Sprintf("%s.link_local_ips.%d", at, i), fmt.Sprintf("%q is no link-local address", text), "write one of 169.254.0.0/16 or fe80::/10")
		}
	}
	if name := a.InterfaceName; len(name) > ifNameLength || strings.ContainsAny(name, "/: \t") || name == "." || name == ".." || name == "lo" {
		c.failValue(at+".interface_name", fmt.Sprintf("%q is no name for an interface", name), fmt.Sprintf("write 1 to %d letters and digits", ifNameLength))
	}
	for s := range strings.SplitSeq(a.DriverOpts[OptSysctls], ",") {
		if s != "" && !endpointSysctl().MatchString(s) {
			c.failAtUp(at+".driver_opts."+OptSysctls, fmt.Sprintf("%q is no sysctl of an interface", s), "write net.ipv4.conf.IFNAME.NAME=VALUE")
		}
	}
}

// checkNetworks holds the top-level networks to what they can be.
func (l *loading) checkNetworks() {
	for _, key := range sortedKeys(l.project.Networks) {
		n, at := l.project.Networks[key], "networks."+key
		for _, opt := range []string{OptICC, OptMasquerade} {
			if _, err := strconv.ParseBool(n.DriverOpts[opt]); n.DriverOpts[opt] != "" && err != nil {
				l.add(l.placedValue(Error, at+".driver_opts."+opt, fmt.Sprintf("%q is neither true nor false", n.DriverOpts[opt]), ""))
			}
		}
		for _, opt := range []string{optGateway4, optGateway6} {
			if mode := n.DriverOpts[opt]; mode != "" && mode != "nat" {
				l.add(l.placedValue(Ignored, at+".driver_opts."+opt, fmt.Sprintf("gateway mode %s is not honoured", mode), "nat is; leave it out"))
			}
		}
		if ip := n.DriverOpts[OptHostBinding]; ip != "" {
			if _, err := netip.ParseAddr(ip); err != nil {
				l.add(l.placedValue(Error, at+".driver_opts."+OptHostBinding, fmt.Sprintf("%q is no address", ip), "write an address of this machine"))
			}
		}
		for _, name := range []string{n.DriverOpts[OptBridgeName], n.DriverOpts[OptIfPrefix]} {
			if len(name) > ifNameLength || strings.ContainsAny(name, "/: \t") {
				l.add(l.placed(Error, at+".driver_opts", fmt.Sprintf("%q is no name for an interface", name), fmt.Sprintf("write 1 to %d letters and digits", ifNameLength)))
			}
		}
		l.checkPools(at, n)
	}
}

func (l *loading) checkPools(at string, n types.NetworkConfig) {
	for i, pool := range n.Ipam.Config {
		if pool == nil {
			continue
		}
		at := fmt.Sprintf("%s.ipam.config.%d", at, i)
		subnet, err := netip.ParsePrefix(pool.Subnet)
		if err != nil {
			continue // the loader, or the agent, says so
		}
		inside := func(attr, text string, addr netip.Addr, err error) {
			switch {
			case err != nil:
				l.add(l.placedValue(Error, at+attr, fmt.Sprintf("%q is no address", text), ""))
			case !subnet.Contains(addr):
				l.add(l.placedValue(Error, at+attr, fmt.Sprintf("%s is not in subnet %s", text, pool.Subnet), ""))
			}
		}
		if pool.Gateway != "" {
			addr, err := netip.ParseAddr(pool.Gateway)
			inside(".gateway", pool.Gateway, addr, err)
		}
		if pool.IPRange != "" {
			p, err := netip.ParsePrefix(pool.IPRange)
			inside(".ip_range", pool.IPRange, p.Addr(), err)
		}
		for _, name := range sortedKeys(pool.AuxiliaryAddresses) {
			addr, err := netip.ParseAddr(pool.AuxiliaryAddresses[name])
			inside(".aux_addresses."+name, pool.AuxiliaryAddresses[name], addr, err)
		}
	}
}
