package overlaynet

import (
	"strings"
	"sync/atomic"
	"testing"
)

// Rules are replaced while clients connect: at every moment one of two
// backends is in force, so no connection may fail.
func TestSync_UnderLoad_NoConnectionFails(t *testing.T) {
	b := newBed(t)
	backends := []Backend{{TaskID: "self", Addr4: addr("10.210.0.2"), Addr6: addr("fd00:a::2")}, {TaskID: "same", Addr4: addr("10.210.0.3"), Addr6: addr("fd00:a::3")}}
	var done atomic.Bool
	finished := make(chan map[string]int, 3)
	for to, from := range map[string]string{
		hostLAN4 + ":8080": "lan", "[" + hostLAN6 + "]:8080": "lan", "10.210.0.100:80": "same",
	} {
		go func() {
			answers := map[string]int{}
			for !done.Load() {
				got, err := ask(t, b.paths[from], "tcp", to)
				name, _, _ := strings.Cut(got, " ")
				if err != nil {
					name = err.Error()
				}
				answers[name]++
			}
			finished <- answers
		}()
	}
	for i := range 40 {
		for p := range b.rules.Ports[:1] {
			b.rules.Ports[p].Backends = backends[i%2 : i%2+1]
		}
		b.rules.Services[0].Backends = b.rules.Ports[0].Backends
		b.sync(t)
	}
	done.Store(true)
	for range 3 {
		answers := <-finished
		for name, n := range answers {
			if name != "self" && name != "same" {
				t.Errorf("%d connections: %s", n, name)
			}
		}
		if answers["self"] == 0 || answers["same"] == 0 {
			t.Errorf("not both backends answered: %v", answers)
		}
		t.Log(answers)
	}
}
