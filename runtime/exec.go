package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Exec runs a further process in a running container and waits for it. The
// error is about the attempt (ErrNotRunning, ErrStart, the context's); a
// command that ran and failed is an exit code, 128+N for signal N.
//
// When ctx ends, the process and all that it started in its session are
// killed, inside the container too. Exec does not wait for a Read of e.Stdin
// that is under way when the process ends.
func (r *Runtime) Exec(ctx context.Context, id string, e Exec) (int, error) {
	t, err := r.running(id)
	if err != nil {
		return -1, err
	}
	p, err := r.execProcess(t, e)
	if err != nil {
		return -1, fmt.Errorf("exec in container %s: %w", id, err)
	}
	dir, err := os.MkdirTemp(t.bundle, "exec")
	if err != nil {
		return -1, fmt.Errorf("exec in container %s: %w", id, err)
	}
	defer os.RemoveAll(dir)
	b, err := json.Marshal(p)
	if err != nil {
		return -1, fmt.Errorf("exec in container %s: %w", id, err)
	}
	if err := os.WriteFile(inBundle(dir, "process.json"), b, 0o600); err != nil {
		return -1, fmt.Errorf("exec in container %s: %w", id, err)
	}
	x := &execRun{r: r, t: t, e: e, dir: dir}
	if t.rec.EnvFile != "" {
		if x.env, err = os.Open(t.rec.EnvFile); err != nil {
			return -1, fmt.Errorf("exec in container %s: %w", id, err)
		}
		defer x.env.Close()
	}
	return x.run(ctx)
}

// execProcess is the container's own process with another command. Its
// capabilities are those of the container also for root, unless Privileged.
func (r *Runtime) execProcess(t *task, e Exec) (*specs.Process, error) {
	p, err := t.spec()
	if err != nil {
		return nil, err
	}
	if len(e.Args) == 0 || e.Args[0] == "" {
		return nil, invalid("no command")
	}
	p.Args, p.Terminal = e.Args, e.TTY
	if t.rec.EnvFile != "" {
		p.Args = append([]string{envPath, envDescriptor, names(e.Env)}, e.Args...)
	}
	p.Env = environment(e.Env, p.Env)
	if e.TTY {
		p.Env = environment(p.Env, []string{"TERM=xterm"})
	}
	if e.WorkingDir != "" {
		p.Cwd = path.Clean("/" + e.WorkingDir)
		if within(p.Cwd, "/proc") || within(p.Cwd, "/dev/fd") {
			return nil, invalid("working directory %s is in /proc or /dev/fd", p.Cwd)
		}
	}
	if e.User != "" {
		root, err := openRootfs(t.rec.Rootfs)
		if err != nil {
			return nil, err
		}
		defer root.close()
		user, err := lookupUser(root, e.User, nil)
		if err != nil {
			return nil, err
		}
		umask := p.User.Umask
		p.User = user.oci()
		p.User.Umask = umask
		p.Env = environment([]string{"HOME=" + user.home}, p.Env)
		p.Env = environment(e.Env, p.Env)
	}
	if e.Privileged {
		all := r.specs.limits.caps
		p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
		p.NoNewPrivileges = false
	}
	p.ConsoleSize = nil
	return &p, nil
}

// envDescriptor is the number of Container.EnvFile in an exec: opened outside,
// since the user of an exec need not be its owner.
const envDescriptor = "3"

// names of variables, for initproc.EnvName to keep.
func names(env []string) string {
	out := make([]string, len(env))
	for i, e := range env {
		out[i], _, _ = strings.Cut(e, "=")
	}
	return strings.Join(out, ",")
}

// execRun is one exec under way.
type execRun struct {
	r   *Runtime
	t   *task
	e   Exec
	dir string
	env *os.File // Container.EnvFile, or nil
}

func (x *execRun) pidFile() string { return inBundle(x.dir, "pid") }
func (x *execRun) logFile() string { return inBundle(x.dir, "log") }

func (x *execRun) command() *exec.Cmd {
	args := []string{
		"--root=" + x.t.rec.RuntimeRoot, "--log-format=json", "--log=" + x.logFile(),
		"exec", "--process", inBundle(x.dir, "process.json"), "--pid-file", x.pidFile(),
	}
	if x.e.TTY {
		args = append(args, "--tty")
	}
	if x.env != nil {
		args = append(args, "--preserve-fds", "1")
	}
	cmd := exec.Command(x.t.rec.Runtime, append(args, x.t.id)...)
	if x.env != nil {
		cmd.ExtraFiles = []*os.File{x.env}
	}
	cmd.Env = []string{"PATH=" + hostPath}
	return cmd
}

func (x *execRun) run(ctx context.Context) (int, error) {
	cmd := x.command()
	var streams execStreams
	var err error
	if x.e.TTY {
		streams, err = ttyStreams(cmd, x.e, x.dir, filepath.Base(x.t.rec.Runtime) == "crun")
	} else {
		streams, err = pipeStreams(cmd, x.e)
	}
	if err != nil {
		return -1, fmt.Errorf("exec in container %s: %w", x.t.id, err)
	}
	defer streams.close()
	if err := cmd.Start(); err != nil {
		return -1, fmt.Errorf("%w: run %s: %w", ErrRuntimeMissing, x.t.rec.Runtime, err)
	}
	streams.begin()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		x.kill(cmd, done)
		streams.end()
		return -1, fmt.Errorf("exec in container %s: %w", x.t.id, ctx.Err())
	}
	streams.end()
	return x.result(cmd, err)
}

// result tells an exit code of the command from a failure of the runtime: only
// with a process of its own was there a command.
func (x *execRun) result(cmd *exec.Cmd, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return -1, fmt.Errorf("exec in container %s: %w", x.t.id, err)
	}
	code := cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	said := readHead(x.logFile())
	if code == 0 || lastMessage(said) == "" {
		return code, nil
	}
	if init, _ := x.t.handles(); !init.alive() || saysStopped(said) {
		return -1, fmt.Errorf("exec in container %s: %w", x.t.id, ErrNotRunning)
	}
	return -1, fmt.Errorf("exec in container %s: %w", x.t.id, startError(x.e.Args[0], said))
}

// kill ends the runtime's exec and what it had started. The runtime alone is
// not enough: its child lives on. The pid file may still be about to appear.
func (x *execRun) kill(cmd *exec.Cmd, done <-chan error) {
	deadline := time.Now().Add(2 * time.Second)
	for {
		if pid := readPid(x.pidFile()); pid > 0 {
			x.killSession(pid)
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
		select {
		case <-done:
			return
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			<-done
			return
		}
	}
}

// killSession kills a process of the container, its descendants and the rest of
// its session. Only what is in the container's cgroup is touched, so a pid
// that was reused outside is safe.
func (x *execRun) killSession(leader int) {
	for range 5 {
		victims := x.session(leader)
		if len(victims) == 0 {
			return
		}
		for _, pid := range victims {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func (x *execRun) session(leader int) []int {
	stats := map[int]procStat{}
	for _, pid := range x.r.cg.pids(x.r.cgroup(x.t.id)) {
		if s, err := readStat(pid); err == nil && !s.dead() {
			stats[pid] = s
		}
	}
	var out []int
	for pid, s := range stats {
		for at, hops := pid, 0; hops < 64; hops++ {
			if at == leader || s.session == leader {
				out = append(out, pid)
				break
			}
			parent, ok := stats[at]
			if !ok {
				break
			}
			at = parent.ppid
		}
	}
	slices.Sort(out)
	return out
}
