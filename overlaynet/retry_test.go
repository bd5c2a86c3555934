package overlaynet

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// A backend whose process has died answers SYNs with RST until it is
// withdrawn; "third" has an address and no process.
func TestSync_BackendRefuses_ConnectionIsTriedAtAnother(t *testing.T) {
	b := newBed(t)
	if _, err := b.m.Attach(t.Context(), "third", []Endpoint{endpoint(netA, 4)}); err != nil {
		t.Fatal(err)
	}
	self, dead := backend(netA, "self", 2), backend(netA, "dead", 4)
	ways := []way{
		{"lan", hostLAN4 + ":8080"},
		{"lan", "[" + hostLAN6 + "]:8080"},
		{"same", "10.210.0.100:80"},
		{"same", "[fd00:a::64]:80"},
		{"self", "10.210.0.100:80"},
		{"host", "10.210.0.100:80"},
		{"host", "[fd00:a::64]:80"},
		{"host", "127.0.0.1:8080"},
		{"host", "[" + hostLAN6 + "]:8080"},
	}
	inForce := func(hold bool, backends ...Backend) {
		b.rules.Services[0].Backends, b.rules.Ports[0].Backends = backends, backends
		b.rules.Services[0].Hold, b.rules.Ports[0].Hold = hold, hold
		b.sync(t)
	}
	// connect has all clients connect at once: some wait for 1 s.
	connect := func(what, want string, ways []way) {
		t.Helper()
		var clients sync.WaitGroup
		for _, w := range ways {
			clients.Go(func() {
				a := &answered{by: map[string]int{}, timeout: 3 * time.Second}
				if err := in(t, b.paths[w.from], func() error { a.connect(w.to); return nil }); err != nil {
					t.Error(err)
				}
				for name := range a.by {
					if !strings.Contains(name, want) {
						t.Errorf("%s, %s from %s: %s", what, w.to, w.from, name)
					}
				}
			})
		}
		clients.Wait()
	}
	// Of the turns, self, dead, self, self, each chain's clients take two or
	// three: one meets the dead one, and its next try does not.
	self.Weight = 3
	inForce(false, dead, self)
	connect("one of two", "self", ways)
	inForce(false, dead)
	connect("the only backend", "refused", ways)
	inForce(true, dead)
	connect("the only backend, held", "refused", ways)
	inForce(false, dead, self)
	connect("a port at which nobody listens", "refused", []way{{"same", "10.210.0.100:81"}, {"host", "[fd00:a::64]:81"}})
}

type way struct{ from, to string }
