package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/api"
	"berth/testbed"
)

const small = `
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
`

// fails brings a stack up that can't come up: one line says why, soon, and
// nothing of it is left.
func (s *stack) fails(t *testing.T, want, hint string) {
	t.Helper()
	r := s.berth(t, "up", "-d")
	if r.code != 1 || len(errorLines(r.err)) != 1 || r.took > 30*time.Second {
		t.Errorf("want exit 1 and one error, soon: %s", r)
	}
	oneComplaint(t, r, want, hint)
}

func TestBadMachine_RegistryDown(t *testing.T) {
	testbed.NeedKernel(t)
	testbed.CheckLeaks(t)
	// Nobody listens on port 1; nothing but the loopback can be reached.
	m := bareMachine(t, t.TempDir(), `registries: {docker.io: {mirrors: ["http://127.0.0.1:1"]}}`)
	s := m.stack(t, "small", small)
	empty := m.inventory(t)
	s.fails(t, `error: .*compose\.yaml:4:\d+: .*busybox`, "registry")
	if now := m.inventory(t); now != empty {
		t.Errorf("it left\n%s", now)
	}
}

func TestBadMachine_NoSpace(t *testing.T) {
	testbed.NeedKernel(t)
	testbed.CheckLeaks(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=20m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, 5*time.Second, func() error { return unix.Unmount(disk, 0) })
	})
	m := bareMachine(t, disk, `registries: {docker.io: {mirrors: ["http://`+mirror(t)+`"]}}`)
	s := m.stack(t, "small", small)
	s.up(t)
	empty, pids := m.inventory(t), s.pids(t)
	big := m.stack(t, "big", "services: {db: {image: postgres:15-alpine}}")
	big.fails(t, `no space|disk`, "free some space")
	if now := m.inventory(t); now != empty {
		t.Errorf("it left\n%s", now)
	}
	if now := s.pids(t); !sameKeys(now, pids) {
		t.Error("what ran before does not run on")
	}
}

func TestBadMachine_NoRuntime(t *testing.T) {
	testbed.NeedKernel(t)
	testbed.CheckLeaks(t)
	m := bareMachine(t, t.TempDir(), "runtime: /nonexistent/crun")
	file := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(file, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	r := m.berth(t, "-f", file, "up", "-d")
	if r.code != 1 || len(errorLines(r.err)) != 1 {
		t.Errorf("want exit 1 and one error: %s", r)
	}
	oneComplaint(t, r, `/nonexistent/crun`, "")
}

func TestBadMachine_AddressesUsedUp(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t, "address_pools: [10.99.0.0/24]")
	first := m.stack(t, "first", small)
	first.up(t)
	before := m.inventory(t)
	second := m.stack(t, "second", small)
	second.fails(t, `error: .*(pool|address)`, "address_pools")
	if now := m.inventory(t); now != before {
		t.Errorf("it left\n%s\nwhere there was\n%s", now, before)
	}
	first.must(t, "down")
	second.up(t)
}

// TestBadMachine_NotRoot calls berth as a user who may do nothing.
func TestBadMachine_NotRoot(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	// That user can walk to the socket, and read the file.
	for dir := m.dir; dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := m.stack(t, "small", small)
	for dir := filepath.Dir(s.file); dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	nobody := func(args ...string) result {
		ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
		defer cancel()
		args = append([]string{"--root", m.root, "--run", m.run, "-f", s.file}, args...)
		cmd := exec.CommandContext(ctx, program(t, "berth"), args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return finish(t, cmd, args)
	}
	for _, test := range []struct{ when, want, hint string }{
		{"no agent", `error: .*root`, "sudo"},
		{"an agent", `error: .*(permission|allowed|denied)`, "sudo"},
	} {
		t.Run(test.when, func(t *testing.T) {
			for _, args := range [][]string{{"up", "-d"}, {"ps"}, {"down"}} {
				r := nobody(args...)
				if r.code != 1 || len(errorLines(r.err)) != 1 {
					t.Errorf("want exit 1 and one error: %s", r)
				}
				oneComplaint(t, r, test.want, test.hint)
			}
		})
		m.must(t, "ls") // starts an agent
	}
	// What needs no agent works.
	if r := nobody("config"); r.code != 0 {
		t.Error(r)
	}
}

// TestBadMachine_TwoUpsAtOnce lets two people bring one stack up. Each either
// succeeds or is told who is at it; the stack is whole afterwards.
func TestBadMachine_TwoUpsAtOnce(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "small", small)
	ups := []*started{s.begin(t, "up", "-d"), s.begin(t, "up", "-d"), s.begin(t, "up", "-d")}
	succeeded := 0
	for _, up := range ups {
		switch code := up.wait(t, time.Minute); {
		case code == 0:
			succeeded++
		case code != 1 || !strings.Contains(up.errs.String(), "is being changed by") || !strings.Contains(up.errs.String(), "since"):
			t.Errorf("exit %d: %s", code, up.errs)
		}
	}
	if succeeded == 0 {
		t.Error("none succeeded")
	}
	if c := s.only(t, "web"); c.State != api.TaskRunning {
		t.Errorf("web is %+v", c)
	}
	// An agent that came too late waits a moment for the lock: its holder may be
	// one that is just being killed.
	eventually(t, 10*time.Second, func() error {
		if pids := processes("berthd", "--run", m.run); len(pids) != 2 {
			return fmt.Errorf("%d processes of berthd run, want the agent and the dataplane", len(pids))
		}
		return nil
	})
}

// TestBadMachine_CommandNotInImage ends soon, with the shell's code for it.
func TestBadMachine_CommandNotInImage(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "typo", strings.Replace(small, "sleep 1000", "slepe 1000", 1))
	s.fails(t, `error: web: .*"slepe".*not`, "")
	if c := s.only(t, "web"); c.ExitCode != 127 {
		t.Errorf("ps says %+v", c)
	}
	s.edit(t, "slepe", "sleep")
	s.up(t)
}
