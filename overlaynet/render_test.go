package overlaynet

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"berth/testbed"
)

var update = flag.Bool("update", false, "write golden files")

// net4 is a network without IPv6.
var net4 = Network{ID: "dddddddd0004", Subnet4: prefix("10.210.3.0/24"), Gateway4: addr("10.210.3.1")}

func backend(n Network, id string, number int) Backend {
	b := Backend{TaskID: id, Addr4: nth(n.Subnet4, number)}
	if n.Subnet6.IsValid() {
		b.Addr6 = nth(n.Subnet6, number)
	}
	return b
}

// canonical are rule sets that between them use every statement.
var canonical = map[string]Rules{
	"one network": {Networks: []Network{net4}},
	"one backend": {
		Networks: []Network{net4},
		Services: []Service{{ID: "shop/web/default", NetworkID: net4.ID, VIP4: addr("10.210.3.9"), Backends: []Backend{backend(net4, "web-1", 2)}}},
	},
	"three backends and two services": {
		Networks: []Network{net4},
		Services: []Service{
			{ID: "shop/web/default", NetworkID: net4.ID, VIP4: addr("10.210.3.9"), Backends: []Backend{backend(net4, "web-2", 3), backend(net4, "web-1", 2), backend(net4, "web-3", 4)}},
			{ID: "shop/db/default", NetworkID: net4.ID, VIP4: addr("10.210.3.10"), Backends: []Backend{backend(net4, "db-1", 5), backend(net4, "db-2", 6)}},
		},
	},
	"no backend": {
		Networks: []Network{netA},
		Services: []Service{{ID: "shop/web/default", NetworkID: netA.ID, VIP4: addr("10.210.0.9"), VIP6: addr("fd00:a::9")}},
		Ports:    []PublishedPort{{ID: "shop/web/0", Port: 80, Protocol: "tcp", Target: 80}},
	},
	"held": {
		Networks: []Network{netA},
		Services: []Service{{ID: "shop/web/default", NetworkID: netA.ID, VIP4: addr("10.210.0.9"), VIP6: addr("fd00:a::9"), Hold: true}},
		Ports:    []PublishedPort{{ID: "shop/web/0", Port: 80, Protocol: "tcp", Target: 80, Hold: true}},
	},
	"weights": {
		Networks: []Network{net4},
		Services: []Service{{
			ID: "shop/web/default", NetworkID: net4.ID, VIP4: addr("10.210.3.9"),
			Backends: []Backend{{TaskID: "web-1", Addr4: addr("10.210.3.2"), Weight: 75}, {TaskID: "web-2", Addr4: addr("10.210.3.3"), Weight: 25}},
		}},
	},
	"dual stack": {
		Networks: []Network{netA},
		Services: []Service{{
			ID: "shop/web/default", NetworkID: netA.ID, VIP4: addr("10.210.0.9"), VIP6: addr("fd00:a::9"),
			Backends: []Backend{backend(netA, "web-1", 2), backend(netA, "web-2", 3)},
		}},
		Ports: []PublishedPort{{ID: "shop/web/0", Port: 80, Protocol: "tcp", Target: 8080, Backends: []Backend{backend(netA, "web-1", 2), backend(netA, "web-2", 3)}}},
	},
	"published udp and tcp": {
		Networks: []Network{net4},
		Ports: []PublishedPort{
			{ID: "dns/dns/0", Port: 53, Protocol: "udp", Target: 53, Backends: []Backend{backend(net4, "dns-1", 2)}},
			{ID: "dns/dns/1", Port: 53, Protocol: "tcp", Target: 53, Backends: []Backend{backend(net4, "dns-1", 2)}},
			{ID: "dns/dns/2", Port: 7, Protocol: "sctp", Target: 7, Backends: []Backend{backend(net4, "dns-1", 2)}},
		},
	},
	"host addresses": {
		Networks: []Network{netA},
		Ports: []PublishedPort{
			{ID: "a/db/0", HostIP: addr("127.0.0.1"), Port: 5432, Protocol: "tcp", Target: 5432, Backends: []Backend{backend(netA, "db-1", 2)}},
			{ID: "a/db/1", HostIP: addr("2001:db8::1"), Port: 5432, Protocol: "tcp", Target: 5432, Backends: []Backend{backend(netA, "db-1", 2)}},
			{ID: "a/db/2", HostIP: addr("0.0.0.0"), Port: 5433, Protocol: "tcp", Target: 5432, Backends: []Backend{backend(netA, "db-1", 2)}},
			{ID: "a/db/3", HostIP: addr("192.0.2.1"), Port: 5434, Protocol: "udp", Target: 5432},
		},
	},
	"ipv4 backends of a port of both families": {
		Networks: []Network{net4},
		Ports:    []PublishedPort{{ID: "shop/web/0", Port: 80, Protocol: "tcp", Target: 80, Backends: []Backend{backend(net4, "web-1", 2)}}},
	},
	"internal": {Networks: []Network{netI, net4}},
	"two networks": {
		Networks: []Network{netB, netA},
		Services: []Service{
			{ID: "shop/web/front", NetworkID: netA.ID, VIP4: addr("10.210.0.9"), Backends: []Backend{backend(netA, "web-1", 2)}},
			{ID: "shop/web/back", NetworkID: netB.ID, VIP4: addr("10.210.1.9"), Backends: []Backend{backend(netB, "web-1", 2)}},
		},
	},
	"hostile names": {
		Networks: []Network{net4},
		Services: []Service{{
			ID: "a b\"}; flush ruleset\n", NetworkID: net4.ID, VIP4: addr("10.210.3.9"),
			Backends: []Backend{{TaskID: "x\n\t}\n}\nflush ruleset", Addr4: addr("10.210.3.2")}},
		}},
	},
}

