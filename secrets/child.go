package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// child is a program that is run for what it prints. It gets no more of the
// agent than it is given here, and nothing that it starts outlives it.
type child struct {
	program string
	args    []string
	env     []string // beside PATH
	stdin   []byte
	limit   int // of stdout, in bytes
	timeout time.Duration
	offline bool // it gets a network of its own, with nothing in it
}

// Why a child gave nothing.
type childEnd int

const (
	childStart childEnd = iota
	childExit
	childSignal
	childTimeout
	childTooMuch
)

// childError says why. Its text has the first lines of stderr, but nothing of
// stdout.
type childError struct {
	why    childEnd
	code   int
	text   string // of a start that failed, or the signal
	stderr string
}

func (e *childError) Error() string {
	var what string
	switch e.why {
	case childStart:
		return "could not be started: " + e.text
	case childExit:
		what = fmt.Sprintf("failed with exit code %d", e.code)
	case childSignal:
		what = "was ended by " + e.text
	case childTimeout:
		what = "did not end in time"
	case childTooMuch:
		what = "printed too much"
	}
	if e.stderr != "" {
		what += ": " + e.stderr
	}
	return what
}

// groupPatience is how long a child's descendants may hold its output open
// that have left its process group.
const groupPatience = time.Second

// run starts the program and waits for its end, or ends it.
func (c *child) run(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errChildTimeout)
	defer cancel()
	tooMuch, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stdout, stderr := &bounded{max: c.limit, full: func() { stop(errChildTooMuch) }}, &bounded{max: 16 << 10}
	cmd := exec.Command(c.program, c.args...) //nolint:gosec,noctx // a program of the host; run ends it with its whole group
	cmd.Dir = "/"
	cmd.Env = slices.Concat(childEnv(), c.env)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if c.stdin != nil {
		cmd.Stdin = bytes.NewReader(c.stdin)
	}
	cmd.WaitDelay = groupPatience
	// A killed agent takes it along. The kernel means the thread that has started
	// it, so that one must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.offline {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	}
	if err := cmd.Start(); err != nil {
		return nil, &childError{why: childStart, text: startProblem(err)}
	}
	pid := cmd.Process.Pid
	// What it has in memory shall not get into a core file.
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) // it may have ended
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			// It stays a zombie, so that its group's number is nobody else's.
			err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-tooMuch.Done():
	}
	cause := context.Cause(tooMuch)
	_ = unix.Kill(-pid, unix.SIGKILL) // all may have ended
	<-ended
	err := cmd.Wait()
	said := firstLines(stderr.kept, stdout.kept)
	var exit *exec.ExitError
	switch {
	case stdout.over: // also when it ended at once
		return nil, &childError{why: childTooMuch}
	case errors.Is(cause, errChildTimeout):
		return nil, &childError{why: childTimeout, stderr: said}
	case cause != nil:
		return nil, cause
	case errors.As(err, &exit):
		if status, _ := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			return nil, &childError{why: childSignal, text: unix.SignalName(status.Signal()), stderr: said}
		}
		return nil, &childError{why: childExit, code: exit.ExitCode(), stderr: said}
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return nil, &childError{why: childStart, text: startProblem(err)}
	}
	return stdout.kept, nil
}

var (
	errChildTimeout = errors.New("it took too long")
	errChildTooMuch = errors.New("it printed too much")
)

// startProblem is the kernel's reason, without the path.
func startProblem(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// bounded keeps the first max bytes.
type bounded struct {
	kept []byte // no bytes.Buffer inside: its ReadFrom knows no bound
	max  int
	full func()
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.max-len(b.kept))
	b.kept = append(b.kept, p[:n]...)
	if n < len(p) {
		b.over = true
		if b.full != nil {
			b.full()
		}
	}
	return len(p), nil
}

// identityForm is how age writes identities.
var identityForm = regexp.MustCompile(`(?i)AGE-SECRET-KEY-[0-9A-Z-]+`)

// Of stderr an error shows this much.
const (
	shownLines = 3
	shownLine  = 200
)

// firstLines are the first lines of stderr as one, without what was also
// printed as value.
func firstLines(stderr, stdout []byte) string {
	text := strings.ToValidUTF8(string(stderr), "?")
	values := append(strings.Split(string(stdout), "\n"), string(stdout))
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	for _, v := range values {
		if v = strings.TrimSpace(v); len(v) >= 4 {
			text = strings.ReplaceAll(text, v, "***")
		}
	}
	text = identityForm.ReplaceAllString(text, "***")
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' '
			}
			return r
		}, line))
		if line == "" {
			continue
		}
		if runes := []rune(line); len(runes) > shownLine {
			line = string(runes[:shownLine]) + "…"
		}
		if out = append(out, line); len(out) == shownLines {
			break
		}
	}
	return strings.Join(out, "; ")
}
