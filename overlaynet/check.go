package overlaynet

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrConflict says that two entries of Rules claim the same address or port.
var ErrConflict = errors.New("conflicting rules")

// Check says what makes r impossible to put in force: nft would refuse the
// whole table. Sync calls it.
func Check(r Rules) error {
	if err := checkNetworks(r.Networks); err != nil {
		return err
	}
	known := map[string]bool{}
	for _, n := range r.Networks {
		known[n.ID] = true
	}
	c := claims{}
	for _, s := range r.Services {
		if !known[s.NetworkID] {
			return fmt.Errorf("service %s: network %s is not among the rules", s.ID, s.NetworkID)
		}
		if s.VIP4.IsValid() && !s.VIP4.Is4() || s.VIP6.IsValid() && !s.VIP6.Is6() {
			return fmt.Errorf("service %s: a VIP is of the wrong address family", s.ID)
		}
		if err := c.claim(s.ID, serviceClaims(s)); err != nil {
			return err
		}
		if err := checkBackends(s.ID, s.Backends); err != nil {
			return err
		}
	}
	for _, p := range r.Ports {
		if err := checkPort(p); err != nil {
			return err
		}
		if err := c.claim(p.ID, portClaims(p)); err != nil {
			return err
		}
		if err := checkBackends(p.ID, p.Backends); err != nil {
			return err
		}
	}
	return nil
}

func checkNetworks(list []Network) error {
	for i, n := range list {
		if err := checkNetwork(n); err != nil {
			return err
		}
		for _, other := range list[:i] {
			if bridgeName("", n.ID) == bridgeName("", other.ID) {
				return fmt.Errorf("%w: networks %s and %s share the bridge name", ErrConflict, n.ID, other.ID)
			}
			if n.Subnet4.Overlaps(other.Subnet4) || n.Subnet6.IsValid() && n.Subnet6.Overlaps(other.Subnet6) {
				return fmt.Errorf("%w: the subnets of networks %s and %s overlap", ErrConflict, n.ID, other.ID)
			}
		}
	}
	return nil
}

// claims are the addresses, ports and names that may be given once, by owner.
type claims map[string]string

func (c claims) claim(owner string, keys []string) error {
	for _, key := range keys {
		if by, ok := c[key]; ok {
			return fmt.Errorf("%w: %s is claimed by %s and %s", ErrConflict, key, by, owner)
		}
		c[key] = owner
	}
	return nil
}

func serviceClaims(s Service) []string {
	keys := []string{"service " + s.ID}
	for _, vip := range []netip.Addr{s.VIP4, s.VIP6} {
		if vip.IsValid() {
			keys = append(keys, "address "+vip.String())
		}
	}
	return keys
}

func checkPort(p PublishedPort) error {
	switch p.Protocol {
	case "tcp", "udp", "sctp":
	default:
		return fmt.Errorf("published port %s: protocol %q: want tcp, udp or sctp", p.ID, p.Protocol)
	}
	if p.Port == 0 || p.Target == 0 {
		return fmt.Errorf("published port %s: port %d to %d: 0 is no port", p.ID, p.Port, p.Target)
	}
	return nil
}

const mostWeight = 1_000_000

func checkBackends(id string, list []Backend) error {
	for _, b := range list {
		if b.Weight < 0 || b.Weight > mostWeight {
			return fmt.Errorf("%s: weight %d of backend %s: want 0 to %d", id, b.Weight, b.TaskID, mostWeight)
		}
		if b.Addr4.IsValid() && !b.Addr4.Is4() || b.Addr6.IsValid() && !b.Addr6.Is6() {
			return fmt.Errorf("%s: an address of backend %s is of the wrong family", id, b.TaskID)
		}
	}
	return nil
}

// portClaims are the keys that a port takes. A port of one address beside the
// same port of every address is no conflict here: the closer one wins.
func portClaims(p PublishedPort) []string {
	port := fmt.Sprintf("%d/%s", p.Port, p.Protocol)
	keys := []string{"published port " + p.ID}
	switch ip := p.HostIP.Unmap(); {
	case !ip.IsValid():
		keys = append(keys, "port 0.0.0.0:"+port, "port [::]:"+port)
	case ip.Is6():
		keys = append(keys, "port ["+ip.String()+"]:"+port)
	default:
		keys = append(keys, "port "+ip.String()+":"+port)
	}
	return keys
}
