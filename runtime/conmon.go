package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/crash"
)

// syncTimeout is how long conmon and the OCI runtime together may take to
// create a container. Generous: a loaded machine is no reason to give up.
const syncTimeout = 60 * time.Second

// findConmon checks the given path, or looks where distributions put it.
func findConmon(path string) (string, error) {
	if path != "" {
		if err := unix.Access(path, unix.X_OK); err != nil {
			return "", fmt.Errorf("%w: conmon at %s: %w", ErrRuntimeMissing, path, err)
		}
		return filepath.Abs(path)
	}
	if p, err := exec.LookPath("conmon"); err == nil {
		return filepath.Abs(p)
	}
	for _, p := range []string{"/usr/libexec/podman/conmon", "/usr/libexec/conmon", "/usr/lib/podman/conmon", "/usr/lib/conmon"} {
		if unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: conmon is not installed", ErrRuntimeMissing)
}

// conmonArgs is the command line for conmon 2.1.6 and newer. The order of its
// parts is of no importance to it.
func (r *Runtime) conmonArgs(t *task, c Container) []string {
	args := []string{
		"--api-version", "1", "-c", c.ID, "-u", c.ID, "-n", logName(c),
		"-r", t.rec.Runtime, "-b", t.bundle, "--persist-dir", t.bundle,
		"-p", inBundle(t.bundle, "pidfile"), "-P", inBundle(t.bundle, "conmon.pid"),
		"--exit-dir", r.exitDir(), "--full-attach",
		"-l", logDriver(r.LogPath(c.ID), c), "--no-sync-log", "--log-level", "error",
		// No --log-size-max: conmon 2.1.6 counts on through a reopen, and at the
		// limit throws the current file away.
		"--runtime-arg", "--root=" + t.rec.RuntimeRoot,
		"--runtime-arg", "--log-format=json",
		"--runtime-arg", "--log=" + inBundle(t.bundle, "runtime.log"),
	}
	if c.Stdin {
		args = append(args, "-i")
		if !c.StdinOnce {
			args = append(args, "--leave-stdin-open")
		}
	}
	if c.TTY {
		args = append(args, "-t")
	}
	return args
}

func logDriver(path string, c Container) string {
	if c.NoLog {
		return "none"
	}
	return "k8s-file:" + path
}

func logName(c Container) string {
	if c.Name == "" || strings.ContainsAny(c.Name, "\x00\n/") || strings.HasPrefix(c.Name, "-") {
		return c.ID
	}
	return c.Name
}

// runConmon starts a conmon, which creates the container, and returns the pid
// of the container's first process. On an error there may be a conmon and a
// container left: see discard.
//
// The steps are those conmon expects of its parent: it waits on the start pipe
// (so that it can be put into a cgroup first), forks twice, and reports on the
// sync pipe. The sync pipe is kept open until it has reported: 2.1.6 dies of
// EPIPE else.
func (r *Runtime) runConmon(ctx context.Context, t *task, c Container) (int, error) {
	sync, syncChild, err := seqpacket("sync")
	if err != nil {
		return 0, err
	}
	defer sync.Close()
	defer syncChild.Close()
	start, startChild, err := seqpacket("start")
	if err != nil {
		return 0, err
	}
	defer start.Close()
	defer startChild.Close()

	cmd := exec.Command(r.conmon, r.conmonArgs(t, c)...)
	cmd.Dir = t.bundle
	cmd.ExtraFiles = []*os.File{syncChild, startChild}
	// Nothing of the agent's environment: neither NOTIFY_SOCKET nor secrets.
	cmd.Env = []string{"_OCI_SYNCPIPE=3", "_OCI_STARTPIPE=4", "PATH=" + hostPath}
	// Its own process group: Ctrl-C in the agent's terminal is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.nest.dir != nil {
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(r.nest.dir.Fd())
	}
	stderr, err := os.OpenFile(inBundle(t.bundle, "conmon.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, fmt.Errorf("open conmon's own log: %w", err)
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w: run %s: %w", ErrRuntimeMissing, r.conmon, err)
	}
	syncChild.Close()
	startChild.Close()
	if r.nest.v1 != "" {
		_ = os.WriteFile(r.nest.v1, []byte(strconv.Itoa(cmd.Process.Pid)), 0)
	}
	crash.At("conmon.begun")
	_, werr := start.Write([]byte{0})
	start.Close()
	if err := errors.Join(cmd.Wait(), werr); err != nil {
		return 0, fmt.Errorf("conmon failed: %w: %s", err, lastMessage(readHead(inBundle(t.bundle, "conmon.log"))))
	}
	crash.At("conmon.creating")
	return readSync(ctx, sync, t, c)
}

// hostPath is the PATH of conmon and the runtimes.
const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// readSync waits for conmon's word: {"data": PID}, or a negative number and
// the runtime's message.
func readSync(ctx context.Context, sync *os.File, t *task, c Container) (int, error) {
	deadline := time.Now().Add(syncTimeout)
	if err := sync.SetReadDeadline(deadline); err != nil {
		return 0, fmt.Errorf("wait for conmon: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = sync.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	n, err := sync.Read(buf)
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("create container %s: %w", c.ID, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, fmt.Errorf("create container %s: the runtime did not answer within %v", c.ID, syncTimeout)
	}
	var report struct {
		Data    int
		Message string
	}
	if jerr := json.Unmarshal(bytes.TrimSpace(buf[:max(n, 0)]), &report); jerr != nil || report.Data <= 0 {
		text := report.Message + "\n" + readHead(inBundle(t.bundle, "runtime.log"))
		if lastMessage(text) == "" {
			text = readHead(inBundle(t.bundle, "conmon.log"))
		}
		return 0, startError(c.Args[0], text)
	}
	return report.Data, nil
}

// readHead reads at most 64 KiB of a file; what it cannot read is empty.
func readHead(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	n, _ := f.Read(buf)
	return string(buf[:max(n, 0)])
}

// seqpacket makes a socket pair; conmon relies on message boundaries.
func seqpacket(name string) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make conmon's %s pipe: %w", name, err)
	}
	// Non-blocking on our side only, for deadlines.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make conmon's %s pipe: %w", name, err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// control writes a line to conmon's ctl fifo. Without a reader (conmon is
// gone, or has not opened it yet) it tries again for a while.
func (t *task) control(line string) error {
	path := inBundle(t.bundle, "ctl")
	deadline := time.Now().Add(2 * time.Second)
	for {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(fd, []byte(line))
			closeFd(fd)
			if err != nil {
				return fmt.Errorf("tell conmon of %s: %w", t.id, err)
			}
			return nil
		}
		_, conmon := t.handles()
		if !errors.Is(err, unix.ENXIO) || !conmon.alive() || time.Now().After(deadline) {
			return fmt.Errorf("tell conmon of %s: %w", t.id, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// resize tells conmon the size of the terminal.
func (t *task) resize(s WindowSize) error {
	return t.control(fmt.Sprintf("1 %d %d\n", s.Rows, s.Cols))
}
