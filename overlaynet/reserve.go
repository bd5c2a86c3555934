package overlaynet

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ErrPortInUse says that a process of the host holds a port.
var ErrPortInUse = errors.New("port in use")

// DataplaneUID is the user that the dataplane runs as. It is nobody's but
// Berth's: Debian and systemd leave 60706 to 61183 free, and containers that
// run as the common nobody must not share its sockets.
const DataplaneUID = 60953

// Reserve holds the host's port of p until the result is closed, so that a
// conflict is an error before anything is stopped, and so that no other
// process takes the port meanwhile. ErrPortInUse names the holder:
// `port 8080/tcp is in use by nginx (pid 812)`. Only HostIP, Port and Protocol
// are read.
//
// Traffic never reaches the sockets: the rules redirect it. TCP sockets are
// bound and do not listen, so without rules a connection is refused; UDP ones
// have a filter that drops everything, so no buffer fills. All have
// SO_REUSEPORT and belong to DataplaneUID, because the dataplane, which runs as
// that user and sets it too, must listen on [::1] and on port 53 of the
// gateways: the kernel shares a port only among sockets of one user.
func Reserve(p PublishedPort) (io.Closer, error) {
	r := &reservation{}
	for _, addr := range reserveAddrs(p.HostIP.Unmap()) {
		fd, err := hold(addr, p.Port, p.Protocol)
		if err != nil {
			r.Close()
			return nil, err
		}
		if fd >= 0 {
			r.fds = append(r.fds, fd)
		}
	}
	if holder, ok := listener(p); ok {
		r.Close()
		return nil, portInUse(p.Port, p.Protocol, holder)
	}
	return r, nil
}

type reservation struct{ fds []int }

// Close releases the port. It may be called twice.
func (r *reservation) Close() error {
	var errs []error
	for _, fd := range r.fds {
		errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
	}
	r.fds = nil
	return errors.Join(errs...)
}

func reserveAddrs(ip netip.Addr) []netip.Addr {
	if ip.IsValid() {
		return []netip.Addr{ip}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// hold binds a socket. -1 without an error: this kernel has no IPv6.
func hold(addr netip.Addr, port uint16, protocol string) (int, error) {
	family, kind, proto := unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(port), Addr: addr4Bytes(addr)}
	if addr.Is6() {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: addr.As16()}
	}
	switch protocol {
	case "udp":
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case "sctp":
		proto = unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("reserve port %d/%s: socket: %w", port, protocol, err)
	}
	err = bind(fd, to, family, protocol)
	if errors.Is(err, unix.EADDRINUSE) && protocol == "tcp" {
		holder, found := listener(PublishedPort{HostIP: addr, Port: port, Protocol: protocol})
		if found {
			unix.Close(fd)
			return -1, portInUse(port, protocol, holder)
		}
		// Nobody listens: what is in the way are connections in TIME_WAIT of
		// the server that had the port before.
		err = bindReused(fd, to)
	}
	if err != nil {
		unix.Close(fd)
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		holder, _ := listener(PublishedPort{HostIP: addr, Port: port, Protocol: protocol})
		return -1, portInUse(port, protocol, holder)
	case errors.Is(err, unix.EADDRNOTAVAIL) && addr == netip.IPv6Unspecified():
		return -1, nil // IPv6 is disabled
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return -1, fmt.Errorf("reserve port %d/%s: the host has no address %s", port, protocol, addr)
	case err != nil:
		return -1, fmt.Errorf("reserve port %d/%s on %s: %w", port, protocol, addr, err)
	}
	return fd, nil
}

func addr4Bytes(a netip.Addr) (b [4]byte) {
	if a.Is4() {
		b = a.As4()
	}
	return b
}

func bind(fd int, to unix.Sockaddr, family int, protocol string) error {
	options := []struct{ level, name int }{{unix.SOL_SOCKET, unix.SO_REUSEPORT}}
	if protocol == "sctp" {
		options = nil // SCTP has its own option, and the dataplane none of it
	}
	if family == unix.AF_INET6 {
		options = append(options, struct{ level, name int }{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY})
	}
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, DataplaneUID, -1); err != nil {
			return fmt.Errorf("give the socket to the dataplane's user: %w", err)
		}
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, 1); err != nil {
			return fmt.Errorf("set socket option: %w", err)
		}
	}
	if protocol == "udp" {
		const dropAll = 0 // accept no byte of any packet
		code := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: dropAll}}
		program := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program); err != nil {
			return fmt.Errorf("attach the filter that drops everything: %w", err)
		}
	}
	return unix.Bind(fd, to)
}

// bindReused binds past TIME_WAIT, then takes the permission back: left on, it
// would let any server with SO_REUSEADDR in.
func bindReused(fd int, to unix.Sockaddr) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, to); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
}

func portInUse(port uint16, protocol, holder string) error {
	if holder == "" {
		holder = "another process"
	}
	return fmt.Errorf("%w: port %d/%s is in use by %s", ErrPortInUse, port, protocol, holder)
}
