package overlaynet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/testbed"
)

// cleanupContext is for what must run after t.Context() is done.
func cleanupContext() context.Context { return context.Background() }

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// openManager gives a manager on the test's own folders; what it made is gone
// when the test ends, and the test fails if anything is left.
func openManager(t testing.TB) *Manager {
	t.Helper()
	testbed.NeedKernel(t)
	before := kernelState(t)
	dir := t.TempDir()
	m, err := Open(Config{Root: dir + "/root", Run: dir + "/run", Prefix: "bt"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Sweep(cleanupContext(), nil, nil); err != nil {
			t.Error(err)
		}
		if err := m.Teardown(cleanupContext()); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || bytes.Contains(mounts, []byte(m.run)) {
			t.Errorf("mounts below %s are left (%v)", m.run, err)
		}
		eventually(t, "the kernel is as before", func() error {
			if after := kernelState(t); after != before {
				return fmt.Errorf("left over:\nbefore:\n%s\nafter:\n%s", before, after)
			}
			return nil
		})
	})
	return m
}

// kernelState is everything that could leak, as text.
func kernelState(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	for _, c := range [][]string{
		{"ip", "-br", "link"}, {"ip", "rule"}, {"ip", "-6", "rule"}, {"nft", "list", "tables"},
	} {
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
		for line := range strings.Lines(string(out)) {
			b.WriteString(strings.TrimSpace(line) + "\n")
		}
	}
	return b.String()
}

// eventually polls f until it is nil or three seconds have passed.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: %v", what, err)
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}

// netA and netB are two networks of one host; netI is internal.
var (
	netA = Network{
		ID: "aaaaaaaa0001", Subnet4: prefix("10.210.0.0/24"), Gateway4: addr("10.210.0.1"),
		Subnet6: prefix("fd00:a::/64"), Gateway6: addr("fd00:a::1"),
	}
	netB = Network{
		ID: "bbbbbbbb0002", Subnet4: prefix("10.210.1.0/24"), Gateway4: addr("10.210.1.1"),
		Subnet6: prefix("fd00:b::/64"), Gateway6: addr("fd00:b::1"),
	}
	netI = Network{
		ID: "cccccccc0003", Subnet4: prefix("10.210.2.0/24"), Gateway4: addr("10.210.2.1"), Internal: true,
		Subnet6: prefix("fd00:c::/64"), Gateway6: addr("fd00:c::1"),
	}
)

// endpoint is host number n of a network.
func endpoint(n Network, number int) Endpoint {
	ep := Endpoint{NetworkID: n.ID, Addr4: nth(n.Subnet4, number), Ifname: "eth0", DefaultRoute: true}
	if n.Subnet6.IsValid() {
		ep.Addr6 = nth(n.Subnet6, number)
	}
	return ep
}

func nth(p netip.Prefix, number int) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] += byte(number)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// in runs f on a thread in the namespace at path; "" is where the test runs.
func in(t testing.TB, path string, f func() error) error {
	t.Helper()
	if path == "" {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		fd, err := os.Open(path)
		if err != nil {
			done <- err
			return
		}
		defer fd.Close()
		if err := unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// serve answers "NAME CLIENT-ADDRESS\n" on port over TCP and UDP, both
// families, in the namespace at path, until the test ends.
func serve(t testing.TB, path, name string, port int) {
	t.Helper()
	err := in(t, path, func() error {
		at := ":" + strconv.Itoa(port)
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		testbed.Accept(t, l, func(c net.Conn) {
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "%s %s\n", name, host)
			buf := make([]byte, 512)
			for { // echo
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				c.Write(buf[:n])
			}
		})
		return serveUDP(t, name, at)
	})
	if err != nil {
		t.Fatalf("serve %s: %v", name, err)
	}
}

// serveUDP has a socket per family: an unconnected one answers from the
// address that was asked only if it knows it.
func serveUDP(t testing.TB, name, at string) error {
	for _, network := range []string{"udp4", "udp6"} {
		u, err := net.ListenPacket(network, at)
		if err != nil {
			return err
		}
		t.Cleanup(func() { u.Close() })
		go func() {
			buf := make([]byte, 512)
			for {
				_, from, err := u.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					host, _, _ := net.SplitHostPort(from.String())
					u.WriteTo(fmt.Appendf(nil, "%s %s\n", name, host), from)
				}
			}
		}()
	}
	return nil
}

// ask connects from the namespace at path and returns "NAME CLIENT" or the
// error. It gives up after a short time.
func ask(t testing.TB, path, network, to string) (string, error) {
	t.Helper()
	var answer string
	err := in(t, path, func() error {
		c, err := net.DialTimeout(network, to, askTimeout)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(askTimeout))
		if strings.HasPrefix(network, "udp") {
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
		}
		buf := make([]byte, 512)
		n, err := c.Read(buf)
		answer = strings.TrimSpace(string(buf[:n]))
		return err
	})
	return answer, err
}

const askTimeout = 400 * time.Millisecond

// machine makes a namespace "name" joined to the test's by a wire, with the
// addresses given for here and there: another machine.
func machine(t testing.TB, m *Manager, name string, here, there []netip.Prefix) string {
	t.Helper()
	path := t.TempDir() + "/" + name
	err := m.inNetns(path, func(bool) error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer nl.Close()
		if err := setSysctls([]sysctl{{path: "ipv6/conf/default/accept_dad", value: "0"}}); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "eth0"
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(m.hostns.Fd())}
		if err := nl.LinkAdd(veth); err != nil {
			return err
		}
		return configure(nl, "eth0", there)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m2, err := netlink.LinkByName(name)
		if err == nil {
			netlink.LinkDel(m2)
		}
		if err := unpin(path); err != nil {
			t.Error(err)
		}
	})
	if err := setSysctls([]sysctl{{path: "ipv6/conf/" + name + "/accept_dad", value: "0"}}); err != nil {
		t.Fatal(err)
	}
	if err := configure(m.nl, name, here); err != nil {
		t.Fatal(err)
	}
	return path
}

func configure(nl *netlink.Handle, name string, addrs []netip.Prefix) error {
	link, err := nl.LinkByName(name)
	if err != nil {
		return err
	}
	if err := nl.LinkSetUp(link); err != nil {
		return err
	}
	if lo, err := nl.LinkByName("lo"); err == nil {
		if err := nl.LinkSetUp(lo); err != nil {
			return err
		}
	}
	for _, a := range addrs {
		if err := nl.AddrAdd(link, &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program in the test's namespace.
func command(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// both are an IPv4 /24 and an IPv6 /64.
func both(v4, v6 string) []netip.Prefix {
	return []netip.Prefix{prefix(v4 + "/24"), prefix(v6 + "/64")}
}