func TestRender_CanonicalRules_EqualGoldenAndPassNft(t *testing.T) {
	for name, r := range canonical {
		t.Run(name, func(t *testing.T) {
			if err := Check(r); err != nil {
				t.Fatal(err)
			}
			text := Render("bt", r)
			file := filepath.Join("testdata", strings.ReplaceAll(name, " ", "_")+".nft")
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(golden), text); diff != "" {
				t.Error(diff)
			}
			checkNft(t, text)
		})
	}
}

// checkNft lets nft parse the text and the kernel judge it, changing nothing.
func checkNft(t interface {
	Fatalf(string, ...any)
	Helper()
}, text string,
) {
	t.Helper()
	if !testbed.Isolated() {
		return
	}
	cmd := exec.Command("nft", "-c", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft -c: %v: %s\n%s", err, out, text)
	}
}

func TestRender_LinksWithoutForwardingBefore_AreClosed(t *testing.T) {
	text := newTable("bt", Rules{}, closed{v4: []string{"eth0", "eth1"}, v6: []string{"eth0"}}).text("bt")
	for _, want := range []string{`"eth1",`, "meta nfproto ipv4 iifname @closed4 oifname @closed4 ct state new drop", "@closed6"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	checkNft(t, text)
}

func TestRender_AnyRules_OrderDoesNotMatterAndNftAccepts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRules(t)
		if err := Check(r); err != nil {
			t.Fatalf("generated rules are not valid: %v", err)
		}
		text := Render("bt", r)
		shuffled := Rules{Networks: slices.Clone(r.Networks), Services: slices.Clone(r.Services), Ports: slices.Clone(r.Ports)}
		rand.Shuffle(len(r.Networks), func(i, j int) {
			shuffled.Networks[i], shuffled.Networks[j] = shuffled.Networks[j], shuffled.Networks[i]
		})
		rand.Shuffle(len(r.Services), func(i, j int) {
			shuffled.Services[i], shuffled.Services[j] = shuffled.Services[j], shuffled.Services[i]
		})
		rand.Shuffle(len(r.Ports), func(i, j int) { shuffled.Ports[i], shuffled.Ports[j] = shuffled.Ports[j], shuffled.Ports[i] })
		if again := Render("bt", shuffled); again != text {
			t.Fatalf("order matters:\n%s", cmp.Diff(text, again))
		}
		checkNft(t, text)
	})
}

func drawRules(t *rapid.T) Rules {
	r := Rules{Networks: []Network{netA, netB, netI, net4}[:rapid.IntRange(1, 4).Draw(t, "networks")]}
	backends := func(n Network) []Backend {
		var out []Backend
		for i := range rapid.IntRange(0, 4).Draw(t, "backends") {
			out = append(out, backend(n, string(rune('a'+i)), 2+i))
			out[i].Weight = rapid.IntRange(0, 3).Draw(t, "weight")
		}
		return out
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "services") {
		n := rapid.SampledFrom(r.Networks).Draw(t, "network")
		s := Service{ID: "s/" + string(rune('a'+i)), NetworkID: n.ID, VIP4: nth(n.Subnet4, 100+i), Backends: backends(n), Hold: rapid.Bool().Draw(t, "hold")}
		if n.Subnet6.IsValid() {
			s.VIP6 = nth(n.Subnet6, 100+i)
		}
		r.Services = append(r.Services, s)
	}
	hosts := []netip.Addr{{}, addr("0.0.0.0"), addr("127.0.0.1"), addr("::1"), addr("192.0.2.1")}
	for i := range rapid.IntRange(0, 5).Draw(t, "ports") {
		r.Ports = append(r.Ports, PublishedPort{
			ID: "p/" + string(rune('a'+i)), HostIP: rapid.SampledFrom(hosts).Draw(t, "host"), Port: uint16(8000 + i),
			Protocol: rapid.SampledFrom([]string{"tcp", "udp", "sctp"}).Draw(t, "protocol"), Target: 80,
			Backends: backends(rapid.SampledFrom(r.Networks).Draw(t, "network")), Hold: rapid.Bool().Draw(t, "hold"),
		})
	}
	return r
}

