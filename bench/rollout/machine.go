package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/api"
	"berth/testbed"
)

// commandLimit ends a command that hangs.
const commandLimit = 5 * time.Minute

// machine is an agent of the bench's own and the command line that talks to it.
type machine struct {
	bin, dir, root, run string
	config, cgroups     string
	client              *api.Client
	agents              int // started so far
}

// newMachine starts an agent whose state is below dir and loads an image.
func newMachine(ctx context.Context, bin, dir, archive string) (*machine, error) {
	m := &machine{
		bin: bin, dir: dir, root: filepath.Join(dir, "root"), run: filepath.Join(dir, "run"),
		config:  filepath.Join(dir, "config.yaml"),
		cgroups: fmt.Sprintf("/berth-bench-%d-%s", os.Getpid(), filepath.Base(dir)),
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	if err := os.WriteFile(m.config, []byte("cgroup_parent: "+m.cgroups+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write the agent's configuration: %w", err)
	}
	m.client = api.NewClient(api.Socket(m.run))
	if _, err := m.start(ctx); err != nil {
		return nil, errors.Join(err, m.close())
	}
	if r := m.berth(ctx, "image", "load", "-i", archive); r.code != 0 {
		return nil, errors.Join(r, m.close())
	}
	return m, nil
}

// start starts an agent and says how long it took until the API answered.
func (m *machine) start(ctx context.Context) (time.Duration, error) {
	log, err := os.OpenFile(filepath.Join(m.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, fmt.Errorf("open the agent's log: %w", err)
	}
	defer log.Close()
	agent := exec.Command(filepath.Join(m.bin, "berthd"), "--root", m.root, "--run", m.run, "--config", m.config)
	agent.Stdout, agent.Stderr = log, log
	begin := time.Now()
	if err := agent.Start(); err != nil {
		return 0, fmt.Errorf("start the agent: %w", err)
	}
	m.agents++
	go agent.Wait() //nolint:errcheck // it is killed
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = poll(ctx, 5*time.Millisecond, func() error {
		_, err := m.client.Info(ctx)
		return err
	})
	if err != nil {
		text, _ := os.ReadFile(log.Name()) // what there is of it
		return 0, fmt.Errorf("agent %d does not answer: %w: its log ends with\n%s", m.agents, err, tail(string(text), 20))
	}
	return time.Since(begin), nil
}

// kill kills the agent and waits until it is gone.
func (m *machine) kill(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(m.root, "agent.pid"))
	if err != nil {
		return fmt.Errorf("find the agent: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("find the agent: its pid is %q", text)
	}
	return end(ctx, pid, unix.SIGKILL)
}

// close ends the agent, and the dataplane, which would outlive it for a while.
func (m *machine) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m.client.Close()
	var errs []error
	stop := exec.CommandContext(ctx, filepath.Join(m.bin, "berthd"), "stop", "--root", m.root, "--run", m.run)
	if out, err := stop.CombinedOutput(); err != nil {
		errs = append(errs, fmt.Errorf("berthd stop: %w: %s", err, out))
	}
	for _, pid := range m.dataplanes() {
		errs = append(errs, end(ctx, pid, unix.SIGTERM))
	}
	return errors.Join(append(errs, testbed.RemoveCgroup(m.cgroups))...)
}

// dataplanes finds the machine's own: its run folder is in their command line.
func (m *machine) dataplanes() []int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	var pids []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(text), "\x00")
		if len(args) > 1 && args[1] == "dataplane" && strings.Contains(string(text), m.run) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// end sends a signal and waits until the process is reaped: a zombie's threads
// may still hold its lock.
func end(ctx context.Context, pid int, sig unix.Signal) error {
	err := unix.Kill(pid, sig)
	if err == nil {
		err = poll(ctx, 2*time.Millisecond, func() error {
			if err := unix.Kill(pid, 0); err != nil {
				return nil //nolint:nilerr // gone
			}
			return errors.New("it lives")
		})
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end process %d: %w", pid, err)
	}
	return nil
}

// poll tries until try succeeds, or returns its last error.
func poll(ctx context.Context, every time.Duration, try func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// result is what a command did. It is an error, for those who want one.
type result struct {
	args       []string
	out        string // of both streams
	code       int
	begin, end time.Time
}

func (r result) Error() string {
	return fmt.Sprintf("berth %s: exit %d after %.1f s: %s", strings.Join(r.args, " "), r.code, r.end.Sub(r.begin).Seconds(), tail(r.out, 15))
}

// berth runs a command to its end; code -1 means that it could not be run.
func (m *machine) berth(ctx context.Context, args ...string) result { return m.feed(ctx, "", args...) }

// feed is berth with text on stdin.
func (m *machine) feed(ctx context.Context, stdin string, args ...string) result {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	global := []string{"--root", m.root, "--run", m.run, "--config", m.config}
	cmd := exec.CommandContext(ctx, filepath.Join(m.bin, "berth"), append(global, args...)...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	r := result{args: args, begin: time.Now()}
	err := cmd.Run()
	r.out, r.code, r.end = out.String(), cmd.ProcessState.ExitCode(), time.Now()
	if err != nil && r.code <= 0 {
		r.code, r.out = -1, err.Error()+": "+r.out
	}
	return r
}

// tail is the last n lines of a text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
