package e2e_test

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/testbed"
	clients "berth/testbed/load"
)

const served = `
services:
  web:
    image: busybox
    command: sh -c 'mkdir /www; echo "$$VERSION" >/www/index.html; exec httpd -f -p 8080 -h /www'
    init: true
    environment:
      VERSION: "v1"
    healthcheck:
      test: nc -w 1 127.0.0.1 8080 </dev/null
      interval: 5s
    ports: ["8091:8080"]
    mem_limit: 64m
    cpus: 0.5
    configs: [page]
    secrets: [word]
    deploy:
      replicas: 3
      update_config: {monitor: 500ms}
  echo:
    image: berth-testbed/echo
    environment:
      VERSION: "e1"
    ports: ["8092:8080", "8093:7000"]
    x-drain: 4s
    deploy: {update_config: {monitor: 1s}}
  other:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
configs:
  page: {file: ./page.txt}
secrets:
  word: {file: ./word.txt}
`

// TestReplace is one stack through all kinds of changes.
func TestReplace(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "served", served)
	s.write(t, "page.txt", "one")
	s.write(t, "word.txt", "one")
	plan := func(t *testing.T, code int) string {
		t.Helper()
		r := s.berth(t, "plan")
		if r.code != code {
			t.Errorf("want exit %d: %s", code, r)
		}
		return r.out
	}
	plan(t, 2)
	s.up(t)
	plan(t, 0)
	other := s.only(t, "other").ID
	web := func(t *testing.T) []string {
		t.Helper()
		ids := []string{}
		for _, c := range s.ps(t, "web") {
			if c.State == api.TaskRunning {
				ids = append(ids, c.ID)
			}
		}
		return ids
	}

	t.Run("under load", func(t *testing.T) {
		before := web(t)
		echo := s.only(t, "echo").ID
		l := pound(t, "http://127.0.0.1:8091/")
		echoes := clients.Start([]clients.Target{{
			Name: "echo", From: &net.Dialer{}, HTTP: "127.0.0.1:8092", TCP: "127.0.0.1:8093",
		}}, clients.Clients{Requests: 40, Kept: 10, Streams: 4, Session: 2 * time.Second})
		t.Cleanup(func() { echoes.Stop() })
		eventually(t, 10*time.Second, func() error { return served50(l, "v1\n") })
		eventually(t, 10*time.Second, func() error { return echoed(echoes, "e1") })
		s.edit(t, `"v1"`, `"v2"`)
		s.edit(t, `"e1"`, `"e2"`)
		if text := plan(t, 2); !strings.Contains(text, "~ web") || !strings.Contains(text, "~ echo") || !strings.Contains(text, "start-first") || !strings.Contains(text, "= other") {
			t.Errorf("the plan is\n%s", text)
		}
		s.up(t)
		eventually(t, 10*time.Second, func() error { return served50(l, "v2\n") })
		eventually(t, 10*time.Second, func() error { return echoed(echoes, "e2") })
		for _, f := range echoes.Stop().Failed {
			t.Error(f)
		}
		if now := s.only(t, "echo").ID; now == echo {
			t.Error("echo was not replaced")
		}
		l.end()
		if failed := l.failures(); len(failed) > 0 {
			t.Errorf("%d of %v requests failed, the first with\n%s", len(failed), l.answers(), strings.Join(failed[:min(5, len(failed))], "\n"))
		}
		t.Logf("answers: %v", l.answers())
		if after := web(t); len(after) != 3 || overlap(before, after) {
			t.Errorf("web was %v and is %v", before, after)
		}
	})

	t.Run("limits in place", func(t *testing.T) {
		before := s.pids(t)
		s.edit(t, "mem_limit: 64m", "mem_limit: 96m")
		s.edit(t, "cpus: 0.5", "cpus: 0.25")
		if text := plan(t, 2); !strings.Contains(text, "update") && !strings.Contains(text, "in place") {
			t.Errorf("the plan is\n%s", text)
		}
		s.up(t)
		if after := s.pids(t); !maps.Equal(before, after) {
			t.Errorf("processes were touched: %v, then %v", before, after)
		}
		for _, id := range web(t) {
			if got := m.limit(t, id, "memory", "memory.limit_in_bytes"); got != "100663296" {
				t.Errorf("the memory limit of %s is %s", id, got)
			}
			if got := m.limit(t, id, "cpu", "cpu.cfs_quota_us"); got != "25000" {
				t.Errorf("the cpu quota of %s is %s", id, got)
			}
		}
		plan(t, 0)
	})

	t.Run("replicas", func(t *testing.T) {
		before := web(t)
		for _, n := range []int{5, 1, 3} {
			s.setReplicas(t, n)
			s.up(t)
			if after := web(t); len(after) != n || !overlap(before, after) {
				t.Errorf("with %d replicas web is %v, was %v", n, after, before)
			}
		}
		if after := web(t); after[0] != before[0] {
			t.Errorf("the first replica was replaced: %v, then %v", before, after)
		}
	})

	t.Run("nothing but the health test", func(t *testing.T) {
		before := s.pids(t)
		s.edit(t, "interval: 5s", "interval: 1s")
		plan(t, 2)
		s.up(t)
		if after := s.pids(t); !maps.Equal(before, after) {
			t.Errorf("processes were touched: %v, then %v", before, after)
		}
	})

	for _, file := range []string{"page.txt", "word.txt"} {
		t.Run("content of "+file, func(t *testing.T) {
			before := web(t)
			s.write(t, file, "two")
			plan(t, 2)
			s.up(t)
			if after := web(t); len(after) != 3 || overlap(before, after) {
				t.Errorf("web was %v and is %v", before, after)
			}
			plan(t, 0)
		})
	}
	if now := s.only(t, "other").ID; now != other {
		t.Error("other, which never changed, was replaced")
	}
}

// setReplicas edits the only line of replicas.
func (s *stack) setReplicas(t *testing.T, n int) {
	t.Helper()
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "replicas: ")
	before, _, _ := strings.Cut(rest, "\n")
	s.edit(t, "replicas: "+before, fmt.Sprintf("replicas: %d", n))
}

// served50 wants fifty of an answer.
func served50(l *load, answer string) error {
	if n := l.answers()[answer]; n < 50 {
		return fmt.Errorf("%q came %d times; failed: %v", answer, n, l.failures())
	}
	return nil
}

// echoed wants fifty of the answers of a version.
func echoed(l *clients.Load, version string) error {
	if n := l.Answers(version); n < 50 {
		return fmt.Errorf("%s answered %d times; failed: %v", version, n, l.Result().Failed)
	}
	return nil
}

func overlap(x, y []string) bool {
	return slices.ContainsFunc(x, func(s string) bool { return slices.Contains(y, s) })
}

// limit reads a file of a container's cgroup. The kernel's two versions have
// different files: the test bed has the first.
func (m *machine) limit(t *testing.T, id, controller, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, m.inspect(t, id).CgroupPath, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
