package overlaynet

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
)

// bed is a host with three networks, a machine on its LAN that knows a route
// to every task, and a service with a published port on each network.
type bed struct {
	m     *Manager
	paths map[string]string // namespaces by the names in cells
	rules Rules
}

const (
	hostLAN4, lan4 = "192.0.2.1", "192.0.2.2"
	hostLAN6, lan6 = "2001:db8::1", "2001:db8::2"
)

func newBed(t testing.TB) *bed {
	m := openManager(t)
	b := &bed{m: m, paths: map[string]string{"host": ""}}
	b.paths["lan"] = machine(t, m, "lan", both(hostLAN4, hostLAN6), both(lan4, lan6))
	for _, n := range []Network{netA, netB, netI} {
		if err := m.Ensure(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	for name, ep := range map[string]Endpoint{
		"self":     endpoint(netA, 2),
		"same":     endpoint(netA, 3),
		"other":    endpoint(netB, 2),
		"internal": endpoint(netI, 2),
	} {
		path, err := m.Attach(t.Context(), name, []Endpoint{ep})
		if err != nil {
			t.Fatal(err)
		}
		b.paths[name] = path
	}
	web := []Backend{{TaskID: "self", Addr4: addr("10.210.0.2"), Addr6: addr("fd00:a::2")}}
	inner := []Backend{{TaskID: "internal", Addr4: addr("10.210.2.2"), Addr6: addr("fd00:c::2")}}
	b.rules = Rules{
		Networks: []Network{netA, netB, netI},
		Services: []Service{
			{ID: "shop/web/a", NetworkID: netA.ID, VIP4: addr("10.210.0.100"), VIP6: addr("fd00:a::64"), Backends: web},
			{ID: "shop/none/a", NetworkID: netA.ID, VIP4: addr("10.210.0.101"), VIP6: addr("fd00:a::65")},
			{ID: "shop/inner/i", NetworkID: netI.ID, VIP4: addr("10.210.2.100"), VIP6: addr("fd00:c::64"), Backends: inner},
		},
		Ports: []PublishedPort{
			{ID: "shop/web/tcp", Port: 8080, Protocol: "tcp", Target: 80, Backends: web},
			{ID: "shop/web/udp", Port: 8080, Protocol: "udp", Target: 80, Backends: web},
			{ID: "shop/web/lo", HostIP: addr("127.0.0.1"), Port: 8081, Protocol: "tcp", Target: 80, Backends: web},
			{ID: "shop/inner/tcp", Port: 8082, Protocol: "tcp", Target: 80, Backends: inner},
			{ID: "shop/none/tcp", Port: 8083, Protocol: "tcp", Target: 80},
			{ID: "shop/web/53", Port: 53, Protocol: "udp", Target: 80, Backends: web},
			{ID: "shop/web/lan", HostIP: addr(hostLAN4), Port: 8084, Protocol: "tcp", Target: 80, Backends: web},
		},
	}
	for name, path := range b.paths {
		port := 80
		if name == "host" || name == "lan" {
			port = 7000
		}
		serve(t, path, name, port)
	}
	for _, subnet := range []string{"10.210.0.0/16 via " + hostLAN4, "fd00::/16 via " + hostLAN6} {
		b.command(t, "lan", append([]string{"ip", "route", "add"}, strings.Fields(subnet)...)...)
	}
	b.sync(t)
	// Flows of the test before, to the same addresses.
	if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bed) sync(t testing.TB) {
	t.Helper()
	if err := b.m.Sync(t.Context(), b.rules); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) command(t testing.TB, where string, args ...string) {
	t.Helper()
	err := in(t, b.paths[where], func() error {
		// The child is started by this thread and is born in its namespace.
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// cell is one question of the matrix. want is the name that answers and, if
// the test cares, the address it sees; "" means that nobody answers.
type cell struct {
	from, network, to, want string
}

// matrix is the model of who reaches what.
func matrix() []cell {
	var cells []cell
	add := func(want, network, to string, from ...string) {
		for _, f := range from {
			w := want
			if f == "lan" && want != "" && !strings.Contains(want, " ") {
				w = want + " " + map[bool]string{true: lan6, false: lan4}[strings.HasPrefix(to, "[")]
			}
			cells = append(cells, cell{f, network, to, w})
		}
	}
	for _, f := range []struct{ host, web, vip, none, other, gateway, inner, innerVIP, lan string }{
		{hostLAN4, "10.210.0.2", "10.210.0.100", "10.210.0.101", "10.210.1.2", "10.210.0.1", "10.210.2.2", "10.210.2.100", lan4},
		{
			"[" + hostLAN6 + "]", "[fd00:a::2]", "[fd00:a::64]", "[fd00:a::65]", "[fd00:b::2]", "[fd00:a::1]",
			"[fd00:c::2]", "[fd00:c::64]", "[" + lan6 + "]",
		},
	} {
		for _, network := range []string{"tcp", "udp"} {
			// Published: everybody but those who may not leave their network.
			add("self", network, f.host+":8080", "host", "lan", "same", "other", "self")
			add("", network, f.host+":8080", "internal")
			add("self", network, f.gateway+":8080", "same", "other")
			// Not published: the host and the same network.
			add("self", network, f.web+":80", "host", "same", "self")
			add("", network, f.web+":80", "lan", "other", "internal")
			add("self", network, f.vip+":80", "host", "same", "self")
			add("", network, f.vip+":80", "lan", "other", "internal")
			// The host's own services.
			add("host", network, f.host+":7000", "host", "lan")
			add("", network, f.host+":7000", "same", "other", "internal", "self")
			add("", network, f.gateway+":7000", "same", "other", "internal")
			// The world.
			add("lan", network, f.lan+":7000", "host")
			add("lan "+strings.Trim(f.host, "[]"), network, f.lan+":7000", "same", "other")
			add("", network, f.lan+":7000", "internal")
			add("", network, f.none+":80", "host", "same")
		}
		add("other", "tcp", f.other+":80", "host", "other")
		add("", "tcp", f.other+":80", "same", "internal", "lan")
		add("internal", "tcp", f.inner+":80", "host", "internal")
		add("", "tcp", f.inner+":80", "same", "other", "lan")
		add("internal", "tcp", f.innerVIP+":80", "internal")
		add("internal", "tcp", f.host+":8082", "host", "lan", "same")
		add("", "tcp", f.host+":8081", "lan", "same", "host")
		add("", "tcp", f.host+":8083", "host", "lan", "same")
		// Port 53 is published, but names are still asked at the gateway,
		// where nobody serves in this test.
		add("self", "udp", f.host+":53", "lan", "host")
		add("", "udp", f.gateway+":53", "same")
	}
	add("self", "tcp", "127.0.0.1:8080", "host")
	add("self", "udp", "127.0.0.1:8080", "host")
	add("self", "tcp", "127.0.0.1:8081", "host")
	add("", "tcp", "[::1]:8080", "host") // the dataplane's
	add("self", "tcp", hostLAN4+":8084", "host", "lan", "same")
	add("", "tcp", "127.0.0.1:8084", "host")
	add("", "tcp", "10.210.0.1:8084", "same")
	return cells
}

func TestSync_Matrix_EqualsModel(t *testing.T) {
	for _, bridgeNF := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+bridgeNF, func(t *testing.T) {
			b := newBed(t)
			setBridgeNF(t, bridgeNF)
			cells := matrix()
			var all errgroup.Group
			all.SetLimit(16) // most of the time is spent waiting for no answer
			for _, c := range cells {
				all.Go(func() error {
					got, err := ask(t, b.paths[c.from], c.network, c.to)
					if name, _, _ := strings.Cut(got, " "); got != c.want && name != c.want {
						t.Errorf("%s %s from %s: answered by %q, want %q (%v)", c.network, c.to, c.from, got, c.want, err)
					}
					return nil
				})
			}
			all.Wait()
			t.Logf("%d cells", len(cells))
		})
	}
}

func setBridgeNF(t *testing.T, value string) {
	t.Helper()
	for _, name := range []string{"iptables", "ip6tables"} {
		file := "bridge/bridge-nf-call-" + name
		before := readSysctl(file)
		if before == "" {
			if value == "1" {
				t.Skip("SKIPPED: this kernel has no bridge-nf-call sysctls")
			}
			continue
		}
		if err := setSysctls([]sysctl{{path: file, value: value}}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := setSysctls([]sysctl{{path: file, value: before}}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSync_FlushedRuleset_GuardKeepsTasksClosed_ThenSyncRepairs(t *testing.T) {
	b := newBed(t)
	closed := []cell{
		{"lan", "tcp", "10.210.0.2:80", ""},
		{"other", "tcp", "10.210.0.2:80", ""},
		{"internal", "tcp", "10.210.0.2:80", ""},
		{"lan", "tcp", "[fd00:a::2]:80", ""},
		{"other", "tcp", "[fd00:a::2]:80", ""},
		{"lan", "tcp", hostLAN4 + ":8080", ""},
		{"same", "tcp", "10.210.0.2:80", "self"},
		{"host", "tcp", "10.210.0.2:80", "self"},
	}
	command(t, "nft", "flush", "ruleset")
	for _, c := range closed {
		got, err := ask(t, b.paths[c.from], c.network, c.to)
		if name, _, _ := strings.Cut(got, " "); name != c.want {
			t.Errorf("after the flush, %s from %s: %q, want %q (%v)", c.to, c.from, got, c.want, err)
		}
	}
	select {
	case <-b.m.Changed():
	case <-t.Context().Done():
	}
	b.sync(t) // the same rules as before: the flush alone must make it apply
	got, err := ask(t, b.paths["lan"], "tcp", hostLAN4+":8080")
	if got != "self "+lan4 {
		t.Errorf("published port after the repair: %q, %v", got, err)
	}
}
