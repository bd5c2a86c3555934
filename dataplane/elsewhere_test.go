package dataplane

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// TestAnswer_ClientOnSeveralNetworks_KnowsTheNamesOfAll: glibc asks the second
// server only if the first one is silent, not if it knows no such name.
func TestAnswer_ClientOnSeveralNetworks_KnowsTheNamesOfAll(t *testing.T) {
	both, inner, alone := addr("10.210.0.2"), addr("10.220.0.2"), addr("10.210.0.3")
	front, back, deep := testNetwork(), testNetwork(), testNetwork()
	back.ID, back.Internal = "b", true
	back.Names = map[string]Name{"db": {Addrs: []netip.Addr{addr("10.220.0.9")}, TTL: 5}}
	deep.ID, deep.Internal, deep.Names = "c", true, nil
	front.Elsewhere = map[netip.Addr][]string{both: {"b", "gone"}}
	back.Elsewhere = map[netip.Addr][]string{both: {"a"}, inner: {"c"}}
	s := &server{}
	st := newState(Snapshot{Networks: []Network{*front, *back, *deep}}, 53)
	for _, c := range []struct {
		asked  string
		client netip.Addr
		name   string
		want   string
	}{
		{"a", both, "db.", "NOERROR, A 5 10.220.0.9"},
		{"b", both, "db.", "NOERROR, A 5 10.220.0.9"},
		{"b", both, "web.", "NOERROR, A 5 10.210.0.9"},
		{"a", alone, "db.", "forward"},
		{"a", both, "example.test.", "forward"},
		{"b", both, "example.test.", "forward"},   // it may leave through the other network
		{"b", inner, "example.test.", "NXDOMAIN"}, // both are internal
		{"b", inner, "db.", "NOERROR, A 5 10.220.0.9"},
		{"b", alone, "web.", "NXDOMAIN"},
	} {
		got := records(s.answer(st, st.byID[c.asked], c.client, query(c.name, dns.TypeA)))
		if got != c.want {
			t.Errorf("%s asks network %s for %s: %s, want %s", c.client, c.asked, c.name, got, c.want)
		}
	}
}
