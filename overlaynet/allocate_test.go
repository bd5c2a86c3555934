package overlaynet

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"berth/testbed"
)

func TestAllocate_Defaults_AreFirstFreeAndStayApart(t *testing.T) {
	var used []Network
	for range 300 { // more than one pool
		n, err := allocate(Request{ID: "x" + string(rune(len(used))), IPv6: true}, used, nil, defaultPools())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range used {
			if u.Subnet4.Overlaps(n.Subnet4) || u.Subnet6.Overlaps(n.Subnet6) {
				t.Fatalf("%s %s overlaps network %s", n.Subnet4, n.Subnet6, u.ID)
			}
		}
		used = append(used, n)
	}
	if got := used[0]; got.Subnet4 != prefix("10.210.0.0/24") || got.Gateway4 != addr("10.210.0.1") || got.Gateway6 != got.Subnet6.Addr().Next() {
		t.Errorf("first network: %+v", got)
	}
	if got := used[256].Subnet4; got != prefix("10.211.0.0/24") {
		t.Errorf("first of the second pool: %s", got)
	}
	if !ulaPrefix.Contains(used[0].Subnet6.Addr()) || used[0].Subnet6.Bits() != 64 {
		t.Errorf("IPv6 subnet %s is no /64 ULA", used[0].Subnet6)
	}
}

func TestAllocate_HostRoutes_AreAvoided(t *testing.T) {
	host := []taken{{prefix("10.210.0.0/15"), "the host's route on tun0"}}
	n, err := allocate(Request{ID: "a"}, nil, host, defaultPools())
	if err != nil || n.Subnet4 != prefix("10.212.0.0/24") {
		t.Errorf("got %s, %v", n.Subnet4, err)
	}
	_, err = allocate(Request{ID: "a", Subnets: []netip.Prefix{prefix("10.211.5.0/24")}}, nil, host, defaultPools())
	if !errors.Is(err, ErrOverlap) || !strings.Contains(err.Error(), "tun0") {
		t.Errorf("a wanted subnet inside a route: %v", err)
	}
}

func TestAllocate_KernelRoute_IsSeen(t *testing.T) {
	m := openManager(t)
	machine(t, m, "vpn", []netip.Prefix{prefix("10.210.0.7/20")}, nil)
	n, err := m.Allocate(Request{ID: "aaaaaaaa0001"}, nil)
	if err != nil || n.Subnet4 != prefix("10.210.16.0/24") {
		t.Errorf("got %s, %v", n.Subnet4, err)
	}
	// A network's own bridge is no obstacle: the allocation is repeated after
	// a crash.
	if err := m.Ensure(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	again, err := m.Allocate(Request{ID: n.ID, Subnets: []netip.Prefix{n.Subnet4}}, nil)
	if err != nil || again != n {
		t.Errorf("again: %+v, %v", again, err)
	}
}

func TestAllocate_FullPools_SayHowManyNetworksExist(t *testing.T) {
	pools := []netip.Prefix{prefix("10.9.0.0/23")}
	used := []Network{{ID: "a", Subnet4: prefix("10.9.0.0/24")}, {ID: "b", Subnet4: prefix("10.9.1.0/24")}}
	_, err := allocate(Request{ID: "c"}, used, nil, pools)
	if !errors.Is(err, ErrPoolExhausted) || !strings.Contains(err.Error(), "2 networks exist") || !strings.Contains(err.Error(), "10.9.0.0/23") {
		t.Errorf("got %v", err)
	}
	if n, err := allocate(Request{ID: "c"}, used[:1], nil, pools); err != nil || n.Subnet4 != prefix("10.9.1.0/24") {
		t.Errorf("after a network is removed: %s, %v", n.Subnet4, err)
	}
}

func TestAllocate_Gateways_AreChecked(t *testing.T) {
	want := Request{ID: "a", Subnets: []netip.Prefix{prefix("10.9.0.0/24")}, Gateways: []netip.Addr{addr("10.9.0.254")}}
	n, err := allocate(want, nil, nil, nil)
	if err != nil || n.Gateway4 != addr("10.9.0.254") {
		t.Errorf("got %s, %v", n.Gateway4, err)
	}
	for _, bad := range []string{"10.9.0.255", "10.9.0.0", "10.8.0.1", "fd00::1"} {
		want.Gateways = []netip.Addr{addr(bad)}
		if _, err := allocate(want, nil, nil, nil); err == nil {
			t.Errorf("gateway %s: no error", bad)
		}
	}
}

func TestNextAddr_AnyRange_GivesEachAddressOnceThenSaysFull(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := Network{ID: "a", Subnet4: prefix("10.9.0.0/26"), Gateway4: addr("10.9.0.1")}
		bits := rapid.IntRange(26, 32).Draw(t, "bits")
		within := netip.PrefixFrom(nth(n.Subnet4, rapid.IntRange(0, 63).Draw(t, "start")), bits).Masked()
		given := map[netip.Addr]bool{}
		var last netip.Addr
		for {
			a, err := NextAddr(n, within, last, func(a netip.Addr) bool { return given[a] })
			if errors.Is(err, ErrPoolExhausted) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if given[a] || !within.Contains(a) || a == n.Gateway4 || a == addr("10.9.0.0") || a == addr("10.9.0.63") {
				t.Fatalf("%s given from %s", a, within)
			}
			given[a], last = true, a
		}
		free := 0
		for i := range 64 {
			a := nth(n.Subnet4, i)
			if within.Contains(a) && i != 0 && i != 1 && i != 63 {
				free++
			}
		}
		if len(given) != free {
			t.Fatalf("%d of %d addresses of %s given", len(given), free, within)
		}
	})
}

func TestNextAddr_FreedAddress_ComesRoundLast(t *testing.T) {
	none := func(netip.Addr) bool { return false }
	a, err := NextAddr(net4, netip.Prefix{}, addr("10.210.3.7"), none)
	if err != nil || a != addr("10.210.3.8") {
		t.Errorf("after .7: %s, %v", a, err)
	}
	a, err = NextAddr(net4, netip.Prefix{}, addr("10.210.3.254"), none)
	if err != nil || a != addr("10.210.3.2") {
		t.Errorf("after the last: %s, %v", a, err)
	}
	if _, err := NextAddr(net4, prefix("10.0.0.0/8"), netip.Addr{}, none); err == nil {
		t.Error("a range outside the subnet: no error")
	}
	a, err = NextAddr(netA, netA.Subnet6, netip.Addr{}, none)
	if err != nil || a != addr("fd00:a::2") {
		t.Errorf("IPv6: %s, %v", a, err)
	}
}

func TestOpen_BadPrefix_IsAnError(t *testing.T) {
	testbed.NeedKernel(t)
	for _, p := range []string{"toolong", "1a", "a-", "A"} {
		if m, err := Open(Config{Run: t.TempDir(), Prefix: p}); err == nil {
			m.Close()
			t.Errorf("prefix %q: no error", p)
		}
	}
}
