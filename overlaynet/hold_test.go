package overlaynet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// heldWays lead to a service without backends.
var heldWays = []struct{ from, to string }{
	{"lan", hostLAN4 + ":8080"},
	{"lan", "[" + hostLAN6 + "]:8080"},
	{"other", hostLAN4 + ":8080"},
	{"other", "[fd00:b::1]:8080"},
	{"same", "10.210.0.1:8080"},
	{"same", "10.210.0.100:80"},
	{"same", "[fd00:a::64]:80"},
	{"host", "10.210.0.100:80"},
	{"host", "[fd00:a::64]:80"},
	{"host", "127.0.0.1:8080"},
	{"host", hostLAN4 + ":8080"},
	{"host", "[" + hostLAN6 + "]:8080"},
	{"lan", hostLAN4 + ":8084"}, // published at this address only
}

func (b *bed) hold() {
	for i := range b.rules.Services {
		b.rules.Services[i].Hold, b.rules.Services[i].Backends = true, nil
	}
	for i := range b.rules.Ports {
		b.rules.Ports[i].Hold, b.rules.Ports[i].Backends = true, nil
	}
}

func TestSync_Hold_ConnectionWaitsForABackend(t *testing.T) {
	b := newBed(t)
	web := b.rules.Services[0].Backends
	b.hold()
	b.sync(t)
	var clients sync.WaitGroup
	for _, h := range heldWays {
		clients.Go(func() {
			err := in(t, b.paths[h.from], func() error {
				c, err := net.DialTimeout("tcp", h.to, 5*time.Second)
				if err != nil {
					return err
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(askTimeout))
				buf := make([]byte, 64)
				n, err := c.Read(buf)
				if name, _, _ := strings.Cut(string(buf[:n]), " "); name != "self" {
					return fmt.Errorf("answered by %q, %w", name, err)
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s from %s: %v", h.to, h.from, err)
			}
		})
	}
	eventually(t, "all have tried", func() error {
		var waiting int
		for _, from := range []string{"lan", "other", "same", "host"} {
			err := in(t, b.paths[from], func() error {
				for _, file := range []string{"tcp", "tcp6"} {
					table, err := os.ReadFile("/proc/thread-self/net/" + file)
					if err != nil {
						return err
					}
					for line := range strings.Lines(string(table)) {
						if f := strings.Fields(line); f[3] == "02" { // SYN_SENT
							waiting++
						}
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if waiting != len(heldWays) {
			return fmt.Errorf("%d of %d wait", waiting, len(heldWays))
		}
		return nil
	})
	for i := range b.rules.Ports {
		b.rules.Ports[i].Backends = web
	}
	b.rules.Services[0].Backends = web
	b.sync(t)
	clients.Wait()
}

func TestSync_Hold_NobodyIsRefused(t *testing.T) {
	b := newBed(t)
	serve(t, "", "dns", 53)
	b.hold()
	b.sync(t)
	var clients sync.WaitGroup
	for _, h := range append(heldWays, struct{ from, to string }{"host", "[::1]:8080"}) {
		for _, network := range []string{"tcp", "udp"} {
			if network == "udp" && strings.HasSuffix(h.to, ":8084") {
				continue // not published
			}
			clients.Go(func() {
				got, err := ask(t, b.paths[h.from], network, h.to)
				local := network == "udp" && h.from == "host" // the kernel says that it did not send
				var timeout net.Error
				if got != "" || !local && (!errors.As(err, &timeout) || !timeout.Timeout()) {
					t.Errorf("%s %s from %s: %q, %v", network, h.to, h.from, got, err)
				}
			})
		}
	}
	clients.Wait()
	for _, to := range []string{"10.210.0.1:53", "[fd00:a::1]:53"} {
		for _, network := range []string{"tcp", "udp"} {
			if got, err := ask(t, b.paths["same"], network, to); !strings.HasPrefix(got, "dns") {
				t.Errorf("names at %s %s: %q, %v", network, to, got, err)
			}
		}
	}
	for i := range b.rules.Services {
		b.rules.Services[i].Hold = false
	}
	for i := range b.rules.Ports {
		b.rules.Ports[i].Hold = false
	}
	b.sync(t)
	for _, h := range heldWays {
		if got, err := ask(t, b.paths[h.from], "tcp", h.to); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("no longer held, %s from %s: %q, %v", h.to, h.from, got, err)
		}
	}
}
