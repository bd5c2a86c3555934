package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/testbed"
)

// nets is a stack whose services meet on networks.
const nets = `
x-idle: &idle
  image: busybox
  command: sleep 1000
  stop_signal: KILL
x-shell: &shell
  image: debian:bookworm-slim
  command: sleep 1000
  stop_signal: KILL
x-web: &web
  image: berth-testbed/tiny
services:
  front:
    <<: *web
    networks: [one]
    ports: ["127.0.0.1:8101:8080", "8102-8104:8080-8082"]
    deploy: {replicas: 2}
  front6:
    <<: *web
    networks: {six: {aliases: [www, www.example.test]}}
    ports: ["8105:8080"]
  client:
    <<: *shell
    networks: [one, six]
  stranger:
    <<: *shell
    networks: [two]
  fixed:
    <<: *web
    container_name: the-fixed
    networks: {two: {ipv4_address: 10.77.0.77, mac_address: "02:42:00:00:00:77"}}
  locked:
    <<: *shell
    networks: [inner]
  inner:
    <<: *web
    networks: [inner]
  onhost:
    <<: *web
    command: ["-listen", "127.0.0.1:8106"]
    network_mode: host
  alone:
    <<: *idle
    network_mode: none
  main:
    <<: *web
    networks: [two]
  sidecar:
    <<: *shell
    network_mode: "service:main"
  echo:
    <<: *idle
    networks: [one]
    ports: ["8107:9/udp"]
networks:
  one:
  two: {ipam: {config: [{subnet: 10.77.0.0/24}]}}
  inner: {internal: true}
  six: {enable_ipv6: true}
`

