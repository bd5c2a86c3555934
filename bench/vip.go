package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"berth/overlaynet"
)

// What the way to a task through the virtual address of its service may cost,
// beside the way to the task's own address.
const (
	vipBlocks     = 40        // rounds of throughput
	vipBlock      = 256 << 20 // bytes of a round; all those of one way are one TCP stream
	vipBatches    = 60        // rounds of short connections
	vipBatch      = 250       // connections of a round, one after the other
	vipNeighbours = 50        // other services whose rules are in force

	leastThroughput = 0.95
	leastRate       = 0.8
)

// The ports differ: of two flows that look alike to the task, the second would
// get another source port.
const (
	vipPort    = 80
	directPort = 81
)

// vip measures both ways in turn, a fraction of a second each: a slow moment of
// the machine hits both.
func vip(ctx context.Context, _ options, dir string) (err error) {
	n := overlaynet.Network{ID: "benchvip0001", Subnet4: netip.MustParsePrefix("10.210.0.0/16"), Gateway4: netip.MustParseAddr("10.210.0.1")}
	m, err := overlaynet.Open(overlaynet.Config{Root: dir, Run: filepath.Join(dir, "run"), Prefix: "bv"})
	if err != nil {
		return err
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, m.Sweep(ctx, nil, nil), m.Teardown(ctx), m.Close())
	}()
	if err := m.Ensure(ctx, n); err != nil {
		return err
	}
	last := n.Gateway4
	next := func() netip.Addr {
		last = last.Next()
		return last
	}
	places := map[string]string{}
	server := netip.Addr{}
	for _, name := range []string{"server", "client"} {
		ep := overlaynet.Endpoint{NetworkID: n.ID, Addr4: next(), Ifname: "eth0", DefaultRoute: true}
		if places[name], err = m.Attach(ctx, name, []overlaynet.Endpoint{ep}); err != nil {
			return err
		}
		if name == "server" {
			server = ep.Addr4
		}
	}
	address := next()
	rules := overlaynet.Rules{Networks: []overlaynet.Network{n}, Services: []overlaynet.Service{{
		ID: "bench/served", NetworkID: n.ID, VIP4: address, Backends: []overlaynet.Backend{{TaskID: "server", Addr4: server}},
	}}}
	for i := range vipNeighbours {
		rules.Services = append(rules.Services, overlaynet.Service{
			ID: fmt.Sprint("bench/other", i), NetworkID: n.ID, VIP4: next(),
			Backends: []overlaynet.Backend{{TaskID: "a", Addr4: next()}, {TaskID: "b", Addr4: next()}},
		})
	}
	if err := m.Sync(ctx, rules); err != nil {
		return err
	}
	closeServer, err := serveBytes(places["server"])
	if err != nil {
		return err
	}
	defer closeServer()
	return compareWays(ctx, places["client"], netip.AddrPortFrom(address, vipPort), netip.AddrPortFrom(server, directPort))
}

