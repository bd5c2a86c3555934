package dataplane

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func testNetwork() *Network {
	return &Network{
		ID: "a", Gateways: []netip.Addr{addr("127.0.0.1")},
		Names: map[string]Name{
			"web":       {Addrs: []netip.Addr{addr("10.210.0.9"), addr("fd00:a::9")}, TTL: 5},
			"tasks.web": {Addrs: []netip.Addr{addr("10.210.0.2"), addr("10.210.0.3"), addr("10.210.0.4")}, TTL: 1},
			"idle":      {TTL: 1},
		},
		PTR: map[netip.Addr]string{addr("10.210.0.2"): "web-1", addr("fd00:a::2"): "web-1"},
	}
}

func query(name string, kind uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, kind) }

// records prints an answer: code, then type, TTL and data of each record.
func records(m *dns.Msg) string {
	if m == nil {
		return "forward"
	}
	out := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		fields := strings.Fields(rr.String())
		out = append(out, strings.Join([]string{fields[3], fields[1], fields[4]}, " "))
	}
	return strings.Join(out, ", ")
}

func TestAnswer_EachKindOfName_HasItsAnswer(t *testing.T) {
	reverse6, err := dns.ReverseAddr("fd00:a::2")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		kind     uint16
		internal bool
		want     string
	}{
		{"web.", dns.TypeA, false, "NOERROR, A 5 10.210.0.9"},
		{"WEB.", dns.TypeA, false, "NOERROR, A 5 10.210.0.9"},
		{"web.", dns.TypeAAAA, false, "NOERROR, AAAA 5 fd00:a::9"},
		{"web.", dns.TypeANY, false, "NOERROR, AAAA 5 fd00:a::9, A 5 10.210.0.9"},
		{"web.", dns.TypeMX, false, "NOERROR"},
		{"tasks.web.", dns.TypeAAAA, false, "NOERROR"},
		{"idle.", dns.TypeA, false, "NOERROR"},
		{"2.0.210.10.in-addr.arpa.", dns.TypePTR, false, "NOERROR, PTR 1 web-1."},
		{reverse6, dns.TypePTR, false, "NOERROR, PTR 1 web-1."},
		{"2.0.210.10.in-addr.arpa.", dns.TypeA, false, "NOERROR"},
		{"8.8.8.8.in-addr.arpa.", dns.TypePTR, false, "forward"},
		{"8.8.8.8.in-addr.arpa.", dns.TypePTR, true, "NXDOMAIN"},
		{"example.org.", dns.TypeA, false, "forward"},
		{"data.evil.example.", dns.TypeTXT, true, "NXDOMAIN"},
	} {
		n := testNetwork()
		n.Internal = c.internal
		got := records(resolver{net: n, turn: new(atomic.Uint32)}.answer(query(c.name, c.kind)))
		if got != c.want {
			t.Errorf("%s %s: %s, want %s", dns.TypeToString[c.kind], c.name, got, c.want)
		}
	}
}

func TestAnswer_SeveralAddresses_TakeTurns(t *testing.T) {
	r := resolver{net: testNetwork(), turn: new(atomic.Uint32)}
	var firsts []string
	for range 6 {
		m := r.answer(query("tasks.web.", dns.TypeA))
		if len(m.Answer) != 3 {
			t.Fatalf("%d records", len(m.Answer))
		}
		firsts = append(firsts, m.Answer[0].(*dns.A).A.String())
	}
	if slices.Contains(firsts[3:], firsts[2]) != true || firsts[0] == firsts[1] || firsts[0] != firsts[3] {
		t.Errorf("first addresses: %v", firsts)
	}
}

func TestAnswer_OddQueries_AreRefused(t *testing.T) {
	r := resolver{net: testNetwork(), turn: new(atomic.Uint32)}
	chaos := query("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	notify := query("web.", dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	two := query("web.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	for _, c := range []struct {
		q    *dns.Msg
		want string
	}{{chaos, "REFUSED"}, {notify, "NOTIMP"}, {two, "FORMERR"}} {
		if got := records(r.answer(c.q)); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestFit_LargeAnswer_IsTruncatedOverUDPOnly(t *testing.T) {
	n := testNetwork()
	many := Name{TTL: 1}
	for a := addr("10.210.0.2"); a != addr("10.210.0.202"); a = a.Next() {
		many.Addrs = append(many.Addrs, a)
	}
	n.Names["many"] = many
	q := query("many.", dns.TypeA)
	edns := query("many.", dns.TypeA)
	edns.SetEdns0(65000, false)
	for _, c := range []struct {
		q    *dns.Msg
		tcp  bool
		size int
		tc   bool
	}{{q, false, 512, true}, {edns, false, maxUDP, true}, {q, true, dns.MaxMsgSize, false}} {
		m := resolver{net: n, turn: new(atomic.Uint32)}.answer(c.q)
		fit(m, c.q, c.tcp)
		b, err := m.Pack()
		if err != nil || len(b) > c.size || m.Truncated != c.tc {
			t.Errorf("tcp=%v: %d bytes, truncated %v, %v", c.tcp, len(b), m.Truncated, err)
		}
	}
}

// FuzzAnswer feeds what a hostile task may send: nothing may panic, and every
// reply must be one to the query and fit its transport.
func FuzzAnswer(f *testing.F) {
	for _, q := range []*dns.Msg{query("web.", dns.TypeA), query("2.0.210.10.in-addr.arpa.", dns.TypePTR), query("x.", dns.TypeANY)} {
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil || q.Response {
			return
		}
		m := resolver{net: testNetwork(), turn: new(atomic.Uint32)}.answer(q)
		if m == nil {
			if len(q.Question) != 1 {
				t.Fatal("a query without one question is to be forwarded")
			}
			return
		}
		fit(m, q, false)
		out, err := m.Pack()
		if err != nil {
			return // a name that unpacks but does not pack
		}
		if len(out) > maxUDP || !m.Response || m.Id != q.Id {
			t.Fatalf("%d bytes, response %v, id %d for %d", len(out), m.Response, m.Id, q.Id)
		}
	})
}

func FuzzReverseAddr(f *testing.F) {
	f.Add("2.0.210.10.in-addr.arpa")
	f.Add(strings.Repeat("1.", 32) + "ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := reverseAddr(name)
		if !ok {
			return
		}
		back, err := dns.ReverseAddr(a.String())
		if err != nil || a.Is6() && back != name+"." {
			t.Fatalf("%q is %s, whose name is %q (%v)", name, a, back, err)
		}
	})
}

func TestAnswer_LinksAreTheClientsOwn(t *testing.T) {
	n := testNetwork()
	var some string
	for name := range n.Names {
		some = name
	}
	linked := resolver{net: n, client: Client{Links: map[string]string{"other": some}}, turn: new(atomic.Uint32)}
	if m := linked.answer(query("Other.", dns.TypeA)); m == nil || len(m.Answer) == 0 && m.Rcode != dns.RcodeSuccess {
		t.Errorf("a link is not known: %v", m)
	}
	plain := resolver{net: n, turn: new(atomic.Uint32)}
	if m := plain.answer(query("other.", dns.TypeA)); m != nil {
		t.Errorf("a link is known to others: %v", m)
	}
	gone := resolver{net: n, client: Client{Links: map[string]string{"other": "nobody"}}, turn: new(atomic.Uint32)}
	if m := gone.answer(query("other.", dns.TypeA)); m != nil {
		t.Errorf("a link to nobody is answered: %v", m)
	}
}
