package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/testbed"
)

const talks = `
services:
  talker:
    image: busybox
    command: sh -c 'i=0; while [ $$i -lt 5 ]; do echo line $$i; i=$$((i+1)); sleep 0.02; done; exec sleep 1000'
    stop_signal: KILL
    volumes: ["kept:/kept"]
  other:
    image: busybox
    command: sh -c 'sleep 0.05; echo from the other; echo an error >&2; exec sleep 1000'
    stop_signal: KILL
volumes:
  kept: {}
`

// TestCLI_DailyLoop is what people type all day, on one stack.
func TestCLI_DailyLoop(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "talks", talks)
	s.up(t)
	eventually(t, 10*time.Second, func() error { return contains(s.must(t, "logs"), "line 4", "an error") })

	t.Run("logs", func(t *testing.T) {
		lines := strings.Split(strings.TrimSpace(s.must(t, "logs", "--tail", "2", "--timestamps")), "\n")
		if len(lines) != 4 {
			t.Errorf("two lines of each of two containers are\n%s", strings.Join(lines, "\n"))
		}
		var stamps []string
		for _, line := range lines {
			_, rest, _ := strings.Cut(line, "|")
			stamp, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			stamps = append(stamps, stamp)
		}
		if !slices.IsSorted(stamps) || stamps[0] == "" {
			t.Errorf("not in the order of time:\n%s", strings.Join(lines, "\n"))
		}
		if out := s.must(t, "logs", "--since", "1s", "--until", "0s", "other", "--no-log-prefix"); strings.Contains(out, "line") {
			t.Errorf("the logs of other are\n%s", out)
		}
		if out := s.must(t, "logs", "--since", "2030-01-01T00:00:00Z"); out != "" {
			t.Errorf("the logs of the future are\n%s", out)
		}
		var e api.LogEntry
		first, _, _ := strings.Cut(s.must(t, "logs", "--format", "json", "--tail", "1", "other"), "\n")
		if err := json.Unmarshal([]byte(first), &e); err != nil || e.Stream != "stderr" || e.Text != "an error" || e.Service != "other" {
			t.Errorf("%v: %s", err, first)
		}
	})

	t.Run("logs -f across a restart", func(t *testing.T) {
		follow := s.begin(t, "logs", "-f", "talker")
		eventually(t, 5*time.Second, func() error { return contains(follow.out.String(), "line 4") })
		before := s.only(t, "talker").ID
		s.must(t, "restart", "talker")
		if now := s.only(t, "talker"); now.State != api.TaskRunning || now.ID == before {
			t.Errorf("after a restart: %+v", now)
		}
		eventually(t, 10*time.Second, func() error {
			if n := strings.Count(follow.out.String(), "line 4"); n != 2 {
				return fmt.Errorf("the last line came %d times:\n%s", n, follow.out)
			}
			return nil
		})
		follow.interrupt(t)
		if code := follow.wait(t, 5*time.Second); code != 130 && code != 0 {
			t.Errorf("logs -f exits %d on Ctrl-C: %s", code, follow.errs)
		}
	})

	t.Run("exec", func(t *testing.T) {
		r := m.feed(t, "typed\n", "-f", s.file, "exec", "-T", "-e", "A=b", "-w", "/tmp", "-u", "1:2", "talker", "sh", "-c", "cat; echo $A $(pwd) $(id -u):$(id -g); echo wrong >&2; exit 42")
		if r.code != 42 || r.out != "typed\nb /tmp 1:2\n" || r.err != "wrong\n" {
			t.Errorf("exec: %s", r)
		}
		if r := s.berth(t, "exec", "talker", "nosuch"); r.code != 127 && r.code != 1 || len(r.err) == 0 {
			t.Errorf("exec of what is not there: %s", r)
		}
		if r := s.berth(t, "exec", "nobody", "true"); r.code != 1 || !strings.Contains(r.err, "no such service") {
			t.Errorf("exec in a service that is not there: %s", r)
		}
	})

	t.Run("stop and start", func(t *testing.T) {
		before := s.only(t, "talker").ID
		s.must(t, "stop", "talker")
		if c := s.only(t, "talker"); c.State != api.TaskExited || c.ExitCode != 137 {
			t.Errorf("stopped: %+v", c)
		}
		// It stays down, whatever happens.
		kill(t, m.agentPid(t))
		if c := s.only(t, "talker"); c.State != api.TaskExited || c.ID != before {
			t.Errorf("stopped, with another agent: %+v", c)
		}
		s.must(t, "start")
		if c := s.only(t, "talker"); c.State != api.TaskRunning {
			t.Errorf("started: %+v", c)
		}
	})

	t.Run("kill", func(t *testing.T) {
		before := s.only(t, "other").ID
		s.must(t, "kill", "-s", "TERM", "other") // an ignored signal: pid 1
		if c := s.only(t, "other"); c.State != api.TaskRunning || c.ID != before {
			t.Errorf("after a signal: %+v", c)
		}
		s.must(t, "kill", "other")
		s.awaitOnly(t, "other", 5*time.Second, func(c container) bool { return c.State == api.TaskExited && c.ExitCode == 137 })
	})

	t.Run("rm", func(t *testing.T) {
		s.must(t, "rm", "-f", "other")
		if list := s.ps(t, "other"); len(list) != 0 {
			t.Errorf("after rm: %+v", list)
		}
		if c := s.only(t, "talker"); c.State != api.TaskRunning {
			t.Errorf("rm -f touched what runs: %+v", c)
		}
		s.up(t)
		if c := s.only(t, "other"); c.State != api.TaskRunning {
			t.Errorf("up after rm: %+v", c)
		}
	})

	t.Run("ls and ps", func(t *testing.T) {
		var stacks []struct {
			Name, Status, ConfigFiles string
			Revision                  int
		}
		text := m.must(t, "ls", "--format", "json")
		if err := json.Unmarshal([]byte(text), &stacks); err != nil || len(stacks) != 1 ||
			stacks[0].Name != "talks" || stacks[0].Status != "running(2)" || stacks[0].ConfigFiles != s.file {
			t.Errorf("%v: %s", err, text)
		}
		var row map[string]any
		if err := json.Unmarshal([]byte(s.must(t, "ps", "--format", "json", "other")), &row); err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"ID", "Name", "Service", "Image", "Command", "State", "Status", "Health", "ExitCode", "Project", "Publishers", "Ready", "Restarts", "Revision"} {
			if _, ok := row[field]; !ok {
				t.Errorf("ps --format json has no %s: %v", field, row)
			}
		}
		if ids := strings.Fields(s.must(t, "ps", "-q")); len(ids) != 2 {
			t.Errorf("ps -q: %v", ids)
		}
	})

	t.Run("stats and events", func(t *testing.T) {
		if out := s.must(t, "stats", "--no-stream"); contains(out, "talks-talker-1", "talks-other-1") != nil {
			t.Errorf("stats: %s", out)
		}
		list := s.events(t)
		at(t, list, "other", "start")
	})

	t.Run("down keeps volumes", func(t *testing.T) {
		s.must(t, "exec", "talker", "sh", "-c", "echo still here > /kept/file")
		s.must(t, "down")
		if out := m.must(t, "volume", "ls", "-q"); strings.TrimSpace(out) != "talks_kept" {
			t.Errorf("after down the volumes are %q", out)
		}
		if out := m.must(t, "network", "ls", "-q"); strings.TrimSpace(out) != "" {
			t.Errorf("after down the networks are %q", out)
		}
		if out := m.must(t, "ls", "-a", "-q"); strings.TrimSpace(out) != "" {
			t.Errorf("after down the stacks are %q", out)
		}
		s.up(t)
		if got := s.sh(t, "talker", "cat /kept/file"); got != "still here" {
			t.Errorf("the volume has %q", got)
		}
	})

	t.Run("down -v leaves nothing", func(t *testing.T) {
		s.must(t, "down", "-v")
		if out := m.must(t, "volume", "ls", "-q"); strings.TrimSpace(out) != "" {
			t.Errorf("after down -v the volumes are %q", out)
		}
		for _, dir := range []string{filepath.Join(m.run, "c"), filepath.Join(m.run, "tasks"), filepath.Join(m.root, "tasks"), filepath.Join(m.root, "logs")} {
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("after down -v %s has %v (%v)", dir, entries, err)
			}
		}
		if again := s.berth(t, "down"); again.code != 0 {
			t.Errorf("a second down: %s", again)
		}
		// With nothing left to serve the dataplane ends by itself.
		eventually(t, 15*time.Second, func() error {
			if pids := processes("dataplane", m.run); len(pids) != 0 {
				return fmt.Errorf("dataplanes: %v", pids)
			}
			return nil
		})
	})
}