// compareWays has the VIP first.
func compareWays(ctx context.Context, client string, ways ...netip.AddrPort) error {
	var streams, batches [2][]float64
	err := within(client, func() (err error) {
		if streams, err = streamTimes(ctx, ways); err != nil {
			return fmt.Errorf("one stream: %w", err)
		}
		if batches, err = batchTimes(ctx, ways); err != nil {
			return fmt.Errorf("short connections: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("one service among %d, one client, one backend; medians of %d and %d rounds\n\n", vipNeighbours+1, vipBlocks, vipBatches)
	fmt.Printf("%-8s %16s %19s\n", "", "one TCP stream", "short connections")
	for w, name := range []string{"VIP", "direct"} {
		fmt.Printf("%-8s %11.2f GB/s %17.0f/s\n", name, vipBlock/middle(streams[w])/1e9, vipBatch/middle(batches[w]))
	}
	throughput, rate := middle(quotients(streams)), middle(quotients(batches))
	fmt.Printf("%-8s %16.2f %19.2f\n%-8s %16s %19s\n", "ratio", throughput, rate,
		"", fmt.Sprintf("(≥ %.2f)", leastThroughput), fmt.Sprintf("(≥ %.2f)", leastRate))
	if throughput < leastThroughput || rate < leastRate {
		return errors.New("the way through the virtual address costs more than it may")
	}
	return nil
}

// quotients are those of the rounds' speeds: VIP by direct.
func quotients(seconds [2][]float64) []float64 {
	out := slices.Clone(seconds[1])
	for i := range out {
		out[i] /= seconds[0][i]
	}
	return out
}

func middle(list []float64) float64 { return slices.Sorted(slices.Values(list))[len(list)/2] }

// taken runs f of both ways in turn and returns the seconds that each took;
// either is the first one in every other round.
func taken(ctx context.Context, rounds int, f func(way int) error) (seconds [2][]float64, err error) {
	for round := range rounds {
		for i := range 2 {
			way := (i + round) % 2
			start := time.Now()
			if err := f(way); err != nil {
				return seconds, err
			}
			seconds[way] = append(seconds[way], time.Since(start).Seconds())
		}
		if err := ctx.Err(); err != nil {
			return seconds, err
		}
	}
	return seconds, nil
}

// streamTimes sends blocks and waits for each until it has come.
func streamTimes(ctx context.Context, ways []netip.AddrPort) (seconds [2][]float64, err error) {
	var conns [2]net.Conn
	for i, to := range ways {
		if conns[i], err = (&net.Dialer{}).DialContext(ctx, "tcp4", to.String()); err != nil {
			return seconds, err
		}
		defer conns[i].Close()
	}
	chunk := make([]byte, 256<<10)
	return taken(ctx, vipBlocks, func(way int) error {
		for range vipBlock / len(chunk) {
			if _, err := conns[way].Write(chunk); err != nil {
				return err
			}
		}
		_, err := conns[way].Read(chunk[:1])
		return err
	})
}

// batchTimes makes connections that exchange a byte.
func batchTimes(ctx context.Context, ways []netip.AddrPort) (seconds [2][]float64, err error) {
	one := func(to string) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp4", to)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte{wantEcho}); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 1))
		return err
	}
	return taken(ctx, vipBatches, func(way int) error {
		for range vipBatch {
			if err := one(ways[way].String()); err != nil {
				return err
			}
		}
		return nil
	})
}

// wantEcho begins a short connection, 0 a stream.
const wantEcho = 'e'

// serveBytes listens in the namespace at path.
func serveBytes(path string) (closeAll func(), err error) {
	var listeners []net.Listener
	closeAll = func() {
		for _, l := range listeners {
			l.Close()
		}
	}
	err = within(path, func() error {
		for _, port := range []int{vipPort, directPort} {
			l, err := net.Listen("tcp4", fmt.Sprint(":", port))
			if err != nil {
				return err
			}
			listeners = append(listeners, l)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go answer(c)
				}
			}()
		}
		return nil
	})
	if err != nil {
		closeAll()
		return nil, err
	}
	return closeAll, nil
}

// answer ends when the client closes, who is always the first to do so.
func answer(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 1)
	if _, err := c.Read(buf); err != nil {
		return
	}
	if buf[0] == wantEcho {
		_, err := c.Write(buf)
		for err == nil {
			_, err = c.Read(buf)
		}
		return
	}
	buf = make([]byte, 256<<10)
	for left := vipBlock - 1; ; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if left -= n; left > 0 {
			continue
		}
		left += vipBlock
		if _, err := c.Write(buf[:1]); err != nil {
			return
		}
	}
}

// within runs f on a thread in the network namespace at path; sockets that f
// makes stay there.
func within(path string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open(path)
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", path, err)
			return
		}
		done <- f()
	}()
	return <-done
}
