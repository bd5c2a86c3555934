package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// confined is the command line that runs args in mount and PID namespaces of
// their own: all that it starts or mounts ends with the process in front.
func confined(args ...string) []string {
	return append([]string{
		"unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
	}, args...)
}

// passed are the variables of the agent that builders get: where to find
// programs and credentials, and how to reach the network.
var passed = []string{
	"PATH", "HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
}

func environ(more ...string) []string {
	var out []string
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return append(out, more...)
}

// child is a process that dies with the agent.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of Wait, once done
}

// start starts args. The thread that starts a process must stay for as long as
// the process: the kernel sends Pdeathsig when that thread ends.
func start(dir string, args, env []string, stdout, stderr io.Writer) (*child, error) {
	c := &child{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})} //nolint:gosec,noctx // ended by stop
	c.cmd.Dir = dir
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = env, stdout, stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.cmd.WaitDelay = time.Second // for pipes that a grandchild holds
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return c, nil
}

// kill ends the process and, by its namespace, all that it started.
func (c *child) kill() {
	select {
	case <-c.done: // its pid may be somebody else's by now
	default:
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}

// run runs args in dir to the end. The end of ctx kills it, and all that it
// started if it is confined.
func run(ctx context.Context, dir string, args, env []string, out io.Writer) error {
	c, err := start(dir, args, env, out, out)
	if err != nil {
		return err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		c.kill()
		return context.Cause(ctx)
	}
	if errors.Is(c.err, exec.ErrWaitDelay) {
		return nil
	}
	return c.err
}

// lines calls f with each line that is written to it.
type lines struct {
	f    func(string)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := slices.Index(l.rest, '\n')
		if i < 0 {
			break
		}
		l.f(strings.TrimRight(string(l.rest[:i]), "\r"))
		l.rest = l.rest[i+1:]
	}
	if len(l.rest) > 1<<20 { // a line without an end
		l.f(string(l.rest))
		l.rest = nil
	}
	return len(p), nil
}

func (l *lines) flush() {
	if len(l.rest) > 0 {
		l.f(string(l.rest))
		l.rest = nil
	}
}

// tail keeps the last lines of a text.
type tail struct{ lines []string }

const tailLines = 20

func (t *tail) add(line string) {
	if len(t.lines) == tailLines {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, line)
}

func (t *tail) String() string { return strings.Join(t.lines, "\n") }
