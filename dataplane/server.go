package dataplane

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// server is the sockets of one snapshot and what answers on them.
type server struct {
	log     *slog.Logger
	dnsPort uint16
	// conns is the life of proxied connections and of queries under way.
	conns   context.Context
	running sync.WaitGroup

	state   atomic.Pointer[state]
	turn    atomic.Uint32
	forward *forwarder

	// Only the loop of Run touches these.
	sockets map[socketKey]*socket
	failing map[socketKey]string // and the last error, to log it once
}

// state is a snapshot made ready for look-ups.
type state struct {
	byGateway map[netip.Addr]*Network
	byID      map[string]*Network
	upstreams []netip.AddrPort
	loopback  map[uint16][]netip.AddrPort
}

func newState(s Snapshot, dnsPort uint16) *state {
	st := &state{byGateway: map[netip.Addr]*Network{}, byID: map[string]*Network{}, loopback: map[uint16][]netip.AddrPort{}}
	for i := range s.Networks {
		st.byID[s.Networks[i].ID] = &s.Networks[i]
		for _, g := range s.Networks[i].Gateways {
			st.byGateway[g] = &s.Networks[i]
		}
	}
	st.upstreams = st.others(s.Upstreams, dnsPort)
	for _, l := range s.Loopback {
		st.loopback[l.Port] = append(st.loopback[l.Port], l.Backends...)
	}
	return st
}

// others are the upstreams that are not we: asking ourselves would go round for
// ever.
func (st *state) others(upstreams []netip.AddrPort, dnsPort uint16) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(upstreams), func(u netip.AddrPort) bool {
		return u.Port() == dnsPort && st.byGateway[u.Addr().Unmap()] != nil
	})
}

func newServer(ctx context.Context, dnsPort uint16, log *slog.Logger) *server {
	s := &server{
		log: log, dnsPort: dnsPort, conns: ctx, forward: newForwarder(),
		sockets: map[socketKey]*socket{}, failing: map[socketKey]string{},
	}
	s.state.Store(newState(Snapshot{}, dnsPort))
	return s
}

// apply makes names and backends those of snap, then the sockets.
func (s *server) apply(ctx context.Context, snap Snapshot) {
	s.state.Store(newState(snap, s.dnsPort))
	s.reconcile(ctx)
}

// reconcile opens the sockets that the state wants and closes the others. A
// bridge may be made after its snapshot is written: what fails is tried again
// by the next call.
func (s *server) reconcile(ctx context.Context) {
	st := s.state.Load()
	wanted := map[socketKey]bool{}
	for gateway := range st.byGateway {
		at := netip.AddrPortFrom(gateway, s.dnsPort)
		wanted[socketKey{kindUDP, at}] = true
		wanted[socketKey{kindTCP, at}] = true
	}
	for port := range st.loopback {
		wanted[socketKey{kindProxy, netip.AddrPortFrom(netip.IPv6Loopback(), port)}] = true
	}
	for k, open := range s.sockets {
		if !wanted[k] {
			s.running.Go(open.close) // waits for queries under way
			delete(s.sockets, k)
		}
	}
	for k := range s.failing {
		if !wanted[k] {
			delete(s.failing, k)
		}
	}
	for k := range wanted {
		if s.sockets[k] == nil {
			s.open(ctx, k)
		}
		if open := s.sockets[k]; open != nil && open.proxy != nil {
			backends := st.loopback[k.addr.Port()]
			open.proxy.backends.Store(&backends)
		}
	}
}

func (s *server) open(ctx context.Context, k socketKey) {
	open, err := s.listen(ctx, k)
	if err != nil {
		if s.failing[k] != err.Error() {
			s.log.Warn("cannot listen yet", "socket", k.String(), "err", err)
		}
		s.failing[k] = err.Error()
		return
	}
	delete(s.failing, k)
	s.sockets[k] = open
}

func (s *server) closeAll() {
	var all sync.WaitGroup
	for k, open := range s.sockets {
		all.Go(open.close)
		delete(s.sockets, k)
	}
	all.Wait()
}

// serveQuery answers one query that came to a gateway.
func (s *server) serveQuery(w dns.ResponseWriter, q *dns.Msg, gateway netip.Addr) {
	st := s.state.Load()
	network := st.byGateway[gateway]
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	// Without a network the socket is about to close.
	reply := new(dns.Msg).SetRcode(q, dns.RcodeRefused)
	upstreams, from := st.upstreams, addrOf(w.RemoteAddr())
	if network != nil {
		if own := network.Clients[from].Upstreams; len(own) > 0 {
			upstreams = st.others(own, s.dnsPort)
		}
		reply = s.answer(st, network, from, q)
	}
	if reply == nil {
		reply = s.forward.forward(s.conns, q, from, upstreams)
	}
	fit(reply, q, tcp)
	if err := w.WriteMsg(reply); err != nil {
		s.log.Debug("answer", "client", w.RemoteAddr(), "err", err)
	}
}

// answer asks all networks that the client is on, that of the gateway first: a
// resolver takes the first server's "no such name" for the truth. Only where
// all of them are internal a name is not looked for outside.
func (s *server) answer(st *state, network *Network, client netip.Addr, q *dns.Msg) *dns.Msg {
	known := network.Clients[client]
	reply := resolver{network, known, &s.turn}.answer(q)
	for _, id := range network.Elsewhere[client] {
		other := st.byID[id]
		if reply != nil && reply.Rcode != dns.RcodeNameError || other == nil {
			continue
		}
		if next := (resolver{other, known, &s.turn}).answer(q); next == nil || next.Authoritative {
			reply = next
		}
	}
	return reply
}

func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
