package dataplane

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/miekg/dns"

	"berth/testbed"
)

const testPort = 5353

// start runs a dataplane on dir until the test ends or stop is called.
func start(t *testing.T, dir string, idle time.Duration) (ended chan error, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	ended, over := make(chan error, 1), make(chan struct{})
	t.Cleanup(func() { cancel(); <-over })
	go func() {
		defer close(over)
		ended <- Run(ctx, Options{
			SnapshotPath: filepath.Join(dir, "dataplane.json"), DNSPort: testPort, Idle: idle,
			Ready: func() { close(ready) }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("ended at once: %v", err)
	}
	return ended, cancel
}

func write(t *testing.T, dir string, s Snapshot) {
	t.Helper()
	if err := Write(filepath.Join(dir, "dataplane.json"), s); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(4 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func lookup(network, gateway, name string, kind uint16) (*dns.Msg, error) {
	c := &dns.Client{Net: network, Timeout: 5 * time.Second}
	m, _, err := c.Exchange(query(name, kind), fmt.Sprintf("%s:%d", gateway, testPort))
	return m, err
}

// upstream is a fake resolver; answer nil means silence.
func upstream(t *testing.T, answer func(q *dns.Msg, tcp bool) *dns.Msg) (netip.AddrPort, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	handle := func(tcp bool) dns.HandlerFunc {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			asked.Add(1)
			if m := answer(q, tcp); m != nil {
				w.WriteMsg(m)
			}
		}
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handle(false)}, {Listener: l, Handler: handle(true)}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return at, &asked
}

func reply(q *dns.Msg, text string) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	rr, err := dns.NewRR(q.Question[0].Name + " 60 IN " + text)
	if err != nil {
		panic(err)
	}
	m.Answer = []dns.RR{rr}
	return m
}

func snapshotOf(n *Network, upstreams ...netip.AddrPort) Snapshot {
	return Snapshot{Version: 1, Networks: []Network{*n}, Upstreams: upstreams}
}

func TestRun_Snapshot_IsServedAndFollowed(t *testing.T) {
	testbed.NeedKernel(t)
	dir := t.TempDir()
	write(t, dir, snapshotOf(testNetwork()))
	start(t, dir, time.Minute)
	for _, network := range []string{"udp", "tcp"} {
		m, err := lookup(network, "127.0.0.1", "web.", dns.TypeA)
		if err != nil || records(m) != "NOERROR, A 5 10.210.0.9" {
			t.Errorf("%s: %s, %v", network, records(m), err)
		}
	}
	n := testNetwork()
	n.Names["web"] = Name{Addrs: []netip.Addr{addr("10.210.0.77")}, TTL: 5}
	n.Gateways = append(n.Gateways, addr("127.0.0.2"))
	write(t, dir, snapshotOf(n))
	for _, gateway := range []string{"127.0.0.1", "127.0.0.2"} {
		eventually(t, "the new snapshot at "+gateway, func() error {
			m, err := lookup("udp", gateway, "web.", dns.TypeA)
			if err == nil && records(m) != "NOERROR, A 5 10.210.0.77" {
				err = fmt.Errorf("%s", records(m))
			}
			return err
		})
	}
	if err := os.WriteFile(filepath.Join(dir, "dataplane.json"), []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err := lookup("tcp", "127.0.0.2", "web.", dns.TypeA); err != nil || m.Rcode != dns.RcodeSuccess {
		t.Errorf("with a broken snapshot: %v", err)
	}
	n.Gateways = n.Gateways[1:]
	write(t, dir, snapshotOf(n))
	eventually(t, "the first gateway is closed", func() error {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", testPort)); err == nil {
			c.Close()
			return fmt.Errorf("still open")
		}
		return nil
	})
}

func TestRun_GatewayNotThereYet_IsOpenedWhenItComes(t *testing.T) {
	testbed.NeedKernel(t)
	dir := t.TempDir()
	n := testNetwork()
	n.Gateways = []netip.Addr{addr("fd00:77::1")}
	write(t, dir, snapshotOf(n))
	start(t, dir, time.Minute)
	run(t, "ip", "addr", "add", "fd00:77::1/128", "dev", "lo", "nodad")
	t.Cleanup(func() { run(t, "ip", "addr", "del", "fd00:77::1/128", "dev", "lo") })
	eventually(t, "an answer", func() error {
		_, err := lookup("tcp", "[fd00:77::1]", "web.", dns.TypeA)
		return err
	})
}

func TestForward_UnknownName_GoesToUpstreamsButNotFromInternal(t *testing.T) {
	testbed.NeedKernel(t)
	up, asked := upstream(t, func(q *dns.Msg, _ bool) *dns.Msg { return reply(q, "A 192.0.2.7") })
	dir := t.TempDir()
	inner := testNetwork()
	inner.ID, inner.Internal, inner.Gateways = "b", true, []netip.Addr{addr("127.0.0.3")}
	s := snapshotOf(testNetwork(), netip.AddrPortFrom(addr("127.0.0.1"), testPort), up)
	s.Networks = append(s.Networks, *inner)
	write(t, dir, s)
	start(t, dir, time.Minute)
	m, err := lookup("udp", "127.0.0.1", "example.org.", dns.TypeA)
	if err != nil || records(m) != "NOERROR, A 60 192.0.2.7" {
		t.Errorf("%s, %v", records(m), err)
	}
	before := asked.Load()
	m, err = lookup("udp", "127.0.0.3", "secret.evil.example.", dns.TypeA)
	if err != nil || m.Rcode != dns.RcodeNameError || asked.Load() != before {
		t.Errorf("internal: %s, %v, %d queries leaked", records(m), err, asked.Load()-before)
	}
}

func TestForward_DeadFailingAndLyingUpstreams_AreGoneRound(t *testing.T) {
	testbed.NeedKernel(t)
	silent, _ := upstream(t, func(*dns.Msg, bool) *dns.Msg { return nil })
	failing, _ := upstream(t, func(q *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure) })
	good, _ := upstream(t, func(q *dns.Msg, _ bool) *dns.Msg { return reply(q, "A 192.0.2.7") })
	lying := liar(t)
	for name, list := range map[string][]netip.AddrPort{
		"silent":  {silent, good},
		"failing": {failing, good},
		"lying":   {lying},
	} {
		f := newForwarder()
		begin := time.Now()
		m := f.forward(t.Context(), query("example.org.", dns.TypeA), addr("10.0.0.1"), list)
		if records(m) != "NOERROR, A 60 192.0.2.7" {
			t.Errorf("%s: %s", name, records(m))
		}
		if took := time.Since(begin); took > upstreamTimeout+500*time.Millisecond {
			t.Errorf("%s: took %s", name, took)
		}
		// The second query does not wait for the dead one again.
		begin = time.Now()
		f.forward(t.Context(), query("example.org.", dns.TypeA), addr("10.0.0.1"), list)
		if took := time.Since(begin); took > upstreamTimeout/2 {
			t.Errorf("%s: the second took %s", name, took)
		}
	}
	m := newForwarder().forward(t.Context(), query("example.org.", dns.TypeA), addr("10.0.0.1"), nil)
	if m.Rcode != dns.RcodeServerFailure {
		t.Errorf("no upstream: %s", records(m))
	}
}

// liar answers each query first with a wrong id, then with another question,
// then with garbage, then right.
func liar(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buf[:n]) != nil {
				continue
			}
			wrong := reply(q, "A 6.6.6.6")
			wrong.Id++
			other := reply(q, "A 6.6.6.6")
			other.Question[0].Name = "evil.example."
			for _, m := range []*dns.Msg{wrong, other, nil, reply(q, "A 192.0.2.7")} {
				b := []byte("garbage")
				if m != nil {
					b, _ = m.Pack()
				}
				pc.WriteTo(b, from)
			}
		}
	}()
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestForward_TruncatedAnswer_IsFetchedOverTCP(t *testing.T) {
	testbed.NeedKernel(t)
	up, _ := upstream(t, func(q *dns.Msg, tcp bool) *dns.Msg {
		m := reply(q, `TXT "`+strings.Repeat("x", 200)+`"`)
		for range 9 {
			m.Answer = append(m.Answer, m.Answer[0])
		}
		if !tcp {
			m.Answer, m.Truncated = nil, true
		}
		return m
	})
	dir := t.TempDir()
	write(t, dir, snapshotOf(testNetwork(), up))
	start(t, dir, time.Minute)
	m, err := lookup("tcp", "127.0.0.1", "big.example.", dns.TypeTXT)
	if err != nil || len(m.Answer) != 10 {
		t.Errorf("over TCP: %v", err)
	}
	m, err = lookup("udp", "127.0.0.1", "big.example.", dns.TypeTXT)
	if err != nil || !m.Truncated {
		t.Errorf("over UDP: truncated %v, %v", m != nil && m.Truncated, err)
	}
}

