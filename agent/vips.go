package agent

import (
	"fmt"
	"maps"
	"net/netip"

	"berth/overlaynet"
	"berth/spec"
	"berth/store"
)

// giveVIPs takes a virtual address for each service on each network it is on,
// and gives back those that are no longer needed. VIPs come from the upper end
// of a subnet, tasks from the lower: neither moves the other. An address that
// the file gives to a service is nobody else's: a VIP that has it moves.
func (a *Agent) giveVIPs(c *change, stack string, st *spec.Stack) error {
	static := staticAddresses(st)
	for _, name := range sortedKeys(st.Services) {
		svc := st.Services[name]
		if svc.EndpointMode == "dnsrr" || svc.NetworkMode != "" {
			continue
		}
		for _, at := range svc.Networks {
			netName := st.Networks[at.Network].Name
			key := store.VIPKey(netName, stack, name)
			n := c.network(netName)
			if n == nil {
				return fmt.Errorf("network %s does not exist", netName)
			}
			if v := c.w.vips[key]; v != nil && n.Subnet4.Contains(v.IPv4) && v.IPv6.IsValid() == n.Subnet6.IsValid() &&
				!static[netName][v.IPv4] && !static[netName][v.IPv6] {
				if _, dropped := c.vips[key]; !dropped {
					continue
				}
			}
			v, err := a.newVIP(c, n, stack, name, static[netName])
			if err != nil {
				return err
			}
			c.putVIP(v)
		}
	}
	a.dropVIPs(c, stack, st)
	return nil
}

// dropVIPs takes the virtual addresses back that st does not want any more. One
// of a service whose tasks still live stays with them: what is replaced in the
// same rollout may depend on it to its end.
func (a *Agent) dropVIPs(c *change, stack string, st *spec.Stack) {
	wanted := map[string]bool{}
	for name, svc := range st.Services {
		if svc.EndpointMode == "dnsrr" || svc.NetworkMode != "" {
			continue
		}
		for _, at := range svc.Networks {
			wanted[store.VIPKey(st.Networks[at.Network].Name, stack, name)] = true
		}
	}
	for _, t := range c.w.tasks {
		if _, still := st.Services[t.Service]; still || t.Stack != stack || !t.Live() {
			continue
		}
		for _, e := range t.Endpoints {
			wanted[store.VIPKey(e.Network, stack, t.Service)] = true
		}
	}
	for key, v := range c.w.vips {
		if v.Stack == stack && !wanted[key] {
			c.dropVIP(key)
		}
	}
}

// staticAddresses are those that st gives to services, by the network's name.
func staticAddresses(st *spec.Stack) map[string]map[netip.Addr]bool {
	out := map[string]map[netip.Addr]bool{}
	for _, svc := range st.Services {
		for _, at := range svc.Networks {
			for _, text := range []string{at.IPv4, at.IPv6} {
				addr, err := netip.ParseAddr(text)
				if err != nil {
					continue // there is none; what is wrong is said where it is taken
				}
				name := st.Networks[at.Network].Name
				if out[name] == nil {
					out[name] = map[netip.Addr]bool{}
				}
				out[name][addr] = true
			}
		}
	}
	return out
}

func (a *Agent) newVIP(c *change, n *store.Network, stack, service string, static map[netip.Addr]bool) (store.VIP, error) {
	taken := setAside(n)
	maps.Copy(taken, static)
	c.addresses(n.Name, func(*store.Task) bool { return false }, func(e store.Endpoint) { taken[e.IPv4], taken[e.IPv6] = true, true })
	v := store.VIP{Network: n.Name, Stack: stack, Service: service}
	var ok bool
	if v.IPv4, ok = highest(within(n.Range4, n.Subnet4), taken); !ok {
		return v, fmt.Errorf("network %s: no address left in %s for service %s: %w", n.Name, n.Subnet4, service, overlaynet.ErrPoolExhausted)
	}
	if n.Subnet6.IsValid() {
		if v.IPv6, ok = highest(within(n.Range6, n.Subnet6), taken); !ok {
			return v, fmt.Errorf("network %s: no address left in %s for service %s: %w", n.Name, n.Subnet6, service, overlaynet.ErrPoolExhausted)
		}
	}
	return v, nil
}

// within is the range that a network's file keeps for containers, else the
// whole subnet.
func within(r, subnet netip.Prefix) netip.Prefix {
	if r.IsValid() {
		return r
	}
	return subnet
}

// highest is the highest free address of p, but for the last (IPv4's
// broadcast address) and the first.
func highest(p netip.Prefix, taken map[netip.Addr]bool) (netip.Addr, bool) {
	b := p.Masked().Addr().As16()
	host := p.Addr().BitLen() - p.Bits()
	for i := range host {
		b[15-i/8] |= 1 << (i % 8)
	}
	addr := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		addr = addr.Unmap()
	}
	for addr = addr.Prev(); p.Contains(addr) && addr != p.Masked().Addr(); addr = addr.Prev() {
		if !taken[addr] {
			return addr, true
		}
	}
	return netip.Addr{}, false
}
