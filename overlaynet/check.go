package overlaynet

import (
	"errors"
	"fmt"
)

// ErrConflict says that two entries of Rules claim the same address or port.
var ErrConflict = errors.New("conflicting rules")

// Check says what makes r impossible to put in force: nft would refuse the
// whole table. Sync calls it.
func Check(r Rules) error {
	networks := map[string]Network{}
	for _, n := range r.Networks {
		if err := checkNetwork(n); err != nil {
			return err
		}
		for _, other := range networks {
			if bridgeName("", n.ID) == bridgeName("", other.ID) {
				return fmt.Errorf("%w: networks %s and %s share the bridge name", ErrConflict, n.ID, other.ID)
			}
			if n.Subnet4.Overlaps(other.Subnet4) || n.Subnet6.IsValid() && n.Subnet6.Overlaps(other.Subnet6) {
				return fmt.Errorf("%w: the subnets of networks %s and %s overlap", ErrConflict, n.ID, other.ID)
			}
		}
		networks[n.ID] = n
	}
	claimed := map[string]string{}
	claim := func(key, who string) error {
		if by, ok := claimed[key]; ok {
			return fmt.Errorf("%w: %s is claimed by %s and %s", ErrConflict, key, by, who)
		}
		claimed[key] = who
		return nil
	}
	for _, s := range r.Services {
		if _, ok := networks[s.NetworkID]; !ok {
			return fmt.Errorf("service %s: network %s is not among the rules", s.ID, s.NetworkID)
		}
		if s.VIP4.IsValid() && !s.VIP4.Is4() || s.VIP6.IsValid() && !s.VIP6.Is6() {
			return fmt.Errorf("service %s: a VIP is of the wrong address family", s.ID)
		}
		if err := claim("service "+s.ID, "two entries"); err != nil {
			return err
		}
		if s.VIP4.IsValid() {
			if err := claim("address "+s.VIP4.String(), s.ID); err != nil {
				return err
			}
		}
		if s.VIP6.IsValid() {
			if err := claim("address "+s.VIP6.String(), s.ID); err != nil {
				return err
			}
		}
		if err := checkBackends(s.ID, s.Backends); err != nil {
			return err
		}
	}
	for _, p := range r.Ports {
		if err := checkPort(p); err != nil {
			return err
		}
		if err := claim("port id "+p.ID, "two entries"); err != nil {
			return err
		}
		for _, key := range portClaims(p) {
			if err := claim(key, p.ID); err != nil {
				return err
			}
		}
		if err := checkBackends(p.ID, p.Backends); err != nil {
			return err
		}
	}
	return nil
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

func checkBackends(id string, list []Backend) error {
	for _, b := range list {
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
	ip := p.HostIP.Unmap()
	switch {
	case !ip.IsValid():
		return []string{"port 0.0.0.0:" + port, "port [::]:" + port}
	case ip.Is6():
		return []string{"port [" + ip.String() + "]:" + port}
	}
	return []string{"port " + ip.String() + ":" + port}
}
