package e2e_test

import (
	"strings"
	"testing"

	"berth/api"
	"berth/testbed"
)

// TestDependsOn_Conditions_AreMetInOrder watches the order of a start.
func TestDependsOn_Conditions_AreMetInOrder(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "order", `
x-idle: &idle
  image: busybox
  command: sleep 1000
  stop_signal: KILL
services:
  top:
    <<: *idle
    depends_on:
      base: {condition: service_started}
      slow: {condition: service_healthy}
      once: {condition: service_completed_successfully}
      maybe: {condition: service_completed_successfully, required: false}
  base: *idle
  slow:
    <<: *idle
    command: sh -c 'sleep 1; touch /tmp/ok; exec sleep 1000'
    healthcheck: {test: "test -e /tmp/ok", interval: 100ms}
  once:
    image: busybox
    command: sh -c 'sleep 0.5; echo done'
    depends_on: [base]
  maybe:
    image: busybox
    command: "false"
    restart: "no"
  follower:
    <<: *idle
    depends_on:
      base: {condition: service_started, restart: true}
`)
	// What may fail has failed; the rest is up.
	if r := s.berth(t, "up", "-d"); r.code != 1 || !strings.Contains(r.err, "error: maybe: maybe-1 exited 1") {
		t.Errorf("up with an optional one-shot that fails: %s", r)
	} else if n := strings.Count(r.err, "maybe: ✗ failed"); n != 1 {
		t.Errorf("that it failed is said %d times: %s", n, r)
	}
	if c := s.only(t, "top"); c.State != api.TaskRunning {
		t.Errorf("top, which does not require it: %+v", c)
	}
	list := s.events(t)
	start := at(t, list, "top", "start")
	for _, before := range [][2]string{
		{"base", "start"}, {"slow", "health_status: healthy"}, {"once", "die"}, {"maybe", "die"},
	} {
		if at(t, list, before[0], before[1]) > start {
			t.Errorf("top was started before %q of %s", before[1], before[0])
		}
	}
	for _, dependent := range []string{"once", "follower"} {
		if at(t, list, "base", "start") > at(t, list, dependent, "create") {
			t.Errorf("%s was created before base was started", dependent)
		}
	}

	t.Run("restart with the dependency", func(t *testing.T) {
		follower, top := s.only(t, "follower").ID, s.only(t, "top").ID
		s.edit(t, "  base: *idle", "  base: {<<: *idle, environment: {VERSION: 2}}")
		s.berth(t, "up", "-d") // maybe fails again
		if now := s.only(t, "follower").ID; now == follower {
			t.Error("base was replaced, and follower (restart: true) was not")
		}
		if now := s.only(t, "top").ID; now != top {
			t.Error("base was replaced, and top with it, which did not ask for that")
		}
	})

	t.Run("unchanged", func(t *testing.T) {
		before := s.pids(t)
		s.berth(t, "up", "-d")
		if after := s.pids(t); len(before) != 4 || !sameKeys(before, after) {
			t.Errorf("an up without a change: %v, then %v", before, after)
		}
		if logs := s.must(t, "logs", "once"); strings.Count(logs, "done") != 1 {
			t.Errorf("the one-shot ran again:\n%s", logs)
		}
	})
}

// TestDependsOn_OneShotFails_UpSaysWhich names what failed, and starts nothing
// that needs it.
func TestDependsOn_OneShotFails_UpSaysWhich(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "oneshot", `
services:
  web:
    image: berth-testbed/tiny
    depends_on:
      migrate: {condition: service_completed_successfully}
  migrate:
    image: busybox
    command: sh -c 'echo no such table; exit 3'
`)
	r := s.berth(t, "up", "-d")
	if errors := errorLines(r.err); r.code != 1 || len(errors) != 1 || !strings.Contains(errors[0], "migrate") || !strings.Contains(errors[0], "3") {
		t.Errorf("want exit 1 and one line that names migrate: %s", r)
	}
	if list := s.ps(t, "web"); len(list) != 0 {
		t.Errorf("web was created: %+v", list)
	}
	s.edit(t, "exit 3", "exit 0")
	s.up(t)
	if c := s.only(t, "web"); !c.Ready {
		t.Errorf("once the one-shot succeeds web is %+v", c)
	}
}

// errorLines are the lines that begin an error.
func errorLines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "error: ") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

func sameKeys(x, y map[string]int) bool {
	for k := range x {
		if _, ok := y[k]; !ok {
			return false
		}
	}
	return len(x) == len(y)
}
