package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// attachBuffer is how far a viewer may fall behind.
const attachBuffer = 1 << 20

// conmon puts the stream's number in front of each packet.
const (
	packetSize   = 1 + 8192
	packetStdout = 2
	packetStderr = 3
)

// Streams join a viewer to a container. Nil fields are not joined.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan WindowSize
	// Attached is called once nothing that the container writes can be missed:
	// whoever starts it then sees all its output.
	Attached func()
}

// Attach copies a container's output from now on, and stdin to it if the
// container was made with Stdin. It returns when the container has ended (nil),
// when ctx has (its error), or when a writer fell behind (ErrSlowReader).
//
// conmon writes to all its clients in turn and waits for each; one that does
// not read would stop the container's own output. So the socket is always read,
// into a bounded buffer.
func (r *Runtime) Attach(ctx context.Context, id string, s Streams) error {
	t, err := r.need(id)
	if err != nil {
		return err
	}
	init, _ := t.handles()
	if !init.alive() {
		return fmt.Errorf("attach to container %s: %w", id, ErrNotRunning)
	}
	before := openSockets(t.rec.Conmon.Pid)
	conn, err := dialAttach(t.bundle)
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	if s.Stdin != nil && t.rec.Stdin {
		go sendStdin(conn, s.Stdin)
	}
	if s.Resize != nil {
		go t.resizeUntil(ctx, s.Resize)
	}
	q := newPacketQueue()
	go func() {
		err := readPackets(conn, q)
		// At once, not when the viewer returns from its write: nobody reads on.
		conn.Close()
		q.end(err)
	}()
	go func() {
		<-ctx.Done()
		q.end(context.Cause(ctx))
	}()
	if s.Attached != nil {
		awaitAccept(ctx, t.rec.Conmon.Pid, before)
		s.Attached()
	}
	if err := q.drain(s.Stdout, s.Stderr); err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	return nil
}

// dialAttach connects through a descriptor of the folder: a socket's path is
// at most 107 bytes.
func dialAttach(bundle string) (*net.UnixConn, error) {
	dir, err := unix.Open(bundle, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer closeFd(dir)
	name := "/proc/self/fd/" + strconv.Itoa(dir) + "/attach"
	return net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: name, Net: "unixpacket"})
}

// acceptPatience is how long conmon may take to accept a connection before it
// is believed to have.
const acceptPatience = time.Second

// awaitAccept returns when conmon has accepted a connection: until then it
// gives the output to its other clients only, and a kernel does not tell. It
// has a socket then that it had not before.
func awaitAccept(ctx context.Context, pid int, before map[string]bool) {
	for deadline := time.Now().Add(acceptPatience); ctx.Err() == nil && time.Now().Before(deadline); {
		sockets := openSockets(pid)
		if len(sockets) == 0 {
			return // it is gone
		}
		for s := range sockets {
			if !before[s] {
				return
			}
		}
		<-time.After(time.Millisecond)
	}
}

// openSockets are the sockets of a process, by what the kernel calls them. One
// that is attached to has the one that it listens at.
func openSockets(pid int) map[string]bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	out := map[string]bool{}
	for _, e := range entries {
		if target, err := os.Readlink(dir + "/" + e.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			out[target] = true
		}
	}
	return out
}

// sendStdin writes at most 8 KiB at a time: that is conmon's buffer.
func sendStdin(conn *net.UnixConn, stdin io.Reader) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{stdin}, make([]byte, 8<<10))
	_ = conn.CloseWrite()
}

func (t *task) resizeUntil(ctx context.Context, resize <-chan WindowSize) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-resize:
			if !ok || t.resize(s) != nil {
				return
			}
		}
	}
}

func readPackets(conn *net.UnixConn, q *packetQueue) error {
	buf := make([]byte, packetSize)
	for {
		n, err := conn.Read(buf)
		if n == 0 || err != nil {
			if n == 0 && err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return err
		}
		if !q.put(buf[0], buf[1:n]) {
			return ErrSlowReader
		}
	}
}

// packetQueue is the bounded buffer between the socket and a viewer.
type packetQueue struct {
	mu      sync.Mutex
	more    *sync.Cond
	packets []packet
	size    int
	ended   bool
	err     error
}

type packet struct {
	stream byte
	data   []byte
}

func newPacketQueue() *packetQueue {
	q := &packetQueue{}
	q.more = sync.NewCond(&q.mu)
	return q
}

// put is false if the buffer is full.
func (q *packetQueue) put(stream byte, data []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended || q.size+len(data) > attachBuffer {
		return q.ended
	}
	q.size += len(data)
	q.packets = append(q.packets, packet{stream, append([]byte(nil), data...)})
	q.more.Signal()
	return true
}

// end lets drain return once it has written what is queued; at once on an
// error. The first call counts.
func (q *packetQueue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ended {
		q.ended, q.err = true, err
	}
	q.more.Signal()
}

func (q *packetQueue) take() (p packet, ok bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.packets) == 0 && !q.ended {
		q.more.Wait()
	}
	if q.ended && q.err != nil {
		return packet{}, false, q.err
	}
	if len(q.packets) == 0 {
		return packet{}, false, nil
	}
	p = q.packets[0]
	q.packets = q.packets[1:]
	q.size -= len(p.data)
	return p, true, nil
}

func (q *packetQueue) drain(stdout, stderr io.Writer) error {
	for {
		p, ok, err := q.take()
		if err != nil || !ok {
			return err
		}
		w := stdout
		if p.stream == packetStderr {
			w = stderr
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(p.data); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
}
