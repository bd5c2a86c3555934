package runtime

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// consoleTimeout is how long a runtime may take to hand over a terminal.
const consoleTimeout = 20 * time.Second

// console is a socket on which a runtime hands over the master side of the
// terminal that it made inside the container.
type console struct {
	listener *net.UnixListener
	// path has at most 107 bytes, whatever the folder: it goes through a
	// descriptor of this process.
	path string
	dir  int
}

func listenConsole(dir string) (*console, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	path := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(fd) + "/console"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for the terminal: %w", err), unix.Close(fd))
	}
	return &console{listener: l, path: path, dir: fd}, nil
}

func (c *console) close() {
	c.listener.Close()
	closeFd(c.dir)
}

// accept waits for the terminal; stop ends the wait.
func (c *console) accept(stop <-chan struct{}) (*os.File, error) {
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case <-stop:
			_ = c.listener.SetDeadline(time.Unix(1, 0))
		case <-finished:
		}
	}()
	if err := c.listener.SetDeadline(time.Now().Add(consoleTimeout)); err != nil {
		return nil, err
	}
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(consoleTimeout)); err != nil {
		return nil, err
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.New("no descriptor in the runtime's message")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("no descriptor in the runtime's message")
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, errors.Join(err, unix.Close(fds[0]))
	}
	return os.NewFile(uintptr(fds[0]), "ptmx"), nil
}
