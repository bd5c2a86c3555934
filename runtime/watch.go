package runtime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watcher waits, on one thread, for exit files to appear and for processes to
// die. It decides nothing: it calls settle with the id, which looks again.
type watcher struct {
	epoll, inotify, wake int
	settle               func(id string)
	done                 chan struct{}

	mu   sync.Mutex
	pids map[int32]watchedPid
}

type watchedPid struct {
	id     string
	conmon bool
	fd     int
}

// exitGrace is how long conmon may take to write the exit file once the
// container's first process is dead: it drains the output first.
const exitGrace = 10 * time.Second

func newWatcher(dir string, settle func(string)) (*watcher, error) {
	w := &watcher{settle: settle, done: make(chan struct{}), pids: map[int32]watchedPid{}, epoll: -1, inotify: -1, wake: -1}
	if err := w.open(dir); err != nil {
		w.closeFds()
		return nil, fmt.Errorf("watch for exits in %s: %w", dir, err)
	}
	go w.loop()
	return w, nil
}

func (w *watcher) open(dir string) (err error) {
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if w.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return err
	}
	// conmon writes a temporary file and renames it.
	if _, err = unix.InotifyAddWatch(w.inotify, dir, unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE); err != nil {
		return err
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	for _, fd := range []int{w.inotify, w.wake} {
		if err = w.add(fd); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) add(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// follow reports the death of h once. It keeps a pidfd of its own, so that a
// handle may be closed at any time.
func (w *watcher) follow(id string, h *pidHandle, conmon bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	fd := -1
	if h.fd >= 0 {
		fd, _ = unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	h.mu.Unlock()
	if fd < 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epoll < 0 || w.add(fd) != nil {
		closeFd(fd)
		return
	}
	w.pids[int32(fd)] = watchedPid{id: id, conmon: conmon, fd: fd}
}

func (w *watcher) loop() {
	defer close(w.done)
	events := make([]unix.EpollEvent, 64)
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for i := range max(n, 0) {
			switch fd := events[i].Fd; int(fd) {
			case w.wake:
				return
			case w.inotify:
				for _, name := range w.names(buf) {
					w.settle(name)
				}
			default:
				w.pidGone(fd)
			}
		}
	}
}

func (w *watcher) pidGone(fd int32) {
	w.mu.Lock()
	p, ok := w.pids[fd]
	delete(w.pids, fd)
	w.mu.Unlock()
	if !ok {
		return
	}
	closeFd(p.fd) // also leaves the epoll set
	if p.conmon {
		w.settle(p.id)
		return
	}
	time.AfterFunc(exitGrace, func() { w.settle(p.id) })
}

// names reads what appeared in the folder. An overflow of the queue loses
// names; the pidfds of the conmons still report.
func (w *watcher) names(buf []byte) []string {
	var out []string
	n, err := unix.Read(w.inotify, buf)
	if err != nil {
		return nil
	}
	for off := 0; off+unix.SizeofInotifyEvent <= n; {
		size := int(binary.NativeEndian.Uint32(buf[off+12:]))
		start := off + unix.SizeofInotifyEvent
		if start+size > n {
			break
		}
		name := string(bytes.TrimRight(buf[start:start+size], "\x00"))
		if idForm.MatchString(name) {
			out = append(out, name)
		}
		off = start + size
	}
	return out
}

func (w *watcher) close() error {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := unix.Write(w.wake, one[:]); err != nil {
		return fmt.Errorf("stop watching: %w", err)
	}
	<-w.done
	w.closeFds()
	return nil
}

func (w *watcher) closeFds() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for fd := range w.pids {
		closeFd(int(fd))
	}
	clear(w.pids)
	for _, fd := range []*int{&w.epoll, &w.inotify, &w.wake} {
		if *fd >= 0 {
			closeFd(*fd)
		}
		*fd = -1
	}
}
