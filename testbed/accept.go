package testbed

import (
	"net"
	"testing"
)

// Accept answers each connection to l with f and closes it, until the test
// ends; then l is closed.
func Accept(t testing.TB, l net.Listener, f func(net.Conn)) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
}
