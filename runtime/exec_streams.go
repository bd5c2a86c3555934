package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
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

// terminal is the stream of an exec with one. The runtime gets a terminal of
// ours as its controlling one and passes bytes and sizes on to that inside.
type terminal struct {
	master, slave *os.File
	copier        *copier
	in            io.Reader
	resize        <-chan WindowSize
	stop          chan struct{}
	resizing      sync.WaitGroup
}

func ttyStreams(cmd *exec.Cmd, e Exec) (execStreams, error) {
	master, slave, err := openPTY()
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	t := &terminal{
		master: master, slave: slave, in: e.Stdin, resize: e.Resize, stop: make(chan struct{}),
		copier: newCopier(master, e.Stdout),
	}
	select { // the size that is known already, before the program looks
	case s, ok := <-e.Resize:
		if ok {
			t.setSize(s)
		}
	default:
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	return t, nil
}

func (t *terminal) setSize(s WindowSize) {
	c, err := t.master.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	})
}

func (t *terminal) begin() {
	t.slave.Close()
	go t.copier.run()
	if t.in != nil {
		go func() {
			_, _ = io.Copy(t.master, t.in)
			// End of transmission: the program's read returns 0 bytes.
			_, _ = t.master.Write([]byte{4})
		}()
	}
	if t.resize == nil {
		return
	}
	t.resizing.Go(func() {
		for {
			select {
			case <-t.stop:
				return
			case s, ok := <-t.resize:
				if !ok {
					return
				}
				t.setSize(s)
			}
		}
	})
}

func (t *terminal) end() {
	close(t.stop)
	t.resizing.Wait()
	t.copier.end()
}

func (t *terminal) close() {
	t.slave.Close()
	t.master.Close()
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
