package rollout

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"

	"berth/testbed/load"
)

// Addresses for documentation (RFC 5737) join the machine and its neighbour.
const (
	here  = "198.51.100.1"
	there = "198.51.100.2"
)

// neighbour is another machine, joined to this one by a link.
type neighbour struct {
	*load.Namespace
	link netlink.Link
}

func newNeighbour() (n *neighbour, err error) {
	ns, file, err := load.NewNamespace()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	n = &neighbour{Namespace: ns}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "outside"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(file.Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("join a neighbour: %w", err)
	}
	n.link = veth
	if err := configure(veth.Name, here); err != nil {
		return nil, err
	}
	return n, n.Do(func() error { return configure("eth0", there) })
}

// configure gives a link of this thread's namespace an address and sets it up.
func configure(name, address string) error {
	h, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address), Mask: net.CIDRMask(24, 32)}}
	if err := h.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("give %s an address: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

func (n *neighbour) close() error {
	n.Close()
	if n.link == nil {
		return nil
	}
	if err := netlink.LinkDel(n.link); err != nil {
		return fmt.Errorf("remove the neighbour's link: %w", err)
	}
	return nil
}

// published are the targets of services as their users see them: from outside,
// where the service must see the user's own address, and from the machine
// itself.
func (n *neighbour) published(services ...service) []load.Target {
	var out []load.Target
	for _, s := range services {
		outside := atPort(s.name+" from outside", here, s.port, s.port+tcpAbove)
		outside.From, outside.Source = n, netip.MustParseAddr(there)
		local := atPort(s.name+" from the host", "127.0.0.1", s.port, s.port+tcpAbove)
		local.From = &net.Dialer{}
		out = append(out, outside, local)
	}
	return out
}

// inside are the targets of services as another service of the stack sees
// them. The caller closes the namespace.
func (s *stack) inside(ctx context.Context, client string, services ...service) ([]load.Target, *load.Namespace, error) {
	task, err := s.only(ctx, client)
	if err != nil {
		return nil, nil, err
	}
	ns, err := load.OpenNamespace(fmt.Sprintf("/proc/%d/ns/net", task.Pid))
	if err != nil {
		return nil, nil, err
	}
	var out []load.Target
	for _, v := range services {
		vip, err := s.vip(ctx, v.name)
		if err != nil {
			ns.Close()
			return nil, nil, err
		}
		t := atPort(v.name+" from "+client, vip, 8080, 7000)
		t.From, t.Source = ns, netip.MustParseAddr(task.Networks[0].IPv4)
		out = append(out, t)
	}
	return out, ns, nil
}

func atPort(name, host string, http, echo int) load.Target {
	at := func(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	return load.Target{Name: name, HTTP: at(http), TCP: at(echo), UDP: at(echo)}
}
