package overlaynet

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func BenchmarkAttachDetach(b *testing.B) {
	m := openManager(b)
	if err := m.Ensure(b.Context(), net4); err != nil {
		b.Fatal(err)
	}
	var attach, detach int64
	for b.Loop() {
		start := b.Elapsed()
		if _, err := m.Attach(b.Context(), "task", []Endpoint{endpoint(net4, 2)}); err != nil {
			b.Fatal(err)
		}
		middle := b.Elapsed()
		if err := m.Detach(b.Context(), "task"); err != nil {
			b.Fatal(err)
		}
		attach += int64(middle - start)
		detach += int64(b.Elapsed() - middle)
	}
	b.ReportMetric(float64(attach)/float64(b.N), "ns/attach")
	b.ReportMetric(float64(detach)/float64(b.N), "ns/detach")
}

// BenchmarkAttach50 starts and stops 50 tasks, 8 at a time.
func BenchmarkAttach50(b *testing.B) {
	m := openManager(b)
	if err := m.Ensure(b.Context(), net4); err != nil {
		b.Fatal(err)
	}
	each := func(f func(i int) error) {
		var g errgroup.Group
		g.SetLimit(8)
		for i := range 50 {
			g.Go(func() error { return f(i) })
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	var attach, detach int64
	for b.Loop() {
		start := b.Elapsed()
		each(func(i int) error {
			_, err := m.Attach(b.Context(), fmt.Sprint("task", i), []Endpoint{endpoint(net4, 2+i)})
			return err
		})
		middle := b.Elapsed()
		attach += int64(middle - start)
		each(func(i int) error { return m.Detach(b.Context(), fmt.Sprint("task", i)) })
		detach += int64(b.Elapsed() - middle)
	}
	b.ReportMetric(float64(detach)/float64(b.N), "ns/50detach")
	b.ReportMetric(float64(attach)/float64(b.N), "ns/50attach")
}

// BenchmarkByHand is what a shell script would do for one task.
func BenchmarkByHand(b *testing.B) {
	m := openManager(b)
	if err := m.Ensure(b.Context(), net4); err != nil {
		b.Fatal(err)
	}
	script := `ip netns add byhand && ip link add bh0 type veth peer name eth0 netns byhand &&
ip link set bh0 master ` + m.Bridge(net4.ID) + ` up && ip -n byhand link set lo up && ip -n byhand link set eth0 up &&
ip -n byhand addr add 10.210.3.2/24 dev eth0 && ip -n byhand route add default via 10.210.3.1; ip link del bh0; ip netns del byhand`
	for b.Loop() {
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}

// BenchmarkSync changes one backend of one service among many, with the pause
// between two changes that the agent makes: the kernel tidies up meanwhile.
func BenchmarkSync(b *testing.B) {
	for _, services := range []int{50, 500} {
		b.Run(fmt.Sprint(services, " services"), func(b *testing.B) {
			m := openManager(b)
			r := manyServices(services)
			for i := 0; b.Loop(); i++ {
				r.Services[0].Backends = r.Services[0].Backends[:1+i%2]
				b.StopTimer()
				<-time.After(20 * time.Millisecond)
				b.StartTimer()
				if err := m.Sync(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint(services, " services loaded whole"), func(b *testing.B) {
			m := openManager(b)
			r := manyServices(services)
			for b.Loop() {
				m.rules.mu.Lock()
				m.rules.dirty = true
				m.rules.mu.Unlock()
				if err := m.Sync(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint(services, " services unchanged"), func(b *testing.B) {
			m := openManager(b)
			r := manyServices(services)
			if err := m.Sync(b.Context(), r); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := m.Sync(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// manyServices have three backends each, and every second a published port.
func manyServices(count int) Rules {
	n := Network{ID: "eeeeeeee0005", Subnet4: prefix("10.208.0.0/13"), Gateway4: addr("10.208.0.1")}
	r := Rules{Networks: []Network{n}}
	next := n.Gateway4
	take := func() Backend {
		next = next.Next()
		return Backend{TaskID: "task-" + next.String(), Addr4: next}
	}
	for i := range count {
		id := fmt.Sprintf("stack/service%04d", i)
		backends := []Backend{take(), take(), take()}
		r.Services = append(r.Services, Service{ID: id, NetworkID: n.ID, VIP4: take().Addr4, Backends: backends})
		if i%2 == 0 {
			r.Ports = append(r.Ports, PublishedPort{ID: id, Port: uint16(10000 + i), Protocol: "tcp", Target: 80, Backends: backends})
		}
	}
	return r
}
