package e2e_test

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
	"syscall"
	"testing"
	"time"

	"berth/testbed"
)

// commandLimit ends a command that hangs.
const commandLimit = 90 * time.Second

// machine is an agent of a test's own and the command line that talks to it.
// Like a user's, its agent is started by the first command.
type machine struct {
	dir, root, run, config string
	cgroups                string
}

// newMachine prepares a machine whose registry serves the fixture images.
// Settings are more lines of the agent's configuration. Nothing may be left of
// it when the test ends.
func newMachine(t *testing.T, settings ...string) *machine {
	t.Helper()
	testbed.CheckLeaks(t)
	mirror := "registries: {docker.io: {mirrors: [\"http://" + mirror(t) + "\"]}}"
	return bareMachine(t, t.TempDir(), append(settings, mirror)...)
}

// bareMachine is newMachine without a registry, and with its state below dir.
func bareMachine(t *testing.T, dir string, settings ...string) *machine {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: -short: real containers are started")
	}
	m := &machine{
		dir: dir, root: filepath.Join(dir, "root"), run: filepath.Join(dir, "run"),
		config: filepath.Join(t.TempDir(), "config.yaml"), cgroups: testbed.CgroupParent(t),
	}
	text := strings.Join(append(settings, "cgroup_parent: "+m.cgroups), "\n") + "\n"
	if err := os.WriteFile(m.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"agent.log", "dataplane.log"} {
				log, _ := os.ReadFile(filepath.Join(m.root, name)) // there may be none
				t.Logf("%s:\n%s", name, log)
			}
		}
		stop := exec.Command(program(t, "berthd"), "stop", "--root", m.root, "--run", m.run)
		if out, err := stop.CombinedOutput(); err != nil {
			t.Errorf("berthd stop: %v: %s", err, out)
		}
		// It ends by itself, but waits a while for an agent that comes back.
		for _, pid := range processes("dataplane", m.run) {
			kill(t, pid)
		}
	})
	return m
}

// result is what a command did.
type result struct {
	args     []string
	out, err string
	code     int
	took     time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("berth %s: exit %d after %s\n%s%s", strings.Join(r.args, " "), r.code, r.took.Round(time.Millisecond), r.out, r.err)
}

// berth runs a command to its end, whatever that is.
func (m *machine) berth(t *testing.T, args ...string) result {
	t.Helper()
	return m.feed(t, "", args...)
}

// feed is berth with text on stdin.
func (m *machine) feed(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	program(t, "berth") // to build it is not the command's time
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	return finish(t, m.command(ctx, t, stdin, args...), args)
}

// must is berth for what has to succeed; it returns stdout.
func (m *machine) must(t *testing.T, args ...string) string {
	t.Helper()
	r := m.berth(t, args...)
	if r.code != 0 {
		t.Fatal(r)
	}
	return r.out
}

func (m *machine) command(ctx context.Context, t *testing.T, stdin string, args ...string) *exec.Cmd {
	t.Helper()
	global := []string{"--root", m.root, "--run", m.run, "--config", m.config}
	cmd := exec.CommandContext(ctx, program(t, "berth"), append(global, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// finish runs cmd to its end.
func finish(t *testing.T, cmd *exec.Cmd, args []string) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	err := cmd.Run()
	r := result{args: args, out: out.String(), err: errs.String(), took: time.Since(begin)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%s%v", r, err)
	}
	return r
}

// started is a command that goes on while the test does something else.
type started struct {
	cmd  *exec.Cmd
	out  *growing
	errs *growing
	done chan struct{}
	code int
}

// begin starts a command. It is ended with the test, if it has not before.
func (m *machine) begin(t *testing.T, args ...string) *started {
	t.Helper()
	s := &started{cmd: m.command(context.Background(), t, "", args...), out: &growing{}, errs: &growing{}, done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.errs
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // its code says it all
		s.code = s.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it may have ended
		<-s.done
	})
	return s
}

// interrupt is Ctrl-C.
func (s *started) interrupt(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

// wait returns the exit code.
func (s *started) wait(t *testing.T, limit time.Duration) int {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(limit):
		t.Fatalf("%s still runs after %s:\n%s%s", s.cmd, limit, s.out, s.errs)
	}
	return s.code
}

// agentPid is the agent's process.
func (m *machine) agentPid(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.root, "agent.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// inventory is what a user sees of a machine: stacks, networks, volumes,
// containers. A command that fails must leave it as it was.
func (m *machine) inventory(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, args := range [][]string{{"ls", "-a"}, {"network", "ls"}, {"volume", "ls"}} {
		b.WriteString(m.must(t, append(args, "--format", "json")...))
	}
	for _, dir := range []string{filepath.Join(m.run, "c"), filepath.Join(m.root, "tasks")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b.WriteString(filepath.Join(dir, e.Name()) + "\n")
		}
	}
	return b.String()
}