func TestForward_OneClientStorms_OthersAreServed(t *testing.T) {
	f := newForwarder()
	storm, calm := addr("10.0.0.1"), addr("10.0.0.2")
	for range maxForwardsPerClient {
		if !f.enter(storm) {
			t.Fatal("refused below the limit")
		}
	}
	if f.enter(storm) || !f.enter(calm) {
		t.Error("the limit is not per client")
	}
	f.leave(storm)
	if !f.enter(storm) {
		t.Error("a place that was left is not free")
	}
}

func TestRun_NewerDataplane_TakesOverWithoutAGap(t *testing.T) {
	testbed.NeedKernel(t)
	dir := t.TempDir()
	write(t, dir, snapshotOf(testNetwork()))
	older, _ := start(t, dir, time.Minute)
	stop, failed := make(chan struct{}), make(chan error, 1)
	var served atomic.Int64
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := lookup("udp", "127.0.0.1", "web.", dns.TypeA); err != nil {
				failed <- err
				return
			}
			served.Add(1)
		}
	}()
	_, end := start(t, dir, time.Minute)
	select {
	case err := <-older:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(6 * time.Second):
		t.Fatal("the older one goes on")
	}
	eventually(t, "the newer one has the lock", func() error {
		free, err := flock.New(filepath.Join(dir, "dataplane.lock")).TryLock()
		if free {
			return fmt.Errorf("it is free")
		}
		return err
	})
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("a query failed after %d: %v", served.Load(), err)
	}
	end()
}

