package overlaynet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"berth/testbed"
)

func TestReserve_PortOfAnotherProcess_NamesTheHolder(t *testing.T) {
	testbed.NeedKernel(t)
	for _, protocol := range []string{"tcp", "udp"} {
		pid := holdElsewhere(t, protocol, "18080")
		c, err := Reserve(PublishedPort{Port: 18080, Protocol: protocol})
		if err == nil {
			c.Close()
		}
		want := fmt.Sprintf("port 18080/%s is in use by python3", protocol)
		if !errors.Is(err, ErrPortInUse) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", pid)) {
			t.Errorf("%s: %v, want %s (pid %d)", protocol, err, want, pid)
		}
	}
}

// holdElsewhere has another process listen, as servers do: with SO_REUSEADDR.
func holdElsewhere(t *testing.T, protocol, port string) (pid int) {
	t.Helper()
	script := `import socket,sys
s=socket.socket(socket.AF_INET, socket.SOCK_STREAM if sys.argv[1]=="tcp" else socket.SOCK_DGRAM)
if sys.argv[1]=="tcp": s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", int(sys.argv[2])))
if sys.argv[1]=="tcp": s.listen()
print("up", flush=True)
sys.stdin.read()`
	cmd := exec.Command("/usr/bin/python3", "-c", script, protocol, port)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("SKIPPED: needs python3: %v", err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	if _, err := stdout.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestReserve_WhileHeld_NobodyElseGetsThePort(t *testing.T) {
	testbed.NeedKernel(t)
	for _, protocol := range []string{"tcp", "udp"} {
		c, err := Reserve(PublishedPort{Port: 18090, Protocol: protocol})
		if err != nil {
			t.Fatal(err)
		}
		if protocol == "tcp" { // Go's listeners set SO_REUSEADDR
			if l, err := net.Listen("tcp", "0.0.0.0:18090"); err == nil {
				l.Close()
				t.Error("a server got the reserved port")
			}
			if _, err := net.Dial("tcp", "127.0.0.1:18090"); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("without rules: %v, want refused", err)
			}
		} else if l, err := net.ListenPacket("udp", "0.0.0.0:18090"); err == nil {
			l.Close()
			t.Error("a server got the reserved UDP port")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		again, err := Reserve(PublishedPort{Port: 18090, Protocol: protocol})
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
	}
}

func TestReserve_OneAddress_LeavesTheOthers(t *testing.T) {
	testbed.NeedKernel(t)
	l, err := net.Listen("tcp", "127.0.0.2:18095")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Reserve(PublishedPort{HostIP: addr("127.0.0.1"), Port: 18095, Protocol: "tcp"})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := Reserve(PublishedPort{HostIP: addr("192.0.2.77"), Port: 18095, Protocol: "tcp"}); err == nil || !strings.Contains(err.Error(), "192.0.2.77") {
		t.Errorf("an address that the host lacks: %v", err)
	}
}

func TestReserve_TimeWaitOfTheServerBefore_IsNoObstacle(t *testing.T) {
	testbed.NeedKernel(t)
	l, err := net.Listen("tcp", "127.0.0.1:18097")
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close() // the side that closes first waits
	client.Read(make([]byte, 1))
	client.Close()
	l.Close()
	if b, err := os.ReadFile("/proc/thread-self/net/tcp"); err != nil || !strings.Contains(string(b), ":46B1") {
		t.Fatalf("no connection waits (%v)", err)
	}
	c, err := Reserve(PublishedPort{Port: 18097, Protocol: "tcp"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if l, err := net.Listen("tcp", "0.0.0.0:18097"); err == nil {
		l.Close()
		t.Error("the port is not held")
	}
}
