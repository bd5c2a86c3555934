package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/api"
)

// stack is one Compose file on a machine.
type stack struct {
	*machine
	name, file string
}

// stack writes a Compose file, whose name is the stack's, and takes the stack
// away with the test.
func (m *machine) stack(t *testing.T, name, text string) *stack {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := m.existing(t, name, filepath.Join(dir, "compose.yaml"))
	s.write(t, "compose.yaml", text)
	return s
}

// existing is stack for a file that is there.
func (m *machine) existing(t *testing.T, name, file string) *stack {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.berth(t, "-f", file, "ps", "-a", "--no-trunc"))
		}
		if r := m.berth(t, "-p", name, "down", "--volumes", "--timeout", "1"); r.code != 0 {
			t.Error(r)
		}
	})
	return &stack{m, name, file}
}

// write puts a file beside the Compose file, or the Compose file anew.
func (s *stack) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(s.file), name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// edit replaces text in the Compose file.
func (s *stack) edit(t *testing.T, before, after string) {
	t.Helper()
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), before) != 1 {
		t.Fatalf("%q is not once in\n%s", before, text)
	}
	s.write(t, "compose.yaml", strings.Replace(string(text), before, after, 1))
}

func (s *stack) berth(t *testing.T, args ...string) result {
	t.Helper()
	return s.machine.berth(t, append([]string{"-f", s.file}, args...)...)
}

func (s *stack) must(t *testing.T, args ...string) string {
	t.Helper()
	return s.machine.must(t, append([]string{"-f", s.file}, args...)...)
}

func (s *stack) begin(t *testing.T, args ...string) *started {
	t.Helper()
	return s.machine.begin(t, append([]string{"-f", s.file}, args...)...)
}

// up brings the stack up and waits until it is ready.
func (s *stack) up(t *testing.T, args ...string) {
	t.Helper()
	s.must(t, append([]string{"up", "-d", "--wait-timeout", "60"}, args...)...)
}

// container is a line of `berth ps --format json`.
type container struct {
	ID, Name, Service, State, Health, Status, Ports string
	ExitCode, Restarts                              int
	Ready                                           bool
	Revision                                        uint64
}

// ps lists the stack's containers, exited ones included.
func (s *stack) ps(t *testing.T, services ...string) []container {
	t.Helper()
	var list []container
	lines := bufio.NewScanner(strings.NewReader(s.must(t, append([]string{"ps", "-a", "--format", "json"}, services...)...)))
	for lines.Scan() {
		var c container
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		list = append(list, c)
	}
	return list
}

// only is the one container of a service.
func (s *stack) only(t *testing.T, service string) container {
	t.Helper()
	list := s.ps(t, service)
	if len(list) != 1 {
		t.Fatalf("%s has %d containers, want 1: %+v", service, len(list), list)
	}
	return list[0]
}

// awaitOnly waits until the one container of a service is as wanted.
func (s *stack) awaitOnly(t *testing.T, service string, limit time.Duration, wanted func(container) bool) container {
	t.Helper()
	var c container
	eventually(t, limit, func() error {
		list := s.ps(t, service)
		if len(list) == 1 {
			if c = list[0]; wanted(c) {
				return nil
			}
		}
		return fmt.Errorf("%s: %+v", service, list)
	})
	return c
}

// running wants a container other than the one with the id before.
func running(before string) func(container) bool {
	return func(c container) bool { return c.State == api.TaskRunning && c.ID != before }
}

// inspect shows everything about a container.
func (m *machine) inspect(t *testing.T, id string) api.TaskInspect {
	t.Helper()
	var list []api.TaskInspect
	text := m.must(t, "inspect", id)
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
		t.Fatalf("inspect %s: %v: %s", id, err, text)
	}
	return list[0]
}

// pids gives the main process of each running container, by its id.
func (s *stack) pids(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, c := range s.ps(t) {
		if c.State == api.TaskRunning {
			out[c.ID] = s.inspect(t, c.ID).Pid
		}
	}
	return out
}

// sh runs a shell command in a service's container and returns what it says.
func (s *stack) sh(t *testing.T, service, script string) string {
	t.Helper()
	r := s.berth(t, "exec", service, "sh", "-c", script)
	if r.code != 0 {
		t.Fatal(r)
	}
	return strings.TrimSpace(r.out)
}

// events lists what happened to the stack until now, in order.
func (s *stack) events(t *testing.T) []api.Event {
	t.Helper()
	var list []api.Event
	lines := bufio.NewScanner(strings.NewReader(s.must(t, "events", "--json", "--since", "1h", "--until", time.Now().UTC().Format(time.RFC3339Nano))))
	for lines.Scan() {
		var e api.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		list = append(list, e)
	}
	return list
}

// at is the place of the first event of that kind in the list, or a failure.
func at(t *testing.T, list []api.Event, service, action string) int {
	t.Helper()
	for i, e := range list {
		if e.Service == service && e.Action == action {
			return i
		}
	}
	t.Fatalf("no event %q of %s in %v", action, service, list)
	return -1
}
