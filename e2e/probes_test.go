package e2e_test

import (
	"errors"
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

const probed = `
services:
  web:
    image: berth-testbed/echo
    environment: {VERSION: v1, DOWN: /down}
    volumes: ["./down:/down:ro"]
    ports: ["8096:8080"]
    x-readiness: {http: /healthz, interval: 200ms, failures: 2}
    x-liveness: {tcp: 7000}
    deploy: {replicas: 2, update_config: {monitor: 0s}}
`

// TestProbes_AnImageWithoutAShell_LeavesTheTrafficAndReturns asks from outside
// what nothing inside could be asked with.
func TestProbes_AnImageWithoutAShell_LeavesTheTrafficAndReturns(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "probed", probed)
	if err := os.Mkdir(filepath.Join(filepath.Dir(s.file), "down"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.up(t)
	const target = "http://127.0.0.1:8096/"
	pids := s.pids(t)
	turn := func(t *testing.T, id string, down bool) {
		t.Helper()
		var err error
		if file := filepath.Join(filepath.Dir(s.file), "down", id); down {
			err = os.WriteFile(file, nil, 0o644)
		} else {
			err = os.Remove(file)
		}
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, func() error {
			in := m.inspect(t, id)
			if in.Ready == down {
				return fmt.Errorf("ready: %v, readiness %s: %s", in.Ready, in.Readiness, in.Reason)
			}
			return nil
		})
	}
	var ids []string
	for _, c := range s.ps(t, "web") {
		ids = append(ids, c.ID)
	}
	if len(ids) != 2 {
		t.Fatalf("tasks %v", ids)
	}

	l := pound(t, target)
	turn(t, ids[0], true)
	in := m.inspect(t, ids[0])
	if !strings.HasPrefix(in.Reason, "readiness GET :8080/healthz answers 503 (") || in.State != api.TaskRunning || in.Liveness != "healthy" {
		t.Errorf("%s, liveness %s: %s", in.State, in.Liveness, in.Reason)
	}
	at := slices.IndexFunc(in.Probes, func(r api.ProbeResult) bool { return r.Test == "readiness" && r.ExitCode == 1 })
	if at < 0 || !strings.Contains(in.Probes[at].Output, "not ready") {
		t.Errorf("results %+v", in.Probes)
	}
	turn(t, ids[0], false)
	l.end()
	if failed := l.failures(); len(failed) > 0 {
		t.Errorf("%d requests failed while the other task served: %s", len(failed), failed[0])
	}

	turn(t, ids[0], true)
	turn(t, ids[1], true)
	eventually(t, 5*time.Second, func() error {
		if text, err := fetch(target); err == nil {
			return fmt.Errorf("%q is served with no task ready", text)
		}
		return nil
	})
	turn(t, ids[1], false)
	eventually(t, 5*time.Second, func() error {
		text, err := fetch(target)
		if err == nil && !strings.HasPrefix(text, "v1 ") {
			err = errors.New(text)
		}
		return err
	})
	for name, pid := range s.pids(t) {
		if pids[name] != pid {
			t.Errorf("%s was restarted", name)
		}
	}
}

const signalled = `
services:
  web:
    image: busybox
    command:
      - sh
      - -c
      - |
        trap 'cat /etc/page >>/out/seen' HUP
        trap 'exit 0' TERM
        cat /etc/page >/out/seen
        while :; do sleep 0.1; done
    volumes: ["./out:/out"]
    configs: [{source: page, target: /etc/page}]
    secrets: [word]
configs:
  page: {file: ./page.txt, x-on-change: "signal:HUP"}
secrets:
  word: {file: ./word.txt, x-on-change: ignore}
`

// TestOnChange_ASignal_TheProgramReadsTheNewContent changes configs and secrets
// below a program that runs on.
func TestOnChange_ASignal_TheProgramReadsTheNewContent(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "signalled", signalled)
	if err := os.Mkdir(filepath.Join(filepath.Dir(s.file), "out"), 0o777); err != nil {
		t.Fatal(err)
	}
	s.write(t, "page.txt", "first\n")
	s.write(t, "word.txt", "one")
	s.up(t)
	seen := func(want string) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			got, err := os.ReadFile(filepath.Join(filepath.Dir(s.file), "out", "seen"))
			if err == nil && string(got) != want {
				err = fmt.Errorf("it saw %q", got)
			}
			return err
		})
	}
	seen("first\n")
	pids := s.pids(t)
	s.write(t, "page.txt", "the second is longer\n")
	s.write(t, "word.txt", "two")
	if r := s.berth(t, "plan"); r.code != 2 || !strings.Contains(r.out, "~ web") {
		t.Error(r)
	}
	s.up(t)
	seen("first\nthe second is longer\n")
	s.write(t, "page.txt", "3\n")
	s.up(t)
	seen("first\nthe second is longer\n3\n")
	if word := s.sh(t, "web", "cat /run/secrets/word"); word != "one" {
		t.Errorf("the secret is %q", word)
	}
	for name, pid := range s.pids(t) {
		if pids[name] != pid {
			t.Errorf("%s was restarted", name)
		}
	}
}
