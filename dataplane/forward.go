package dataplane

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// upstreamTimeout is what one upstream gets before the next is asked.
	upstreamTimeout = 2 * time.Second
	// resting is how long an upstream that failed is asked last.
	resting = 20 * time.Second
	// maxForwards and maxForwardsPerClient bound the queries on their way at
	// one time: a client that asks for random names must not starve others,
	// nor fill the memory.
	maxForwards          = 1024
	maxForwardsPerClient = 128
)

// forwarder passes queries on to the upstreams.
type forwarder struct {
	mu       sync.Mutex
	total    int
	byClient map[netip.Addr]int
	failed   map[netip.AddrPort]time.Time
}

func newForwarder() *forwarder {
	return &forwarder{byClient: map[netip.Addr]int{}, failed: map[netip.AddrPort]time.Time{}}
}

// enter takes a place for a client, unless there is none.
func (f *forwarder) enter(client netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total >= maxForwards || f.byClient[client] >= maxForwardsPerClient {
		return false
	}
	f.total++
	f.byClient[client]++
	return true
}

func (f *forwarder) leave(client netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total--
	if f.byClient[client]--; f.byClient[client] == 0 {
		delete(f.byClient, client)
	}
}

// order puts upstreams that failed a short while ago last.
func (f *forwarder) order(upstreams []netip.AddrPort) []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	var good, bad []netip.AddrPort
	for _, u := range upstreams {
		if time.Since(f.failed[u]) < resting {
			bad = append(bad, u)
		} else {
			good = append(good, u)
		}
	}
	return append(good, bad...)
}

func (f *forwarder) note(u netip.AddrPort, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failed[u] = time.Now()
	} else {
		delete(f.failed, u)
	}
}

// forward asks the upstreams in turn until one answers; SERVFAIL and REFUSED
// are no answers unless nobody has a better one.
func (f *forwarder) forward(ctx context.Context, q *dns.Msg, client netip.Addr, upstreams []netip.AddrPort) *dns.Msg {
	failed := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	failed.RecursionAvailable = true
	if !f.enter(client) {
		failed.Rcode = dns.RcodeRefused
		return failed
	}
	defer f.leave(client)
	for _, u := range f.order(upstreams) {
		reply, err := exchange(ctx, q, u)
		f.note(u, err)
		if err != nil {
			continue
		}
		if reply.Rcode == dns.RcodeServerFailure || reply.Rcode == dns.RcodeRefused {
			failed.Rcode = reply.Rcode
			continue
		}
		return reply
	}
	return failed
}

// exchange asks one upstream over UDP, and over TCP if the answer did not fit.
// The id is new and random; the answer has the id of q.
func exchange(ctx context.Context, q *dns.Msg, upstream netip.AddrPort) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	ask := q.Copy()
	var id [2]byte
	rand.Read(id[:])
	ask.Id = binary.BigEndian.Uint16(id[:])
	if opt := ask.IsEdns0(); opt != nil {
		opt.SetUDPSize(maxUDP)
	}
	packed, err := ask.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack query: %w", err)
	}
	reply, err := exchangeOver(ctx, "udp", ask, packed, upstream)
	if err == nil && reply.Truncated {
		var whole *dns.Msg
		if whole, err = exchangeOver(ctx, "tcp", ask, packed, upstream); err == nil {
			reply = whole
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", upstream, err)
	}
	reply.Id = q.Id
	return reply, nil
}

func exchangeOver(ctx context.Context, network string, ask *dns.Msg, packed []byte, upstream netip.AddrPort) (*dns.Msg, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, upstream.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if network == "tcp" {
		packed = append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)
	}
	if _, err := conn.Write(packed); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		var n int
		if network == "tcp" {
			buf, err = readMessage(conn)
			n = len(buf)
		} else {
			n, err = conn.Read(buf)
		}
		if err != nil {
			return nil, err
		}
		reply := new(dns.Msg)
		if reply.Unpack(buf[:n]) == nil && answers(reply, ask) {
			return reply, nil
		}
		if network == "tcp" {
			return nil, errors.New("the answer is to another question")
		}
		// A forged or late datagram: go on reading until the time is over.
	}
}

func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, buf)
	return buf, err
}

// answers says whether reply is to ask: id, direction and question.
func answers(reply, ask *dns.Msg) bool {
	return reply.Response && reply.Id == ask.Id && len(reply.Question) == 1 &&
		reply.Question[0].Qtype == ask.Question[0].Qtype &&
		reply.Question[0].Qclass == ask.Question[0].Qclass &&
		strings.EqualFold(reply.Question[0].Name, ask.Question[0].Name)
}
