package agent

import (
	"net"
	"testing"
)

func TestListening_FindsAListenerByItsPort(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	for _, c := range []struct {
		ports []uint16
		want  bool
	}{{[]uint16{port}, true}, {[]uint16{1, port}, true}, {nil, false}} {
		if got, err := listening("/proc/self/net/tcp", c.ports); got != c.want || err != nil {
			t.Errorf("ports %v: %v, %v; want %v", c.ports, got, err, c.want)
		}
	}
	l.Close()
	if got, err := listening("/proc/self/net/tcp", []uint16{port}); got || err != nil {
		t.Errorf("after the listener closed: %v, %v", got, err)
	}
}
