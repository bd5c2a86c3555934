package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"berth/api"
)

// AgentProgram is the name of the agent's program.
const AgentProgram = "berthd"

// ErrNeedsRoot says that an agent is to be started by somebody who may not.
var ErrNeedsRoot = errors.New("no agent is running, and starting one needs root")

// Limits of StartAgent: how often the socket is tried, and how long at most.
const (
	startPoll  = 10 * time.Millisecond
	startLimit = 10 * time.Second
)

// AgentOptions say which agent to start.
type AgentOptions struct {
	Program string // path of berthd
	Root    string
	Run     string
	Config  string // "": berthd's own default
}

// Args are the program's arguments.
func (o AgentOptions) Args() []string {
	args := []string{"--root", o.Root, "--run", o.Run}
	if o.Config != "" {
		args = append(args, "--config", o.Config)
	}
	return args
}

// StartedAgent is an agent that StartAgent started.
type StartedAgent struct {
	Pid int
	Log string // path of its log file
}

// FindAgentProgram finds berthd beside the running program, then in PATH.
func FindAgentProgram() (string, error) {
	if self, err := os.Executable(); err == nil {
		for _, path := range []string{self, resolved(self)} {
			beside := filepath.Join(filepath.Dir(path), AgentProgram)
			if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return beside, nil
			}
		}
	}
	path, err := exec.LookPath(AgentProgram)
	if err != nil {
		return "", fmt.Errorf("find %s, the agent: neither beside this program nor in PATH: %w", AgentProgram, err)
	}
	return path, nil
}

func resolved(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// StartAgent starts an agent in a session of its own, so that it outlives the
// caller and its terminal, and returns once it answers. If another agent took
// the socket meanwhile, that one answering is success as well. An agent that
// ends before it answers is an error that tells the last line of its log.
func StartAgent(ctx context.Context, o AgentOptions) (StartedAgent, error) {
	if os.Geteuid() != 0 {
		return StartedAgent{}, ErrNeedsRoot
	}
	started := StartedAgent{Log: filepath.Join(o.Root, "agent.log")}
	if err := os.MkdirAll(o.Root, 0o711); err != nil { //nolint:gosec // tasks of other users walk through it
		return started, fmt.Errorf("create the agent's folder: %w", err)
	}
	log, err := os.OpenFile(started.Log, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o640)
	if err != nil {
		return started, fmt.Errorf("open the agent's log: %w", err)
	}
	defer log.Close()
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return started, fmt.Errorf("find the end of the agent's log: %w", err)
	}

	cmd := exec.Command(o.Program, o.Args()...) //nolint:gosec,noctx // it must outlive ctx
	cmd.Dir = "/"
	cmd.Env = agentEnviron(os.Environ())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return started, fmt.Errorf("start the agent: %w", err)
	}
	started.Pid = cmd.Process.Pid
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	if err := awaitAgent(ctx, o, exited); err != nil {
		if line := lastLine(log, begin); line != "" {
			err = fmt.Errorf("%w: %s", err, Escape(line))
		}
		return started, fmt.Errorf("start the agent: %w (log: %s)", err, started.Log)
	}
	return started, nil
}

// inherited are the variables that an agent or the programs that it starts
// read, and prefixes of such: of Go, of TLS and proxies, of the credential
// helpers of registries.
var (
	inherited = []string{
		"PATH", "HOME", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
		"DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR", "BUILDKIT_HOST",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
		"GOTRACEBACK", "GODEBUG", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GOCOVERDIR",
	}
	inheritedPrefixes = []string{"BERTH_", "AWS_", "AZURE_", "GOOGLE_"}
)

// agentEnviron is what an agent inherits from the user who starts it. All else,
// with the variables that secrets come from, is of no use to it.
func agentEnviron(all []string) (out []string) {
	for _, entry := range all {
		name, _, _ := strings.Cut(entry, "=")
		if slices.Contains(inherited, name) || slices.Contains(inherited, strings.ToUpper(name)) && strings.HasSuffix(name, "_proxy") ||
			slices.ContainsFunc(inheritedPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			out = append(out, entry)
		}
	}
	return out
}

// awaitAgent returns once somebody answers on the socket. exited tells how the
// agent that was started ended; if it lost to another one that is starting,
// that one is waited for.
func awaitAgent(ctx context.Context, o AgentOptions, exited <-chan error) error {
	socket := api.Socket(o.Run)
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("%s does not answer after %s", socket, startLimit))
	defer cancel()
	client := api.NewClient(socket)
	defer client.Close()
	ticker := time.NewTicker(startPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-exited:
			if _, answered := client.Info(ctx); answered == nil {
				return nil
			}
			if held(filepath.Join(o.Root, "agent.lock")) {
				exited = nil
				continue
			}
			if err == nil {
				return errors.New("it ended at once")
			}
			return fmt.Errorf("it ended: %w", err)
		case <-ticker.C:
			if _, err := client.Info(ctx); err == nil {
				return nil
			}
		}
	}
}

// held says that a process has the lock file.
func held(path string) bool {
	lock := flock.New(path)
	defer lock.Close()
	free, err := lock.TryLock()
	return err == nil && !free
}

// maxLastLine bounds how much of a log's end is looked at.
const maxLastLine = 4 << 10

// lastLine is the last line of the log that was written after begin.
func lastLine(log *os.File, begin int64) string {
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil || end <= begin {
		return ""
	}
	begin = max(begin, end-maxLastLine)
	text := make([]byte, end-begin)
	if _, err := log.ReadAt(text, begin); err != nil {
		return ""
	}
	text = bytes.TrimRight(text, "\n")
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
