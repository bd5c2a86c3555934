package overlaynet

import (
	"cmp"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Rules change while clients connect: at every moment one to three backends
// are in force, so no connection may fail, nor wait for a SYN to be sent again.
// Sometimes the whole table is loaded, as after somebody else touched it.
func TestSync_UnderLoad_NoConnectionFails(t *testing.T) {
	const (
		lasts           = 6 * time.Second
		leastUpdates    = 48
		mostConnections = 15_000 // of one client: it has 28,000 ports
	)
	b := newBed(t)
	path, err := b.m.Attach(t.Context(), "third", []Endpoint{endpoint(netA, 4)})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, path, "third", 80)
	backends := []Backend{
		{TaskID: "self", Addr4: addr("10.210.0.2"), Addr6: addr("fd00:a::2")},
		{TaskID: "same", Addr4: addr("10.210.0.3"), Addr6: addr("fd00:a::3"), Weight: 2},
		{TaskID: "third", Addr4: addr("10.210.0.4"), Addr6: addr("fd00:a::4")},
	}

	var done atomic.Bool
	var clients sync.WaitGroup
	answers := map[string]*answered{}
	for _, c := range []struct{ from, to string }{
		{"lan", hostLAN4 + ":8080"},
		{"lan", "[" + hostLAN6 + "]:8080"},
		{"same", "10.210.0.100:80"},
		{"self", "[fd00:a::64]:80"},
		{"host", "[fd00:a::64]:80"},
		{"host", "127.0.0.1:8080"},
	} {
		a := &answered{by: map[string]int{}, timeout: 10 * time.Second}
		answers[c.to+" from "+c.from] = a
		clients.Go(func() {
			err := in(t, b.paths[c.from], func() error {
				for range mostConnections {
					if done.Load() {
						break
					}
					a.connect(c.to)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	others := b.rules.Services
	subsets := []string{"0", "01", "012", "12", "2", "1", "10", "0", "2", "02", "012", "1"}
	updates := 0
	for start := time.Now(); time.Since(start) < lasts || updates < leastUpdates; updates++ {
		i := updates
		var now []Backend
		for _, n := range subsets[i%len(subsets)] {
			now = append(now, backends[n-'0'])
		}
		// Services come and go beside the one that is watched.
		b.rules.Services = others[:2+i%2]
		b.rules.Services[0].Backends, b.rules.Ports[0].Backends = now, now
		if i%25 == 24 {
			b.m.rules.mu.Lock()
			b.m.rules.dirty = true
			b.m.rules.mu.Unlock()
		}
		b.sync(t)
	}
	done.Store(true)
	clients.Wait()
	var total, slow int
	for who, a := range answers {
		slow += a.slow
		for name, n := range a.by {
			total += n
			if name != "self" && name != "same" && name != "third" {
				t.Errorf("%s: %d connections: %s", who, n, name)
			}
		}
		if len(a.by) < 3 {
			t.Errorf("%s: not all backends answered: %v", who, a.by)
		}
	}
	t.Logf("%d connections during %d changes, %d slow ones", total, updates, slow)
}

// answered counts a client's connections by the backend's name, or the error.
type answered struct {
	by      map[string]int
	timeout time.Duration // 0: askTimeout
	slow    int           // as if a SYN had been sent again
}

// connect runs on a thread in the client's namespace.
func (a *answered) connect(to string) {
	name, err := func() (string, error) {
		start, limit := time.Now(), cmp.Or(a.timeout, askTimeout)
		c, err := net.DialTimeout("tcp", to, limit)
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(start.Add(limit))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		if time.Since(start) > 900*time.Millisecond {
			a.slow++
		}
		name, _, _ := strings.Cut(string(buf[:n]), " ")
		return name, err
	}()
	if err != nil {
		name = fmt.Sprint("failed: ", err)
	}
	a.by[name]++
}