// TestCLI_Up_CtrlC: attached it stops the stack; detached it lets go of it.
func TestCLI_Up_CtrlC(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	const slow = `
services:
  slow:
    image: busybox
    command: sh -c 'echo hello; sleep 2; touch /ok; exec sleep 1000'
    stop_signal: KILL
    healthcheck: {test: "test -e /ok", interval: 200ms}
`
	s := m.stack(t, "slow", slow)

	t.Run("detached", func(t *testing.T) {
		up := s.begin(t, "up", "-d")
		eventually(t, 20*time.Second, func() error { return contains(up.errs.String(), "slow: 0 of 1 ready") })
		up.interrupt(t)
		if code := up.wait(t, 5*time.Second); code != 130 || !strings.Contains(up.errs.String(), "goes on") {
			t.Errorf("exit %d: %s", code, up.errs)
		}
		s.awaitOnly(t, "slow", 20*time.Second, func(c container) bool { return c.Ready && c.Health == "healthy" })
	})

	t.Run("attached", func(t *testing.T) {
		up := s.begin(t, "up")
		eventually(t, 20*time.Second, func() error { return contains(up.errs.String(), "slow: revision") })
		s.must(t, "restart", "slow") // its successor talks
		eventually(t, 20*time.Second, func() error { return contains(up.out.String(), "hello") })
		up.interrupt(t)
		if code := up.wait(t, 20*time.Second); code != 130 {
			t.Errorf("exit %d: %s%s", code, up.out, up.errs)
		}
		if c := s.only(t, "slow"); c.State != api.TaskExited {
			t.Errorf("after Ctrl-C: %+v", c)
		}
	})

	t.Run("until a service has exited", func(t *testing.T) {
		tests := m.stack(t, "tests", `
services:
  db:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
  tests:
    image: busybox
    command: sh -c 'echo 3 tests failed; exit 3'
    depends_on: [db]
    restart: "no"
`)
		r := tests.berth(t, "up", "--exit-code-from", "tests")
		if r.code != 3 || !strings.Contains(r.out, "3 tests failed") {
			t.Errorf("up --exit-code-from: %s", r)
		}
		if c := tests.only(t, "db"); c.State != api.TaskExited {
			t.Errorf("db was not stopped: %+v", c)
		}
	})
}

