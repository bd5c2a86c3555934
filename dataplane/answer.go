package dataplane

import (
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
)

// ptrTTL is for reverse names, in seconds: a task's address may go to another
// task soon.
const ptrTTL = 1

// maxUDP is what a UDP answer may have at most: it fits every path without
// fragments (DNS flag day 2020).
const maxUDP = 1232

// resolver answers for one network.
type resolver struct {
	net    *Network
	client Client         // who asks
	turn   *atomic.Uint32 // rotates the addresses of an answer
}

// answer replies to a query from what is known; nil means that the name is
// unknown and the query is to be forwarded. It is pure but for the turn.
func (r resolver) answer(q *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetReply(q)
	reply.RecursionAvailable = true
	switch {
	case q.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
		return reply
	case len(q.Question) != 1:
		reply.Rcode = dns.RcodeFormatError
		return reply
	}
	ask := q.Question[0]
	if ask.Qclass != dns.ClassINET && ask.Qclass != dns.ClassANY {
		reply.Rcode = dns.RcodeRefused
		return reply
	}
	name := strings.ToLower(strings.TrimSuffix(ask.Name, "."))
	if known, ok := r.known(name); ok {
		reply.Authoritative = true
		reply.Answer = r.addresses(ask, known)
		return reply
	}
	if addr, ok := reverseAddr(name); ok {
		if host, ok := r.net.PTR[addr]; ok {
			reply.Authoritative = true
			if ask.Qtype == dns.TypePTR || ask.Qtype == dns.TypeANY {
				header := dns.RR_Header{Name: ask.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ptrTTL}
				reply.Answer = []dns.RR{&dns.PTR{Hdr: header, Ptr: dns.Fqdn(host)}}
			}
			return reply
		}
	}
	if r.net.Internal {
		// Forwarding would let data out of the network, in names.
		reply.Rcode = dns.RcodeNameError
		return reply
	}
	return nil
}

// known finds a name; the client's own come first.
func (r resolver) known(name string) (Name, bool) {
	if target, linked := r.client.Links[name]; linked {
		if known, ok := r.net.Names[target]; ok {
			return known, true
		}
	}
	known, ok := r.net.Names[name]
	return known, ok
}

// addresses are the records of the asked type, each answer beginning with the
// next address. Other types have none: NOERROR, empty. (NXDOMAIN on AAAA makes
// some libraries drop the A answer.)
func (r resolver) addresses(ask dns.Question, known Name) []dns.RR {
	var out []dns.RR
	n := len(known.Addrs)
	if n == 0 {
		return nil
	}
	first := int(r.turn.Add(1)) % n
	for i := range n {
		a := known.Addrs[(first+i)%n].Unmap()
		header := dns.RR_Header{Name: ask.Name, Class: dns.ClassINET, Ttl: known.TTL}
		switch {
		case a.Is4() && (ask.Qtype == dns.TypeA || ask.Qtype == dns.TypeANY):
			header.Rrtype = dns.TypeA
			out = append(out, &dns.A{Hdr: header, A: a.AsSlice()})
		case a.Is6() && (ask.Qtype == dns.TypeAAAA || ask.Qtype == dns.TypeANY):
			header.Rrtype = dns.TypeAAAA
			out = append(out, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
	return out
}

// reverseAddr reads 4.3.2.1.in-addr.arpa and its IPv6 sister.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	const nibbles = 32
	if !ok || len(rest) != 2*nibbles-1 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range nibbles {
		digit := strings.IndexByte("0123456789abcdef", rest[2*i])
		if digit < 0 || 2*i+1 < len(rest) && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		at := nibbles - 1 - i
		b[at/2] |= byte(digit) << (4 * (1 - at%2))
	}
	return netip.AddrFrom16(b), true
}

// fit makes a reply of a size that the asker takes.
func fit(reply, q *dns.Msg, tcp bool) {
	size := dns.MaxMsgSize
	if opt := q.IsEdns0(); opt != nil {
		if reply.IsEdns0() == nil {
			reply.SetEdns0(maxUDP, opt.Do())
		}
		if !tcp {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
		}
	} else if !tcp {
		size = dns.MinMsgSize
	}
	reply.Truncate(size)
}
