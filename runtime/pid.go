package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// procID names a process beyond the reuse of its pid: the start time, in
// clock ticks since boot, differs for whoever gets the pid next.
type procID struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// procStat is what is read of /proc/PID/stat.
type procStat struct {
	state         byte
	ppid, session int
	start         uint64
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(b)
}

// parseStat cuts at the last parenthesis: a process chooses its own name, and
// may put spaces and parentheses in it.
func parseStat(b []byte) (procStat, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, errors.New("no process name in stat")
	}
	f := bytes.Fields(b[i+1:])
	// proc(5) counts from 1 and the state is field 3: f[0].
	if len(f) < 20 {
		return procStat{}, errors.New("stat is too short")
	}
	var s procStat
	var errs [3]error
	s.state = f[0][0]
	s.ppid, errs[0] = strconv.Atoi(string(f[1]))
	s.session, errs[1] = strconv.Atoi(string(f[3]))
	s.start, errs[2] = strconv.ParseUint(string(f[19]), 10, 64)
	return s, errors.Join(errs[:]...)
}

// dead: a zombie runs nothing any more.
func (s procStat) dead() bool { return s.state == 'Z' || s.state == 'X' }

// identify returns the identity of a process that is there now, or a zero one.
func identify(pid int) procID {
	s, err := readStat(pid)
	if err != nil {
		return procID{}
	}
	return procID{Pid: pid, Start: s.start}
}

// gone says whether a process is certainly not there any more. What can't be
// told (no descriptor is free, say) is not gone: a container whose conmon is
// taken for dead is killed.
func (p procID) gone() bool {
	s, err := readStat(p.Pid)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	return s.start != p.Start || s.dead()
}

// pidHandle is a pidfd: signals through it cannot reach another process.
type pidHandle struct {
	procID
	mu sync.Mutex
	fd int // -1 if none could be had, or after close: then /proc is asked
}

// openPid returns nil if that very process is gone.
func openPid(p procID) *pidHandle {
	if p.Pid <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		fd = -1
	}
	// After the pidfd was made: the pid may have been reused before, not since.
	if p.gone() {
		if fd >= 0 {
			closeFd(fd)
		}
		return nil
	}
	return &pidHandle{procID: p, fd: fd}
}

func (h *pidHandle) close() {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd >= 0 {
		closeFd(h.fd)
	}
	h.fd = -1
}

// alive is false for a zombie.
func (h *pidHandle) alive() bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return !h.gone()
	}
	p := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		// A signal to this thread (Go sends them to itself) ends even a poll that
		// does not wait. To take that for a death would kill the container.
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n == 0
		}
	}
}

// signal returns ErrNotRunning if the process is gone.
func (h *pidHandle) signal(s Signal) error {
	if h == nil {
		return ErrNotRunning
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var err error
	switch {
	case h.fd >= 0:
		err = unix.PidfdSendSignal(h.fd, s, nil, 0)
	case h.gone():
		return ErrNotRunning
	default:
		err = unix.Kill(h.Pid, s)
	}
	if errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	}
	return err
}

// closeFd closes a descriptor to which nothing was written: there is nothing
// that its error could tell.
func closeFd(fd int) { _ = unix.Close(fd) }
