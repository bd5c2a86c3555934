package overlaynet

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// inside runs a command in a task's namespace.
func inside(t *testing.T, path string, args ...string) string {
	t.Helper()
	var out []byte
	err := in(t, path, func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

func TestAttach_NoEndpoints_HasLoopbackOnly(t *testing.T) {
	m := openManager(t)
	path, err := m.Attach(t.Context(), "alone", nil)
	if err != nil {
		t.Fatal(err)
	}
	if links := inside(t, path, "ip", "-br", "link"); strings.Count(links, "\n") != 1 || !strings.Contains(links, "UP") {
		t.Errorf("links:\n%s", links)
	}
}

func TestAttach_IPv4Network_HasNoIPv6Anywhere(t *testing.T) {
	m := openManager(t)
	if err := m.Ensure(t.Context(), net4); err != nil {
		t.Fatal(err)
	}
	path, err := m.Attach(t.Context(), "task", []Endpoint{endpoint(net4, 2)})
	if err != nil {
		t.Fatal(err)
	}
	for where, out := range map[string]string{
		"task":   inside(t, path, "ip", "-6", "addr", "show", "dev", "eth0"),
		"bridge": command(t, "ip", "-6", "addr", "show", "dev", m.Bridge(net4.ID)),
	} {
		if out != "" {
			t.Errorf("%s has IPv6:\n%s", where, out)
		}
	}
	want := "default via 10.210.3.1 dev eth0 src 10.210.3.2 onlink \n10.210.3.1 dev eth0 scope link src 10.210.3.2 \n"
	if got := inside(t, path, "ip", "route"); got != want {
		t.Errorf("routes:\n%swant:\n%s", got, want)
	}
}

func TestAttach_Twice_ChangesNothingAndRepairs(t *testing.T) {
	m := openManager(t)
	if err := m.Ensure(t.Context(), netA); err != nil {
		t.Fatal(err)
	}
	eps := []Endpoint{endpoint(netA, 2)}
	path, err := m.Attach(t.Context(), "task", eps)
	if err != nil {
		t.Fatal(err)
	}
	state := func() string {
		return command(t, "ip", "link", "show", "type", "veth") + inside(t, path, "ip", "addr") + inside(t, path, "ip", "route")
	}
	before := state()
	if again, err := m.Attach(t.Context(), "task", eps); err != nil || again != path {
		t.Fatalf("again: %q, %v", again, err)
	}
	if after := state(); after != before {
		t.Errorf("changed:\n%s\n%s", before, after)
	}
	command(t, "ip", "link", "del", vethName(m.prefix, "task", 0))
	if _, err := m.Attach(t.Context(), "task", eps); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, path, "tcp", "10.210.0.1:9"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the gateway after the repair: %v", err)
	}
}

func TestAttach_TwoNetworks_AnswersGoBackTheSameWay(t *testing.T) {
	m := openManager(t)
	for _, n := range []Network{netA, netB} {
		if err := m.Ensure(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	second := endpoint(netB, 5)
	second.Ifname, second.DefaultRoute, second.MAC = "back0", false, "02:00:00:00:00:05"
	path, err := m.Attach(t.Context(), "two", []Endpoint{endpoint(netA, 5), second})
	if err != nil {
		t.Fatal(err)
	}
	if out := inside(t, path, "ip", "link", "show", "back0"); !strings.Contains(out, second.MAC) {
		t.Errorf("MAC:\n%s", out)
	}
	lan := machine(t, m, "lan", both(hostLAN4, hostLAN6), both(lan4, lan6))
	peer, err := m.Attach(t.Context(), "peer", []Endpoint{endpoint(netB, 6)})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, path, "two", 80)
	err = m.Sync(t.Context(), Rules{
		Networks: []Network{netA, netB},
		Ports:    []PublishedPort{{ID: "p", Port: 8080, Protocol: "tcp", Target: 80, Backends: []Backend{{TaskID: "two", Addr4: second.Addr4, Addr6: second.Addr6}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []cell{
		{peer, "tcp", "10.210.1.5:80", "two 10.210.1.6"},
		{peer, "tcp", "[fd00:b::5]:80", "two fd00:b::6"},
		{lan, "tcp", hostLAN4 + ":8080", "two " + lan4},
		{lan, "tcp", "[" + hostLAN6 + "]:8080", "two " + lan6},
	} {
		if got, err := ask(t, c.from, c.network, c.to); got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.to, got, err, c.want)
		}
	}
}

func TestAttach_NewNetwork_FirstIPv6ConnectionWorks(t *testing.T) {
	m := openManager(t)
	for range 5 {
		if err := m.Ensure(t.Context(), netA); err != nil {
			t.Fatal(err)
		}
		path, err := m.Attach(t.Context(), "six", []Endpoint{endpoint(netA, 2)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ask(t, path, "tcp", "[fd00:a::1]:9"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("first connection: %v", err)
		}
		if err := m.Detach(t.Context(), "six"); err != nil {
			t.Fatal(err)
		}
		if err := m.Remove(t.Context(), netA); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAttach_Failure_LeavesNothing(t *testing.T) {
	m := openManager(t)
	if err := m.Ensure(t.Context(), net4); err != nil {
		t.Fatal(err)
	}
	before := kernelState(t)
	bad := endpoint(net4, 2)
	bad.Ifname = "lo" // exists in every namespace
	if _, err := m.Attach(t.Context(), "bad", []Endpoint{endpoint(net4, 3), bad}); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(m.netnsPath("bad")); !os.IsNotExist(err) {
		t.Errorf("the namespace is left: %v", err)
	}
	if after := kernelState(t); after != before {
		t.Errorf("left over:\n%s\n%s", before, after)
	}
	for _, id := range []string{"", "..", "a/b"} {
		if _, err := m.Attach(t.Context(), id, nil); err == nil {
			t.Errorf("task id %q: no error", id)
		}
	}
	if err := m.Detach(t.Context(), "never"); err != nil {
		t.Errorf("detach what never was: %v", err)
	}
}

func TestSweep_KeepsWhatIsClaimed(t *testing.T) {
	m := openManager(t)
	for _, n := range []Network{netA, netB} {
		if err := m.Ensure(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	for id, ep := range map[string]Endpoint{"keep": endpoint(netA, 2), "stray1": endpoint(netA, 3), "stray2": endpoint(netB, 2)} {
		if _, err := m.Attach(t.Context(), id, []Endpoint{ep}); err != nil {
			t.Fatal(err)
		}
	}
	// A creation that was cut short leaves a file without a namespace.
	if err := os.WriteFile(m.netnsPath("halfway"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := m.Sweep(t.Context(), map[string]bool{netA.ID: true}, map[string]bool{"keep": true}); err != nil {
		t.Fatal(err)
	}
	links := command(t, "ip", "-br", "link")
	if strings.Count(links, "\n") != 3 || !strings.Contains(links, m.Bridge(netA.ID)) || !strings.Contains(links, vethName(m.prefix, "keep", 0)) {
		t.Errorf("links:\n%s", links)
	}
	entries, err := os.ReadDir(m.netnsDir())
	if err != nil || len(entries) != 1 || entries[0].Name() != "keep" {
		t.Errorf("namespaces: %v, %v", entries, err)
	}
}