// TestNetworks_NamesPortsAndWalls looks at how services meet, and don't.
func TestNetworks_NamesPortsAndWalls(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	// An address of the host beside 127.0.0.1, and one that is not the host's.
	run(t, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
	t.Cleanup(func() { run(t, "ip", "address", "del", "192.0.2.1/32", "dev", "lo") })
	outside := neighbour(t)
	s := m.stack(t, "nets", nets)
	s.up(t)

	// get prints the answer of an HTTP server: bash is client enough.
	get := func(host string) string {
		return "exec 3<>/dev/tcp/" + host + "/8080 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && tail -n 1 <&3"
	}
	id := func(service string) string { return s.ps(t, service)[0].ID }
	for _, look := range []struct{ what, service, script, want string }{
		{"a service by name", "client", get("front6"), id("front6")},
		{"by its alias", "client", get("www"), id("front6")},
		{"by its long alias", "client", get("www.example.test"), id("front6")},
		{"by its container_name", "stranger", get("the-fixed"), id("fixed")},
		{"by the name of a task", "client", get("nets-front-2"), s.ps(t, "front")[1].ID},
		{"one address for a service", "client", "getent ahostsv4 front | grep -c STREAM", "1"},
		{"all tasks of a service", "client", "getent ahostsv4 tasks.front | grep -c STREAM", "2"},
		{"over IPv6", "client", "getent ahostsv6 front6 | grep -c '^fd.*STREAM' && " + get("$(getent ahostsv6 front6 | awk '{print $1; exit}')"), "1\n" + id("front6")},
		{"a static address", "stranger", get("10.77.0.77"), id("fixed")},
		{"another network's names", "stranger", "getent hosts front || echo unknown", "unknown"},
		{"inside an internal network", "locked", get("inner"), id("inner")},
		{"no way out of an internal network", "locked", "timeout 2 bash -c 'echo >/dev/tcp/" + outside + "' 2>/dev/null || echo none", "none"},
		{"a way out of others", "client", "timeout 2 bash -c 'echo >/dev/tcp/" + outside + "' && echo out", "out"},
		{"no way to the host itself", "client", "timeout 2 bash -c 'echo >/dev/tcp/192.0.2.1/8106' 2>/dev/null || echo none", "none"},
		{"only the loopback without a network", "alone", "ls /sys/class/net", "lo"},
		{"the network of another service", "sidecar", get("127.0.0.1"), id("main")},
	} {
		t.Run(look.what, func(t *testing.T) {
			shell := "bash"
			if look.service == "alone" {
				shell = "sh"
			}
			r := s.berth(t, "exec", look.service, shell, "-c", look.script)
			if got := strings.TrimSpace(r.out); got != look.want {
				t.Errorf("want %q: %s", look.want, r)
			}
		})
	}

	t.Run("published ports", func(t *testing.T) {
		for _, target := range []string{
			"http://127.0.0.1:8101/", "http://127.0.0.1:8102/", "http://192.0.2.1:8102/",
			"http://127.0.0.1:8105/", "http://[::1]:8105/", "http://127.0.0.1:8106/",
		} {
			if _, err := fetch(target); err != nil {
				t.Error(err)
			}
		}
		for _, closed := range []string{"192.0.2.1:8101", "127.0.0.1:8103", "192.0.2.1:8106"} {
			if c, err := net.DialTimeout("tcp", closed, 2*time.Second); err == nil {
				c.Close()
				t.Errorf("%s is open", closed)
			}
		}
	})

	t.Run("both replicas answer", func(t *testing.T) {
		seen := map[string]bool{}
		for range 10 {
			body, err := fetch("http://127.0.0.1:8102/")
			if err != nil {
				t.Fatal(err)
			}
			seen[body] = true
		}
		if len(seen) != 2 {
			t.Errorf("%d of 2 replicas answered: %v", len(seen), seen)
		}
	})

	t.Run("UDP", func(t *testing.T) {
		echo(t, m.inspect(t, s.only(t, "echo").ID).Pid, ":9")
		eventually(t, 5*time.Second, func() error { return echoes(t.Context(), "127.0.0.1:8107") })
	})

	t.Run("walls", func(t *testing.T) {
		fixed := "10.77.0.77"
		front := s.inspect(t, s.ps(t, "front")[0].ID).Networks[0].IPv4
		for _, wall := range []struct{ from, to string }{{"client", fixed}, {"stranger", front}, {"locked", fixed}, {"alone", fixed}} {
			r := s.berth(t, "exec", wall.from, "sh", "-c", "nc -w 2 "+wall.to+" 8080 </dev/null")
			if r.code == 0 {
				t.Errorf("%s reaches %s", wall.from, wall.to)
			}
		}
	})

	t.Run("MAC", func(t *testing.T) {
		out := run(t, "nsenter", "-t", fmt.Sprint(m.inspect(t, s.only(t, "fixed").ID).Pid), "-n", "ip", "link", "show", "eth0")
		if !strings.Contains(out, "02:42:00:00:00:77") {
			t.Errorf("the interface is %s", out)
		}
	})

	t.Run("sidecar follows its service", func(t *testing.T) {
		before := s.only(t, "sidecar").ID
		kill(t, m.inspect(t, s.only(t, "main").ID).Pid)
		s.awaitOnly(t, "sidecar", 15*time.Second, running(before))
		if r := s.berth(t, "exec", "sidecar", "bash", "-c", get("127.0.0.1")); strings.TrimSpace(r.out) != id("main") {
			t.Errorf("after main died the sidecar does not reach it: %s", r)
		}
	})

	t.Run("dependents of a dead port", func(t *testing.T) {
		s.must(t, "stop", "front")
		if _, err := fetch("http://127.0.0.1:8102/"); err == nil {
			t.Error("a stopped service answers")
		}
		s.must(t, "start", "front")
		if _, err := fetch("http://127.0.0.1:8102/"); err != nil {
			t.Error(err)
		}
	})
}

// neighbour is another machine beside the host: a TCP server in a network
// namespace of its own. It returns its address as bash writes it, HOST/PORT.
func neighbour(t *testing.T) string {
	t.Helper()
	idle := exec.Command("unshare", "-n", "sleep", "1000")
	if err := idle.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = idle.Process.Kill()
		_ = idle.Wait()
	})
	pid := strconv.Itoa(idle.Process.Pid)
	eventually(t, 5*time.Second, func() error {
		if own, its := readlink("/proc/self/ns/net"), readlink("/proc/"+pid+"/ns/net"); own == its {
			return fmt.Errorf("process %s is still in %s", pid, its)
		}
		return nil
	})
	run(t, "ip", "link", "add", "outside", "type", "veth", "peer", "name", "eth0", "netns", pid)
	// The kernel frees a namespace when it has time: the link goes by name.
	t.Cleanup(func() { run(t, "ip", "link", "delete", "outside") })
	run(t, "ip", "address", "add", "198.51.100.1/24", "dev", "outside")
	run(t, "ip", "link", "set", "outside", "up")
	for _, args := range [][]string{{"address", "add", "198.51.100.2/24", "dev", "eth0"}, {"link", "set", "eth0", "up"}} {
		run(t, append([]string{"nsenter", "-t", pid, "-n", "ip"}, args...)...)
	}
	within(t, idle.Process.Pid, func() (io.Closer, error) {
		return (&net.ListenConfig{}).Listen(context.Background(), "tcp", "198.51.100.2:80")
	})
	return "198.51.100.2/80"
}

func readlink(path string) string {
	target, _ := os.Readlink(path) // "" if it is gone
	return target
}

// within opens a socket in the network namespace of a process. It is closed
// with the test.
func within(t *testing.T, pid int, open func() (io.Closer, error)) io.Closer {
	t.Helper()
	type opened struct {
		c   io.Closer
		err error
	}
	got := make(chan opened)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			got <- opened{err: err}
			return
		}
		c, err := open()
		got <- opened{c, err}
	}()
	o := <-got
	if o.err != nil {
		t.Fatal(o.err)
	}
	t.Cleanup(func() { o.c.Close() })
	return o.c
}

// echo answers datagrams in the network namespace of a process, as a program
// of its container would: the fixture images have none that does.
func echo(t *testing.T, pid int, addr string) {
	t.Helper()
	c := within(t, pid, func() (io.Closer, error) {
		return (&net.ListenConfig{}).ListenPacket(context.Background(), "udp4", addr)
	}).(net.PacketConn)
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from) // who asked will ask again
		}
	}()
}

// echoes sends a datagram and wants it back.
func echoes(ctx context.Context, addr string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	b := make([]byte, 16)
	n, err := c.Read(b)
	if err != nil {
		return err
	}
	if string(b[:n]) != "ping" {
		return fmt.Errorf("got %q", b[:n])
	}
	return nil
}
