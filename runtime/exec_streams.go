package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// execStreams connect an exec's reader and writers to the runtime.
type execStreams interface {
	begin() // after the start
	end()   // after the exit: all output is written when it returns
	close()
}

// drainQuiet ends the reading of output once the command is gone: a child that
// it left in the background may hold the pipe for ever.
const drainQuiet = 100 * time.Millisecond

// copier copies what a process writes.
type copier struct {
	from *os.File
	to   io.Writer
	over chan struct{} // closed at the exit
	done chan struct{}
}

func newCopier(from *os.File, to io.Writer) *copier {
	if to == nil {
		to = io.Discard
	}
	return &copier{from: from, to: to, over: make(chan struct{}), done: make(chan struct{})}
}

// run reads on to the end of the pipe, or until nothing has come for a while
// after the exit. A writer that fails no longer gets anything, but the process
// must not block on it.
func (c *copier) run() {
	defer close(c.done)
	buf := make([]byte, 32<<10)
	for {
		after := false
		select {
		case <-c.over:
			after = true
			_ = c.from.SetReadDeadline(time.Now().Add(drainQuiet))
		default:
		}
		n, err := c.from.Read(buf)
		if n > 0 {
			if _, werr := c.to.Write(buf[:n]); werr != nil {
				c.to = io.Discard
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !after {
			continue // woken by the exit
		}
		if err != nil {
			return
		}
	}
}

func (c *copier) end() {
	close(c.over)
	_ = c.from.SetReadDeadline(time.Now())
	<-c.done
}

// pipes are the streams of an exec without a terminal.
type pipes struct {
	copiers []*copier
	files   []*os.File // the child's ends
	stdin   *os.File
	in      io.Reader
}

func pipeStreams(cmd *exec.Cmd, e Exec) (execStreams, error) {
	p := &pipes{in: e.Stdin}
	for _, o := range []struct {
		to   io.Writer
		file *io.Writer
	}{{e.Stdout, &cmd.Stdout}, {e.Stderr, &cmd.Stderr}} {
		r, w, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, fmt.Errorf("make a pipe: %w", err)
		}
		*o.file = w
		p.files = append(p.files, w)
		p.copiers = append(p.copiers, newCopier(r, o.to))
	}
	if e.Stdin != nil {
		r, w, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, fmt.Errorf("make a pipe: %w", err)
		}
		cmd.Stdin, p.stdin = r, w
		p.files = append(p.files, r)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return p, nil
}

func (p *pipes) begin() {
	for _, f := range p.files {
		f.Close()
	}
	for _, c := range p.copiers {
		go c.run()
	}
	if p.stdin != nil {
		go func() {
			_, _ = io.Copy(p.stdin, p.in)
			p.stdin.Close()
		}()
	}
}

func (p *pipes) end() {
	for _, c := range p.copiers {
		c.end()
	}
}

func (p *pipes) close() {
	for _, f := range p.files {
		f.Close()
	}
	for _, c := range p.copiers {
		c.from.Close()
	}
	if p.stdin != nil {
		p.stdin.Close()
	}
}

// terminal is the stream of an exec with one. crun hands us the terminal that
// it made inside the container. runc does so only when it does not wait for the
// command, so it gets a terminal of ours as its controlling one, and passes
// bytes and sizes on. (crun 1.8 does not pass sizes on.)
type terminal struct {
	master *os.File // nil until crun hands it over
	slave  *os.File // nil with a console
	wait   *console

	in       io.Reader
	out      io.Writer
	resize   <-chan WindowSize
	first    *WindowSize // known before the start
	stop     chan struct{}
	relaying sync.WaitGroup
}

func ttyStreams(cmd *exec.Cmd, e Exec, dir string, handsOver bool) (execStreams, error) {
	t := &terminal{in: e.Stdin, out: e.Stdout, resize: e.Resize, stop: make(chan struct{})}
	select { // the size that is known already, before the program looks
	case s, ok := <-e.Resize:
		if ok {
			t.first = &s
		}
	default:
	}
	if handsOver {
		var err error
		if t.wait, err = listenConsole(dir); err != nil {
			return nil, err
		}
		cmd.Args = addBeforeLast(cmd.Args, "--console-socket", t.wait.path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return t, nil
	}
	var err error
	if t.master, t.slave, err = openPTY(); err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	t.setSize(t.first)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.slave, t.slave, t.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	return t, nil
}

func addBeforeLast(args []string, more ...string) []string {
	last := len(args) - 1
	return append(append(slices.Clone(args[:last]), more...), args[last])
}

func (t *terminal) setSize(s *WindowSize) {
	if s == nil {
		return
	}
	c, err := t.master.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	})
}

func (t *terminal) begin() {
	if t.slave != nil {
		t.slave.Close()
	}
	t.relaying.Go(t.relay)
}

// relay works until the exit.
func (t *terminal) relay() {
	if t.wait != nil {
		master, err := t.wait.accept(t.stop)
		if err != nil {
			return // the runtime failed before, and says why in its log
		}
		t.master = master
		t.setSize(t.first)
	}
	c := newCopier(t.master, t.out)
	go c.run()
	defer c.end()
	if t.in != nil {
		go func() {
			_, _ = io.Copy(t.master, t.in)
			// End of transmission: the program's read returns 0 bytes.
			_, _ = t.master.Write([]byte{4})
		}()
	}
	resize := t.resize
	for {
		select {
		case <-t.stop:
			return
		case s, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			t.setSize(&s)
		}
	}
}

func (t *terminal) end() {
	close(t.stop)
	t.relaying.Wait()
}

func (t *terminal) close() {
	if t.wait != nil {
		t.wait.close()
	}
	if t.slave != nil {
		t.slave.Close()
	}
	if t.master != nil {
		t.master.Close()
	}
}

// openPTY makes a pseudo terminal; the master is non-blocking, for deadlines.
func openPTY() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, errors.Join(err, unix.Close(fd))
	}
	// By descriptor, not by name: /dev/pts may be another instance's here.
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, nil, errors.Join(errno, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "ptmx"), os.NewFile(s, "pts"), nil
}