// TestCLI_WaitTimeout_SaysWhatIsNotReady_AndWhy exits 3 and lets the rollout go
// on.
func TestCLI_WaitTimeout_SaysWhatIsNotReady_AndWhy(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "never", `
services:
  well:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
  never:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
    healthcheck: {test: "echo the disk is full; exit 1", interval: 1s}
  after:
    image: busybox
    command: sleep 1000
    depends_on: {never: {condition: service_healthy}}
`)
	r := s.berth(t, "up", "-d", "--wait-timeout", "1")
	if r.code != 3 || len(errorLines(r.err)) != 1 || contains(r.err, "the disk is full", "waits for never", "goes on") != nil {
		t.Errorf("up --wait-timeout: %s", r)
	}
	if r.took > 5*time.Second {
		t.Errorf("it took %s", r.took)
	}
	if c := s.only(t, "well"); c.State != api.TaskRunning {
		t.Errorf("well: %+v", c)
	}
}

// TestCLI_Things is images, volumes and networks by hand.
func TestCLI_Things(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	m.must(t, "image", "pull", "busybox")
	if out := m.must(t, "image", "ls"); contains(out, "busybox", "latest") != nil {
		t.Errorf("image ls: %s", out)
	}
	tar := filepath.Join(t.TempDir(), "busybox.tar")
	m.must(t, "image", "save", "-o", tar, "busybox")
	m.must(t, "image", "rm", "busybox")
	if out := m.must(t, "image", "ls", "-q"); out != "" {
		t.Errorf("after rm the images are %q", out)
	}
	m.must(t, "image", "load", "-i", tar)
	if out := m.must(t, "image", "inspect", "busybox"); !strings.Contains(out, "PATH=") {
		t.Errorf("image inspect: %s", out)
	}

	m.must(t, "volume", "create", "mine")
	m.must(t, "network", "create", "ours", "--subnet", "10.88.0.0/24")
	if n := m.network(t, "ours"); !slices.Equal(n.Subnets, []string{"10.88.0.0/24"}) {
		t.Errorf("the network is %+v", n)
	}
	s := m.stack(t, "user", `
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
    pull_policy: never
    volumes: ["mine:/mine"]
    networks: [ours]
volumes:
  mine: {external: true}
networks:
  ours: {external: true}
`)
	s.up(t)
	if addr := m.inspect(t, s.only(t, "web").ID).Networks[0].IPv4; !strings.HasPrefix(addr, "10.88.0.") {
		t.Errorf("web is at %s", addr)
	}
	for _, args := range [][]string{{"volume", "rm", "mine"}, {"network", "rm", "ours"}, {"image", "rm", "busybox"}} {
		if r := m.berth(t, args...); r.code != 1 || len(errorLines(r.err)) != 1 {
			t.Errorf("%s is in use: %s", args[2], r)
		}
	}
	s.must(t, "down", "-v")
	if out := m.must(t, "volume", "ls", "-q"); strings.TrimSpace(out) != "mine" {
		t.Errorf("down -v took an external volume; there is %q", out)
	}
	m.must(t, "volume", "rm", "mine")
	m.must(t, "network", "rm", "ours")
	m.must(t, "image", "prune", "-a", "-f")
	if out := m.must(t, "image", "ls", "-q"); out != "" {
		t.Errorf("after prune -a the images are %q", out)
	}
}

// contains wants every part in text.
func contains(text string, parts ...string) error {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return fmt.Errorf("%q is not in\n%s", p, text)
		}
	}
	return nil
}
