package overlaynet

import (
	"strings"
	"testing"
)

func TestSync_VIP_AnswersFromSameNetworkAndSelf(t *testing.T) {
	m := openManager(t)
	for _, n := range []Network{netA} {
		if err := m.Ensure(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	ns1, err := m.Attach(t.Context(), "task1", []Endpoint{endpoint(netA, 2)})
	if err != nil {
		t.Fatal(err)
	}
	ns2, err := m.Attach(t.Context(), "task2", []Endpoint{endpoint(netA, 3)})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ns1, "one", 80)
	r := Rules{Networks: []Network{netA}, Services: []Service{{
		ID: "s/web/a", NetworkID: netA.ID, VIP4: addr("10.210.0.100"), VIP6: addr("fd00:a::100"),
		Backends: []Backend{{TaskID: "task1", Addr4: addr("10.210.0.2"), Addr6: addr("fd00:a::2")}},
	}}}
	if err := m.Sync(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, network, to, want string }{
		{ns2, "tcp", "10.210.0.2:80", "one 10.210.0.3"},
		{ns2, "tcp", "10.210.0.100:80", "one 10.210.0.3"},
		{ns1, "tcp", "10.210.0.100:80", "one 10.210.0.1"},
		{ns2, "tcp", "[fd00:a::2]:80", "one fd00:a::3"},
		{ns2, "tcp", "[fd00:a::100]:80", "one fd00:a::3"},
		{ns1, "tcp", "[fd00:a::100]:80", "one fd00:a::1"},
		{ns2, "udp", "10.210.0.100:80", "one 10.210.0.3"},
		{"", "tcp", "10.210.0.100:80", "one 10.210.0.1"},
	} {
		got, err := ask(t, c.from, c.network, c.to)
		if !strings.HasPrefix(got, c.want) || err != nil {
			t.Errorf("%s %s from %q: %q, %v; want %q", c.network, c.to, c.from, got, err, c.want)
		}
	}
}
