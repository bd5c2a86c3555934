package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// socketKey is one address that is listened on.
type socketKey struct {
	kind string // dns/udp, dns/tcp, proxy
	addr netip.AddrPort
}

func (k socketKey) String() string { return k.kind + " " + k.addr.String() }

// socket is an open listener with what serves it.
type socket struct {
	close func()
	proxy *proxy // of kind proxy
}

// listen binds and starts to serve. With SO_REUSEPORT two dataplanes can hold
// an address at the same time, which is how one takes over from the other.
func (s *server) listen(ctx context.Context, k socketKey) (*socket, error) {
	lc := net.ListenConfig{Control: reusePort}
	switch k.kind {
	case kindUDP:
		conn, err := lc.ListenPacket(ctx, "udp", k.addr.String())
		if err != nil {
			return nil, err
		}
		served := s.serveDNS(&dns.Server{PacketConn: conn, UDPSize: maxQuery}, k.addr.Addr())
		end := served.close
		served.close = func() {
			if err := s.emptied(conn.(*net.UDPConn)); err != nil {
				s.log.Warn("let a DNS socket run empty", "gateway", k.addr.Addr(), "err", err)
			}
			end()
		}
		return served, nil
	case kindTCP:
		l, err := lc.Listen(ctx, "tcp", k.addr.String())
		if err != nil {
			return nil, err
		}
		return s.serveDNS(&dns.Server{Listener: l, MaxTCPQueries: maxTCPQueries}, k.addr.Addr()), nil
	case kindProxy:
		l, err := lc.Listen(ctx, "tcp", k.addr.String())
		if err != nil {
			return nil, err
		}
		p := newProxy()
		s.running.Go(func() { p.serve(s.conns, l) })
		return &socket{proxy: p, close: func() { l.Close() }}, nil
	}
	return nil, fmt.Errorf("unknown kind of socket %q", k.kind)
}

// emptied takes a UDP socket out of those that share its port and waits until
// the packets that it has are read: closed at once, it would take the queries
// in its queue with it. The kernel leads packets past a socket that is
// connected to somebody else (Linux 5.4), so it is connected to nobody.
func (s *server) emptied(c *net.UDPConn) error {
	const discard = 9 // RFC 863
	local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	var nobody unix.Sockaddr = &unix.SockaddrInet6{Port: discard, Addr: local.As16()}
	if local.Is4() {
		nobody = &unix.SockaddrInet4{Port: discard, Addr: local.As4()}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Connect(int(fd), nobody) }); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	for end := time.Now().Add(emptyWait); time.Now().Before(end); time.Sleep(time.Millisecond) {
		waiting := 0
		err := raw.Control(func(fd uintptr) { waiting, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		if err != nil || failed != nil || waiting == 0 {
			return errors.Join(err, failed)
		}
	}
	return nil
}

// emptyWait bounds how long a socket is read empty.
const emptyWait = 200 * time.Millisecond

const (
	kindUDP, kindTCP, kindProxy = "dns/udp", "dns/tcp", "proxy/tcp"

	// maxQuery is the largest UDP query that is read; with EDNS they are small.
	maxQuery = 1232
	// maxTCPQueries closes a TCP connection after so many queries.
	maxTCPQueries = 128
)

func (s *server) serveDNS(d *dns.Server, gateway netip.Addr) *socket {
	d.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serveQuery(w, q, gateway) })
	// Answers to queries with records in them are useless to anybody but an
	// attacker; the library's own check lets NOTIFY and the like through.
	d.MsgAcceptFunc = acceptQuery
	started := make(chan struct{})
	d.NotifyStartedFunc = func() { close(started) }
	failed := make(chan struct{})
	s.running.Go(func() {
		defer close(failed)
		if err := d.ActivateAndServe(); err != nil {
			s.log.Error("serve DNS", "gateway", gateway, "err", err)
		}
	})
	select {
	case <-started:
	case <-failed:
	}
	return &socket{close: func() {
		// Waits for the queries that have been read.
		ctx, cancel := context.WithTimeout(context.Background(), handover)
		defer cancel()
		if err := d.ShutdownContext(ctx); err != nil {
			s.log.Warn("end DNS", "gateway", gateway, "err", err)
		}
	}}
}

func acceptQuery(h dns.Header) dns.MsgAcceptAction {
	const response = 1 << 15
	if h.Bits&response != 0 {
		return dns.MsgIgnore
	}
	if h.Qdcount != 1 || h.Ancount > 0 || h.Nscount > 0 || h.Arcount > 2 {
		return dns.MsgReject
	}
	if opcode := int(h.Bits>>11) & 0xf; opcode != dns.OpcodeQuery {
		return dns.MsgRejectNotImplemented
	}
	return dns.MsgAccept
}

func reusePort(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return failed
}