func TestRun_NothingToServe_Ends(t *testing.T) {
	testbed.NeedKernel(t)
	dir := t.TempDir()
	write(t, dir, Snapshot{Version: 1})
	ended, _ := start(t, dir, 10*time.Millisecond)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
}

func TestLoopback_HalfClose_BackendsInTurnAndDeadOnesSkipped(t *testing.T) {
	testbed.NeedKernel(t)
	backend := func(name string) netip.AddrPort {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		testbed.Accept(t, l, func(c net.Conn) {
			b, _ := io.ReadAll(c) // until the client's half is closed
			fmt.Fprintf(c, "%s got %d\n", name, len(b))
		})
		return l.Addr().(*net.TCPAddr).AddrPort()
	}
	dead := netip.MustParseAddrPort("127.0.0.1:1")
	dir := t.TempDir()
	write(t, dir, Snapshot{Version: 1, Loopback: []Loopback{
		{Port: 8080, Backends: []netip.AddrPort{backend("one"), dead, backend("two")}}, {Port: 8081},
	}})
	start(t, dir, time.Minute)
	seen := map[string]bool{}
	for range 6 {
		c, err := net.Dial("tcp", "[::1]:8080")
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write(make([]byte, 1<<20))
		c.(*net.TCPConn).CloseWrite()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		name, size, _ := strings.Cut(strings.TrimSpace(line), " got ")
		if size != "1048576" {
			t.Errorf("%q", line)
		}
		seen[name] = true
		c.Close()
	}
	if len(seen) != 2 {
		t.Errorf("served by %v", seen)
	}
	c, err := net.Dial("tcp", "[::1]:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("no backend: %v", err)
	}
}

func TestWrite_Unchanged_LeavesTheFileAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dataplane.json")
	s := snapshotOf(testNetwork(), netip.MustParseAddrPort("192.0.2.1:53"))
	for range 2 {
		if err := Write(path, s); err != nil {
			t.Fatal(err)
		}
	}
	first, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(path, s); err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(path)
	if err != nil || !os.SameFile(first, second) {
		t.Errorf("replaced: %v", err)
	}
	back, err := Read(path)
	if err != nil || fmt.Sprint(back) != fmt.Sprint(s) {
		t.Errorf("read back %v, %v", back, err)
	}
	s.Version = 2
	if err := Write(path, s); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("version 2 is read")
	}
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

func BenchmarkAnswer(b *testing.B) {
	r := resolver{net: testNetwork(), turn: new(atomic.Uint32)}
	q := query("web.", dns.TypeA)
	for b.Loop() {
		m := r.answer(q)
		fit(m, q, false)
		if _, err := m.Pack(); err != nil {
			b.Fatal(err)
		}
	}
}
