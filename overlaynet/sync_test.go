package overlaynet

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestSync_BackendLeaves_TCPConnectionGoesOn(t *testing.T) {
	b := newBed(t)
	var c net.Conn
	err := in(t, b.paths["lan"], func() (err error) {
		c, err = net.DialTimeout("tcp", hostLAN4+":8080", askTimeout)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 64)
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
	flows := func() int {
		counts, err := b.m.Flows(t.Context(), []netip.Addr{addr("10.210.0.2")})
		if err != nil {
			t.Fatal(err)
		}
		return counts[addr("10.210.0.2")].Count
	}
	if n := flows(); n != 1 {
		t.Errorf("%d flows, want 1", n)
	}
	for i := range b.rules.Ports {
		b.rules.Ports[i].Backends = nil
	}
	b.rules.Services = nil
	b.sync(t)
	if _, err := c.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "still here" {
		t.Errorf("after the backend left: %q, %v", buf[:n], err)
	}
	start := time.Now()
	if got, err := ask(t, b.paths["lan"], "tcp", hostLAN4+":8080"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a new connection: %q, %v", got, err)
	}
	if took := time.Since(start); took > askTimeout/2 {
		t.Errorf("refused after %s", took)
	}
	c.Close()
	eventually(t, "no flows after the close", func() error {
		if n := flows(); n != 0 {
			return fmt.Errorf("%d flows", n)
		}
		return nil
	})
}

func TestFlows_SilentConnection_TellsSinceWhen(t *testing.T) {
	b := newBed(t)
	backend := addr("10.210.0.2")
	dial := func() net.Conn {
		var c net.Conn
		err := in(t, b.paths["lan"], func() (err error) {
			c, err = net.DialTimeout("tcp", hostLAN4+":8080", askTimeout)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	expect := func(what string, count int, least, most time.Duration) {
		t.Helper()
		eventually(t, what, func() error {
			got, err := b.m.Flows(t.Context(), []netip.Addr{backend})
			if f := got[backend]; err != nil || f.Count != count || f.Idle < least || f.Idle > most {
				return fmt.Errorf("%+v, %w", f, err)
			}
			return nil
		})
	}
	limits, err := readIdleLimits()
	if err != nil {
		t.Fatal(err)
	}
	// age makes all connections look as if their last packet was that long ago.
	age := func(d time.Duration) {
		t.Helper()
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range flows {
			f.TimeOut = limits.established - uint32(d/time.Second)
			if f.Reverse.SrcIP.String() != backend.String() {
				continue
			}
			if err := netlink.ConntrackUpdate(netlink.ConntrackTable, netlink.FAMILY_V4, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := dial()
	expect("a new connection", 1, 0, time.Second)
	age(time.Minute)
	expect("a silent connection", 1, 59*time.Second, 65*time.Second)
	dial()
	expect("a silent and a new one", 2, 0, time.Second)
	age(time.Minute)
	if _, err := first.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	expect("one of two speaks", 2, 0, time.Second)
	for i, list := range [][]netip.Addr{{backend}, nths(netA.Subnet4, mostPicked+1)} {
		got, err := b.m.Flows(t.Context(), list) // picked, and of all
		if err != nil || got[backend].Count != 2 || len(got) != len(list) {
			t.Errorf("%d: %v, %v", i, got, err)
		}
	}
	picks, err := b.m.flows(netlink.FAMILY_V4, answeredBy(backend))
	if err != nil || len(picks) != 2 {
		t.Errorf("the kernel picks %v, %v", picks, err)
	}
	if picks, err = b.m.flows(netlink.FAMILY_V4, overUDP()); err != nil || len(picks) != 0 {
		t.Errorf("the kernel picks %v, %v", picks, err)
	}
	age(time.Duration(limits.established-limits.waiting+10) * time.Second)
	expect("data that waits for an acknowledgement", 2, 0, 0)
}

func nths(p netip.Prefix, count int) (out []netip.Addr) {
	for i := range count {
		out = append(out, nth(p, 2+i))
	}
	return out
}

func TestSync_UDPBackendLeaves_SameClientPortReachesTheNext(t *testing.T) {
	b := newBed(t)
	serve(t, b.paths["same"], "same", 81) // the other backend, on its own port
	second := []Backend{{TaskID: "same", Addr4: addr("10.210.0.3"), Addr6: addr("fd00:a::3")}}
	var c net.Conn
	err := in(t, b.paths["lan"], func() (err error) {
		c, err = net.Dial("udp", hostLAN4+":8080")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange := func() string {
		c.SetDeadline(time.Now().Add(askTimeout))
		if _, err := c.Write([]byte("?")); err != nil {
			return err.Error()
		}
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		if err != nil {
			return err.Error()
		}
		name, _, _ := strings.Cut(string(buf[:n]), " ")
		return name
	}
	if got := exchange(); got != "self" {
		t.Fatalf("first: %q", got)
	}
	for i, p := range b.rules.Ports {
		if p.Protocol == "udp" {
			b.rules.Ports[i].Backends, b.rules.Ports[i].Target = second, 81
		}
	}
	b.sync(t)
	if got := exchange(); got != "same" {
		t.Errorf("after the change: %q", got)
	}
}

// A client asks, its backend leaves the rules while it thinks, and the answer
// still arrives.
func TestSync_UDPBackendLeaves_AnAnswerUnderWayArrives(t *testing.T) {
	b := newBed(t)
	asked, leave := make(chan net.Addr, 1), make(chan struct{})
	var server net.PacketConn
	err := in(t, b.paths["self"], func() (err error) {
		server, err = net.ListenPacket("udp4", ":82")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 64)
		_, client, err := server.ReadFrom(buf)
		if err != nil {
			return
		}
		asked <- client
		<-leave
		<-time.After(20 * time.Millisecond) // Sync has begun, most often
		server.WriteTo([]byte("late"), client)
	}()
	port := PublishedPort{
		ID: "slow", Port: 8082, Protocol: "udp", Target: 82,
		Backends: []Backend{{TaskID: "self", Addr4: addr("10.210.0.2")}},
	}
	b.rules.Ports = append(b.rules.Ports, port)
	b.sync(t)
	var c net.Conn
	err = in(t, b.paths["lan"], func() (err error) {
		c, err = net.Dial("udp", hostLAN4+":8082")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	<-asked
	b.rules.Ports[len(b.rules.Ports)-1].Backends = []Backend{{TaskID: "same", Addr4: addr("10.210.0.3")}}
	close(leave)
	b.sync(t)
	buf := make([]byte, 64)
	c.SetDeadline(time.Now().Add(askTimeout))
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "late" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func TestSync_UDPClientBeforeTheService_IsNotStuck(t *testing.T) {
	b := newBed(t)
	wanted := b.rules
	b.rules.Ports = nil
	b.sync(t)
	var c net.Conn
	err := in(t, b.paths["lan"], func() (err error) {
		c, err = net.Dial("udp", hostLAN4+":8080")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("too early")) // leaves an entry to the host itself
	b.rules = wanted
	b.sync(t)
	eventually(t, "an answer", func() error {
		c.SetDeadline(time.Now().Add(askTimeout))
		c.Write([]byte("?"))
		_, err := c.Read(make([]byte, 64))
		return err
	})
}

func TestSync_ManyCallers_LastWantedStateIsInForce(t *testing.T) {
	m := openManager(t)
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			r := Rules{Networks: []Network{net4}, Ports: []PublishedPort{{ID: "p", Port: uint16(1000 + i), Protocol: "tcp", Target: 80}}}
			if err := m.Sync(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	m.rules.mu.Lock()
	last, applied := m.rules.wanted, m.rules.applied
	m.rules.mu.Unlock()
	if last.table.changes("bt", applied.table) != "" {
		t.Error("what is in force is not what was wanted last")
	}
	out := command(t, "nft", "-n", "list", "set", "inet", "bt", "noports4")
	_, element, _ := strings.Cut(out, "6 . ")
	if port, _, _ := strings.Cut(element, " "); port == "" || !strings.Contains(last.table.text("bt"), "tcp . "+port+",") {
		t.Errorf("the kernel has another port than was wanted last:\n%s", out)
	}
}

func TestSync_NftFails_OldRulesStayAndNextSyncTriesAgain(t *testing.T) {
	m := openManager(t)
	old := Rules{Networks: []Network{net4}}
	if err := m.Sync(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/nowhere")
	next := Rules{Networks: []Network{net4, netA}}
	if err := m.Sync(t.Context(), next); err == nil {
		t.Fatal("no error without nft")
	}
	t.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	if out := command(t, "nft", "list", "chain", "inet", "bt", "same"); !strings.Contains(out, m.Bridge(net4.ID)) {
		t.Errorf("old rules are gone:\n%s", out)
	}
	if err := m.Sync(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if out := command(t, "nft", "list", "chain", "inet", "bt", "same"); !strings.Contains(out, m.Bridge(netA.ID)) {
		t.Errorf("new rules are not there:\n%s", out)
	}
}

// changes makes sure that each deed of somebody else is reported, and that
// Sync with unchanged rules repairs it.
func TestChanged_ForeignDeeds_AreReportedAndRepaired(t *testing.T) {
	m := openManager(t)
	r := Rules{Networks: []Network{net4}, Ports: []PublishedPort{{ID: "p", Port: 80, Protocol: "tcp", Target: 80, Backends: []Backend{backend(net4, "a", 2)}}}}
	if err := m.Ensure(t.Context(), net4); err != nil {
		t.Fatal(err)
	}
	sync := func() {
		t.Helper()
		if err := m.Sync(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	whole := func() string {
		return command(t, "nft", "list", "table", "inet", "bt") + command(t, "ip", "rule") + command(t, "ip", "-6", "rule")
	}
	want := whole()
	base := guardBase("bt")
	for _, deed := range []string{
		"nft flush ruleset",
		"nft delete table inet bt",
		"nft flush chain inet bt forward",
		"nft add rule inet bt forward accept",
		"nft delete element inet bt ports4 { tcp . 80 }",
		fmt.Sprintf("ip rule del pref %d", base+guardDeny),
		fmt.Sprintf("ip rule del pref %d", base+guardMark),
	} {
		command(t, strings.Fields(deed)...)
		start := time.Now()
		select {
		case <-m.Changed():
		case <-time.After(time.Second):
			t.Errorf("%s: not reported within 1 s", deed)
		}
		sync()
		if got := whole(); got != want {
			t.Errorf("%s: not repaired:\n%s", deed, got)
		}
		t.Logf("%s: back after %s", deed, time.Since(start).Round(time.Millisecond))
	}
}

func TestChanged_OwnAndUnrelatedDeeds_AreNotReported(t *testing.T) {
	m := openManager(t)
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "inet", "foreign").Run() })
	r := Rules{Networks: []Network{net4}}
	for range 3 {
		if err := m.Ensure(t.Context(), net4); err != nil {
			t.Fatal(err)
		}
		if err := m.Sync(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		r.Ports = append(r.Ports, PublishedPort{ID: fmt.Sprint(len(r.Ports)), Port: uint16(80 + len(r.Ports)), Protocol: "tcp", Target: 80})
		command(t, "nft", "add", "table", "inet", "foreign")
		command(t, "nft", "add chain inet foreign c")
		if err := m.Remove(t.Context(), net4); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-m.Changed():
		t.Error("reported")
	case <-time.After(20 * settle): // silence cannot be polled for
	}
}

func TestEnsure_BridgeDeleted_IsReportedAndPortsComeBack(t *testing.T) {
	m := openManager(t)
	if err := m.Ensure(t.Context(), netA); err != nil {
		t.Fatal(err)
	}
	one, err := m.Attach(t.Context(), "one", []Endpoint{endpoint(netA, 2)})
	if err != nil {
		t.Fatal(err)
	}
	two, err := m.Attach(t.Context(), "two", []Endpoint{endpoint(netA, 3)})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, one, "one", 80)
	command(t, "ip", "link", "del", m.Bridge(netA.ID))
	select {
	case <-m.Changed():
	case <-time.After(time.Second):
		t.Fatal("not reported within 1 s")
	}
	if err := m.Ensure(t.Context(), netA); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"10.210.0.2:80", "[fd00:a::2]:80"} {
		if got, err := ask(t, two, "tcp", to); !strings.HasPrefix(got, "one") {
			t.Errorf("%s: %q, %v", to, got, err)
		}
	}
}

func TestChanged_TaskLinkDeletedByHand_IsReported(t *testing.T) {
	m := openManager(t)
	if err := m.Ensure(t.Context(), net4); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"ours", "theirs"} {
		if _, err := m.Attach(t.Context(), id, []Endpoint{endpoint(net4, 2+len(id))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Detach(t.Context(), "ours"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.Changed():
		t.Error("our own deletion is reported")
	case <-time.After(10 * settle): // silence cannot be polled for
	}
	command(t, "ip", "link", "del", vethName(m.prefix, "theirs", 0))
	select {
	case <-m.Changed():
	case <-time.After(time.Second):
		t.Error("not reported within 1 s")
	}
}

func TestAttach_AfterReopen_KnowsNetworksFromTheKernel(t *testing.T) {
	m := openManager(t)
	if err := m.Ensure(t.Context(), netA); err != nil {
		t.Fatal(err)
	}
	m2, err := Open(Config{Run: m.run, Prefix: m.prefix})
	if err != nil {
		t.Fatal(err)
	}
	defer m2.Close()
	path, err := m2.Attach(t.Context(), "late", []Endpoint{endpoint(netA, 2)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, path, "tcp", "[fd00:a::1]:9"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("gateway: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
