package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRecover_AgentRestarts_ProcessesStay(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "traps"))
		before, err := b.Status(t.Context(), "a1")
		if err != nil {
			t.Fatal(err)
		}
		b.reopen()
		after, err := b.Status(t.Context(), "a1")
		if err != nil || after != before {
			t.Errorf("before %+v, after %+v, %v", before, after, err)
		}
		eventually(t, "the trap is set", func() bool { return strings.Contains(b.output("a1"), "ready") })
		if err := b.Signal(t.Context(), "a1", unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if s := b.exit("a1"); s.ExitCode != 7 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestRecover_ExitWhileNoAgentRan_IsDelivered(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "traps"))
		eventually(t, "the trap is set", func() bool { return strings.Contains(b.output("a1"), "ready") })
		s, err := b.Status(t.Context(), "a1")
		if err != nil {
			t.Fatal(err)
		}
		exitFile := b.exitFile("a1")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(s.Pid, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		eventually(t, "conmon wrote the exit file", func() bool { return pathExists(exitFile) })
		b.open()
		if s := b.exit("a1"); s.ExitCode != 7 || s.StartedAt.IsZero() {
			t.Errorf("got %+v", s)
		}
	})
}

// K2 of the fault catalogue: a conmon that is killed writes no exit file, and
// its container would run on for ever.
func TestRecover_ConmonKilled_ContainerIsLost(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "sleep"))
		s, err := b.Status(t.Context(), "a1")
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := unix.Kill(b.find("a1").rec.Conmon.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		got := b.exit("a1")
		if got.ExitCode != -1 || got.State != StateExited {
			t.Errorf("got %+v, want exit code -1", got)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("noticed after %v", took)
		}
		eventually(t, "the process is dead", func() bool { return identify(s.Pid).Start == 0 || dead(s.Pid) })
		b.reopen()
		if got := b.exit("a1"); got.ExitCode != -1 {
			t.Errorf("after a restart: %+v", got)
		}
	})
}

func dead(pid int) bool {
	s, err := readStat(pid)
	return err != nil || s.dead()
}

// K3: conmon and the agent killed together.
func TestRecover_ConmonKilledWhileNoAgentRan_ContainerIsLost(t *testing.T) {
	b := newBench(t, "")
	b.run(b.container("a1", "sleep"))
	conmon := b.find("a1").rec.Conmon.Pid
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(conmon, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "conmon is dead", func() bool { return dead(conmon) })
	b.open()
	if s := b.exit("a1"); s.ExitCode != -1 {
		t.Errorf("got %+v", s)
	}
}

// An agent that dies inside Create leaves a container without a record.
func TestRecover_OrphanWithoutRecord_IsListedAndDeletable(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		if err := b.Create(t.Context(), b.container("a1", "sleep")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(b.bundle("a1"), "record.json")); err != nil {
			t.Fatal(err)
		}
		b.reopen()
		list, err := b.List(t.Context())
		if err != nil || len(list) != 1 || list[0].ID != "a1" || list[0].State != StateCreated {
			t.Fatalf("list %+v, %v", list, err)
		}
		if err := b.Create(t.Context(), b.container("a1", "sleep")); !errors.Is(err, ErrExists) {
			t.Errorf("create over an orphan: %v", err)
		}
		for range 2 {
			if err := b.Delete(t.Context(), "a1"); err != nil {
				t.Errorf("delete: %v", err)
			}
		}
		if _, err := b.Status(t.Context(), "a1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("status after delete: %v", err)
		}
	})
}

// An agent that is killed in Start leaves it open whether the program runs: its
// status says so, and Start, once more, ends it either way.
func TestRecover_StartCutOff_IsEndedByAnotherStart(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		for id, called := range map[string]bool{"a1": true, "a2": false} {
			if err := b.Create(t.Context(), b.container(id, "sleep")); err != nil {
				t.Fatal(err)
			}
			if s, err := b.Status(t.Context(), id); err != nil || s.State != StateCreated || !s.StartedAt.IsZero() {
				t.Errorf("%s: before its start: %+v, %v", id, s, err)
			}
			mark := inBundle(b.bundle(id), "starting")
			var err error
			if called {
				if err = b.Start(t.Context(), id); err == nil {
					err = os.Rename(inBundle(b.bundle(id), "started"), mark)
				}
			} else {
				err = os.WriteFile(mark, nil, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			b.reopen()
			if s, err := b.Status(t.Context(), id); err != nil || s.State != StateCreated || s.StartedAt.IsZero() {
				t.Errorf("%s: after the cut: %+v, %v", id, s, err)
			}
			if err := b.Start(t.Context(), id); err != nil {
				t.Errorf("%s: start it again: %v", id, err)
			}
			if s, err := b.Status(t.Context(), id); err != nil || s.State != StateRunning {
				t.Errorf("%s: after its start: %+v, %v", id, s, err)
			}
		}
	})
}