func TestCheck_Conflicts_AreErrors(t *testing.T) {
	port := PublishedPort{ID: "a", Port: 80, Protocol: "tcp", Target: 80}
	other := port
	other.ID = "b"
	service := Service{ID: "s", NetworkID: netA.ID, VIP4: addr("10.210.0.9")}
	twin := service
	twin.ID = "t"
	overlap := netB
	overlap.Subnet4, overlap.Gateway4 = netA.Subnet4, netA.Gateway4
	for name, r := range map[string]Rules{
		"same port":        {Ports: []PublishedPort{port, other}},
		"same port id":     {Ports: []PublishedPort{port, port}},
		"same VIP":         {Networks: []Network{netA}, Services: []Service{service, twin}},
		"unknown network":  {Services: []Service{service}},
		"overlap":          {Networks: []Network{netA, overlap}},
		"unknown protocol": {Ports: []PublishedPort{{ID: "a", Port: 80, Protocol: "tcp }", Target: 80}}},
		"negative weight":  {Ports: []PublishedPort{{ID: "a", Port: 80, Protocol: "tcp", Target: 80, Backends: []Backend{{Addr4: addr("10.210.0.2"), Weight: -1}}}}},
		"port 0":           {Ports: []PublishedPort{{ID: "a", Protocol: "tcp", Target: 80}}},
	} {
		if err := Check(r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	apart := other
	apart.HostIP = addr("127.0.0.1")
	if err := Check(Rules{Ports: []PublishedPort{port, apart}}); err != nil {
		t.Errorf("a port of one address beside that of all: %v", err)
	}
}

// A walk over random rules: after each step the kernel has what it would have
// if the whole table had been loaded.
func TestSync_AnyChanges_LeadToTheSameTableAsLoadingItWhole(t *testing.T) {
	m := openManager(t)
	listed := func() string {
		// Maps and sets have no order.
		var lines []string
		for line := range strings.Lines(command(t, "nft", "-nn", "list", "table", "inet", "bt")) {
			_, elements, ok := strings.Cut(line, "elements = {")
			if !ok {
				elements = line
			}
			for e := range strings.SplitSeq(strings.TrimRight(elements, " }\n"), ",") {
				lines = append(lines, strings.TrimSpace(e))
			}
		}
		slices.Sort(lines)
		return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return l == "" }), "\n")
	}
	sync := func(rt *rapid.T, r Rules) (loaded bool) {
		before := m.rules.loaded
		if err := m.Sync(t.Context(), r); err != nil {
			rt.Fatal(err)
		}
		return m.rules.loaded != before
	}
	handle := func() string {
		line, _, _ := strings.Cut(command(t, "nft", "-a", "list", "table", "inet", "bt"), "\n")
		return line
	}
	first := true
	rapid.Check(t, func(rt *rapid.T) {
		var last Rules
		for range 4 {
			last = drawRules(rt)
			if loaded := sync(rt, last); loaded != first {
				rt.Fatalf("the whole table was loaded: %v, want %v", loaded, first)
			}
			first = false
		}
		for e := range m.rules.left {
			m.rules.left[e] = time.Time{}
		}
		sync(rt, last)
		step := listed()
		for _, deed := range []string{"add rule inet bt forward accept", "delete table inet bt"} {
			before := handle()
			command(t, "nft", deed)
			select {
			case <-m.Changed():
			case <-time.After(time.Second):
				rt.Fatalf("%s: not reported", deed)
			}
			if !sync(rt, last) {
				rt.Fatalf("%s: the table was not loaded", deed)
			}
			if got := listed(); got != step {
				rt.Fatalf("%s:\n%s", deed, cmp.Diff(got, step))
			}
			if kept := handle() == before; kept == strings.HasPrefix(deed, "delete") {
				rt.Fatalf("%s: the table itself was kept: %v", deed, kept)
			}
		}
	})
}

func TestSync_BackendLeft_PacketsOnTheirWayToItFindWhatTheyNeed(t *testing.T) {
	rules := canonical["dual stack"]
	both := newTable("bt", rules, closed{})
	rules.Services, rules.Ports = nil, nil
	left, now := map[string]time.Time{}, time.Now()
	after := func(d time.Duration) string {
		none := newTable("bt", rules, closed{})
		none.linger(both, left, now.Add(d))
		return none.changes("bt", both)
	}
	const deletion = "delete element inet bt hairpin4 { 10.210.0.2 . 10.210.0.2"
	if text := after(0); strings.Contains(text, deletion) || !strings.Contains(text, "delete chain") {
		t.Errorf("at once:\n%s", text)
	}
	if text := after(lingering); !strings.Contains(text, deletion) {
		t.Errorf("later:\n%s", text)
	}
	if len(left) != 0 {
		t.Errorf("not forgotten: %v", left)
	}
}
