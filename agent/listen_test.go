package agent

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"berth/api"
	"berth/spec"
	"berth/store"
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

// listensOn lets tasks listen on the ports that their image has in the map.
func listensOn(b *bench, images map[string]uint16) {
	b.listens.look = func(_ int, ports []uint16) (bool, bool) {
		// All processes of the fakes have one pid: the newest task is meant.
		newest := &store.Task{}
		for _, t := range b.w.view().tasks {
			if t.State == store.StateRunning && t.Attempt > newest.Attempt {
				newest = t
			}
		}
		return slices.Contains(ports, images[newest.Image]), true
	}
}

func TestListen_AfterOneThatListened_ATaskThatDoesNotIsNeverReady(t *testing.T) {
	simulate(t, func(b *bench) {
		listensOn(b, map[string]uint16{"web:1": 80, "web:2": 8080})
		b.up(stackOf("shop", service("web", "web:1", published(tcp(8080, 80)))))
		if !b.w.task(b.id("web/1.1")).Listened {
			t.Error("it was not seen listening")
		}
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:2", published(tcp(8080, 80)))), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(time.Minute) // far longer than the patience, less than the deadline
		b.expectTasks("web/1.1 running published", "web/1.2 running")
		if ready, reason := b.readiness(b.w.task(b.id("web/1.2"))); ready || reason != "it does not listen on port 80 yet" {
			t.Errorf("ready %v, %q", ready, reason)
		}
	})
}

func TestListen_APortThatNobodyEverListenedOn_IsWaitedForTenSeconds(t *testing.T) {
	simulate(t, func(b *bench) {
		listensOn(b, nil)
		for _, image := range []string{"web:1", "web:2"} {
			begun := time.Now()
			b.up(stackOf("shop", service("web", image, published(tcp(8080, 80)))))
			if d := b.w.task(b.id("web/1." + image[4:])).ReadyAt.Sub(begun); d < listenPatience || d > listenPatience+2*time.Second {
				t.Errorf("%s: ready after %s", image, d)
			}
		}
	})
}

func TestListen_WithAProbe_TheProbeDecides(t *testing.T) {
	simulate(t, func(b *bench) {
		listensOn(b, map[string]uint16{"web:1": 80})
		b.up(stackOf("shop", service("web", "web:1", published(tcp(8080, 80)))))
		b.probes.ask = func(context.Context, netip.Addr, *spec.Probe) answer { return answer{} }
		b.up(stackOf("shop", service("web", "web:2", published(tcp(8080, 80)), probed(readinessTest, nil))))
		b.pass(time.Minute)
		b.expectTasks("web/1.2 running published")
	})
}