func TestRecover_AnEmptyBundle_IsUnknownAndDeletable(t *testing.T) {
	b := newBench(t, "")
	if err := os.Mkdir(b.bundle("a1"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	if s, err := b.Status(t.Context(), "a1"); err != nil || s.State != StateUnknown {
		t.Errorf("status %+v, %v", s, err)
	}
	if err := b.Delete(t.Context(), "a1"); err != nil {
		t.Error(err)
	}
}

func TestRecover_AfterReboot_EverythingHasExited(t *testing.T) {
	b := newBench(t, "")
	b.run(b.container("a1", "sleep"))
	rec := b.find("a1")
	if err := b.Signal(t.Context(), "a1", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.exit("a1")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	// What a reboot leaves where Run is on disk: pids that now mean others, and
	// no exit file.
	rec.rec.Boot = "an-earlier-boot"
	rec.rec.Init = identify(os.Getpid())
	if err := errors.Join(rec.saveRecord(), os.Remove(b.exitFile("a1")),
		os.WriteFile(filepath.Join(b.cfg.Run, "boot"), []byte("an-earlier-boot"), 0o600)); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(rec.rec.RuntimeRoot, "a1")
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	if err := b.cg.remove(b.cgroup("a1")); err != nil {
		t.Fatal(err)
	}
	b.open()
	if s := b.exit("a1"); s.ExitCode != -1 || s.State != StateExited {
		t.Errorf("got %+v", s)
	}
	if err := b.Signal(t.Context(), "a1", unix.SIGKILL); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a signal across a reboot: %v", err) // else this test has just died
	}
	if err := b.Delete(t.Context(), "a1"); err != nil {
		t.Error(err)
	}
}

func TestRecover_ManyExits_NoneIsLost(t *testing.T) {
	b := newBench(t, "")
	const n = 12
	for i := range n {
		b.run(b.container(fmt.Sprintf("m%d", i), "exit", fmt.Sprint(i)))
	}
	got := map[string]int{}
	limit := time.After(15 * time.Second)
	for len(got) < n {
		select {
		case s := <-b.Exits():
			got[s.ID] = s.ExitCode
		case <-limit:
			t.Fatalf("only %v", got)
		}
	}
	for i := range n {
		if code := got[fmt.Sprintf("m%d", i)]; code != i {
			t.Errorf("m%d: exit code %d", i, code)
		}
	}
}

func TestDelete_WhileRunning_LeavesNothing(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "fork", "3"))
		b.run(b.container("a2", "ignore"))
		for _, id := range []string{"a1", "a2"} {
			if err := b.Delete(t.Context(), id); err != nil {
				t.Errorf("delete %s: %v", id, err)
			}
		}
		b.leaks()
		if !pathExists(b.LogPath("a2")) {
			t.Error("the log is gone with the container")
		}
		if err := b.RemoveLog("a2"); err != nil || pathExists(b.LogPath("a2")) {
			t.Errorf("remove log: %v", err)
		}
	})
}

func TestDelete_PausedContainer_Works(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "sleep"))
		if err := b.Pause(t.Context(), "a1"); err != nil {
			t.Fatal(err)
		}
		if s, err := b.Status(t.Context(), "a1"); err != nil || s.State != StatePaused {
			t.Errorf("status %+v, %v", s, err)
		}
		if err := b.Resume(t.Context(), "a1"); err != nil {
			t.Fatal(err)
		}
		if s, err := b.Status(t.Context(), "a1"); err != nil || s.State != StateRunning {
			t.Errorf("status %+v, %v", s, err)
		}
		if err := b.Pause(t.Context(), "a1"); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), "a1"); err != nil {
			t.Error(err)
		}
	})
}

// With no descriptor free, nothing is taken for dead: that would kill it.
func TestPid_NoPidfd_IsJudgedByProc(t *testing.T) {
	self := identify(os.Getpid())
	h := &pidHandle{procID: self, fd: -1}
	if !h.alive() {
		t.Error("this process is taken for dead")
	}
	if err := h.signal(0); err != nil {
		t.Error(err)
	}
	other := &pidHandle{procID: procID{Pid: self.Pid, Start: self.Start + 1}, fd: -1}
	if other.alive() || !errors.Is(other.signal(unix.SIGKILL), ErrNotRunning) {
		t.Error("another process of the same pid is taken for ours")
	}
	if openPid(other.procID) != nil || openPid(procID{}) != nil {
		t.Error("a handle for a process that is gone")
	}
}

func TestParseStat_HostileName(t *testing.T) {
	line := "42 (a) R 1 (b) S 7 42 43 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1"
	s, err := parseStat([]byte(line))
	if err != nil || s.state != 'S' || s.ppid != 7 || s.session != 43 || s.start != 12345 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "42", "42 (x)", "42 (x) S 1 2"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// In the agent's own cgroup conmon would die with the agent's systemd unit.
func TestConmon_LivesInACgroupOfItsOwn(t *testing.T) {
	b := newBench(t, "")
	if b.cg.v2 || b.cg.mounts["systemd"] == "" {
		t.Skip("SKIPPED: needs the name=systemd hierarchy of cgroup v1")
	}
	path := b.cfg.CgroupParent + "-conmon"
	dir := b.cg.dir("systemd", path)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.nest = conmonCgroup{v1: filepath.Join(dir, "cgroup.procs")}
	b.run(b.container("a1", "sleep"))
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.find("a1").rec.Conmon.Pid))
	if err != nil || !strings.Contains(string(text), "name=systemd:"+path+"\n") {
		t.Errorf("conmon is in %s, %v", text, err)
	}
	if err := b.Delete(t.Context(), "a1"); err != nil {
		t.Error(err)
	}
	if err := removeCgroup(dir); err != nil {
		t.Error(err)
	}
}
