package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// dialers is how many threads a namespace has: as many connections can be
// under way at once.
const dialers = 16

// Namespace is a Dialer in another network namespace. A socket belongs for
// ever to the namespace of the thread that opened it: once it is open, anybody
// may use it.
type Namespace struct {
	do   chan func()
	once sync.Once
}

// OpenNamespace enters the network namespace that a file such as
// /proc/PID/ns/net stands for.
func OpenNamespace(path string) (*Namespace, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a network namespace: %w", err)
	}
	defer ns.Close()
	return newNamespace(func() error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) })
}

// NewNamespace makes a network namespace, as if it were another machine's. It
// is there as long as anything is in it; file stands for it, for links that are
// to be moved there.
func NewNamespace() (n *Namespace, file *os.File, err error) {
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever, as in newNamespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			file, err = os.Open("/proc/thread-self/ns/net")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		return nil, nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if n, err = newNamespace(func() error { return unix.Setns(int(file.Fd()), unix.CLONE_NEWNET) }); err != nil {
		file.Close()
		return nil, nil, err
	}
	return n, file, nil
}

// newNamespace starts threads that enter it. They are locked to their
// goroutines for ever, so they end with them and never serve another one.
func newNamespace(enter func() error) (*Namespace, error) {
	n := &Namespace{do: make(chan func())}
	entered := make(chan error)
	for range dialers {
		go func() {
			runtime.LockOSThread()
			err := enter()
			entered <- err
			if err != nil {
				return
			}
			for f := range n.do {
				f()
			}
		}()
	}
	var errs []error
	for range dialers {
		errs = append(errs, <-entered)
	}
	if err := errors.Join(errs...); err != nil {
		n.Close()
		return nil, fmt.Errorf("enter a network namespace: %w", err)
	}
	return n, nil
}

// Close ends the threads. Connections stay open.
func (n *Namespace) Close() { n.once.Do(func() { close(n.do) }) }

// Do runs f on a thread that is in the namespace.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error)
	n.do <- func() { done <- f() }
	return <-done
}

// DialContext is net.Dialer's. A host must be an address: names would be
// resolved elsewhere.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	done := make(chan struct{})
	dial := func() {
		defer close(done)
		c, err = new(net.Dialer).DialContext(ctx, network, address)
	}
	select {
	case n.do <- dial:
		<-done
		return c, err
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s: no thread was free: %w", address, ctx.Err())
	}
}
