package dataplane

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxProxied is how many connections one loopback port carries at a time;
	// more wait in the kernel's accept queue.
	maxProxied = 512
	// dialTimeout is what one backend gets before the next is tried.
	dialTimeout = 2 * time.Second
)

// proxy passes the connections of one [::1] port on. The backends change under
// it; connections under way stay.
type proxy struct {
	backends atomic.Pointer[[]netip.AddrPort]
	turn     atomic.Uint32
	slots    chan struct{}
}

func newProxy() *proxy {
	return &proxy{slots: make(chan struct{}, maxProxied)}
}

// serve accepts until the listener is closed, then waits for nobody: what is
// under way goes on until ctx is done.
func (p *proxy) serve(ctx context.Context, l net.Listener) {
	for {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			<-p.slots
			pause(ctx, 50*time.Millisecond) // out of descriptors, most likely
			continue
		}
		go func() {
			defer func() { <-p.slots }()
			p.pass(ctx, conn.(*net.TCPConn))
		}()
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (p *proxy) pass(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	backend := p.dial(ctx)
	if backend == nil {
		client.SetLinger(0) // a reset: the nearest to "connection refused"
		return
	}
	defer backend.Close()
	stop := context.AfterFunc(ctx, func() { client.Close(); backend.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { copyHalf(backend, client) })
	both.Go(func() { copyHalf(client, backend) })
	both.Wait()
}

// copyHalf copies one direction (spliced by the kernel) and closes that half
// only: an answer may still come after the question has ended.
func copyHalf(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		// One side is broken: the other must not wait for it.
		to.Close()
		from.Close()
		return
	}
	to.CloseWrite()
}

// dial tries each backend once, beginning with the next in turn.
func (p *proxy) dial(ctx context.Context) *net.TCPConn {
	list := p.backends.Load()
	if list == nil {
		return nil
	}
	n := len(*list)
	first := int(p.turn.Add(1))
	for i := range n {
		d := net.Dialer{Timeout: dialTimeout}
		conn, err := d.DialContext(ctx, "tcp", (*list)[(first+i)%n].String())
		if err == nil {
			return conn.(*net.TCPConn)
		}
	}
	return nil
}
