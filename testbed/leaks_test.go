package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

func TestLook_NamesWhatATestLeaves(t *testing.T) {
	NeedKernel(t)
	for _, c := range []struct {
		name string
		leak func(t *testing.T) (undo func())
		want string
	}{
		{"mount", leakMount, "+ mount"},
		{"link", leakLink, "+ link leaky0 (bridge)"},
		{"nftables", func(t *testing.T) func() {
			return leakCommands(t, "nft add table inet leaky", "nft delete table inet leaky")
		}, "+ nftables table inet leaky"},
		{"rule", func(t *testing.T) func() {
			return leakCommands(t, "ip rule add pref 77 table 77", "ip rule del pref 77")
		}, "+ rule 77: from all lookup 77"},
		{"route", func(t *testing.T) func() {
			return leakCommands(t, "ip route add blackhole 192.0.2.0/24", "ip route del blackhole 192.0.2.0/24")
		}, "+ route blackhole 192.0.2.0/24"},
		{"process that detached itself", leakProcess, "+ process "},
		{"cgroup", leakCgroup, "+ cgroup /sys/fs/cgroup/pids/berth-leaks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := lookNow(t)
			undo := c.leak(t)
			if got := strings.Join(before.diff(lookNow(t)), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("found %q, want %q in it", got, c.want)
			}
			undo()
			if left := awaitAll(t, before, look, leakDeadline); len(left) > 0 {
				t.Errorf("still there after it was removed: %q", left)
			}
		})
	}
}

func lookNow(t *testing.T) state {
	t.Helper()
	s, err := look()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func awaitAll(t *testing.T, before state, look func() (state, error), limit time.Duration) []string {
	t.Helper()
	left, err := await(before, look, limit)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestCheckLeaks_CleanTest_Passes(t *testing.T) {
	CheckLeaks(t)
	undo := leakLink(t)
	t.Cleanup(undo)
}

func TestDiff_WhatATestTookAway_CountsToo(t *testing.T) {
	before := state{"link docker0 (bridge)": "", "process 7": "(sh)"}
	got := fmt.Sprint(before.diff(state{}))
	if got != "[- link docker0 (bridge)]" {
		t.Errorf("got %s", got)
	}
}

func TestAwait_WhatComesAndGoes_IsNotALeak(t *testing.T) {
	n := 0
	flicker := func() (state, error) {
		n++
		return state{fmt.Sprintf("cgroup of somebody else %d", n): ""}, nil
	}
	if left := awaitAll(t, state{}, flicker, time.Second); len(left) > 0 {
		t.Errorf("reported %q", left)
	}
}

func TestAwait_WhatStays_IsReportedAtTheDeadline(t *testing.T) {
	stays := func() (state, error) { return state{"link br0 (bridge)": ""}, nil }
	left := awaitAll(t, state{}, stays, 300*time.Millisecond)
	if len(left) != 1 || left[0] != "+ link br0 (bridge)" {
		t.Errorf("reported %q", left)
	}
}

func TestAwait_ProcessThatExecs_IsStillTheSame(t *testing.T) {
	names := []string{"(sh)", "(setsid)", "(sleep)"}
	look := func() (state, error) {
		name := names[0]
		if len(names) > 1 {
			names = names[1:]
		}
		return state{"process 7": name}, nil
	}
	left := awaitAll(t, state{}, look, 500*time.Millisecond)
	if len(left) != 1 || left[0] != "+ process 7 (sleep)" {
		t.Errorf("reported %q", left)
	}
}

func TestParseStat_NameWithParenthesesAndSpaces(t *testing.T) {
	p, ok := parseStat("42 (a) (b c) S 7 42 42 0")
	if !ok || p.ppid != 7 || p.comm != "a) (b c" || p.state != 'S' {
		t.Errorf("got %+v, %v", p, ok)
	}
	for _, bad := range []string{"", "42", "42 (a", "42 (a) S", "42 (a) S x"} {
		if _, ok := parseStat(bad); ok {
			t.Errorf("parsed %q", bad)
		}
	}
}

func leakMount(t *testing.T) func() {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("leaky", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}
}

func leakLink(t *testing.T) func() {
	t.Helper()
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "leaky0"}}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	}
}

func leakCommands(t *testing.T, do, undo string) func() {
	t.Helper()
	run := func(line string) {
		args := strings.Fields(line)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
	}
	run(do)
	return func() { run(undo) }
}

// leakProcess starts one as conmon starts itself: the parent ends at once.
func leakProcess(t *testing.T) func() {
	t.Helper()
	out, err := exec.Command("sh", "-c", "setsid sleep 300 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(out), &pid); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

func leakCgroup(t *testing.T) func() {
	t.Helper()
	parent := fmt.Sprintf("/berth-leaks-%d", os.Getpid())
	if err := os.MkdirAll(filepath.Join("/sys/fs/cgroup/pids", parent, "task", "inner"), 0o755); err != nil {
		t.Skipf("SKIPPED: no pids hierarchy of cgroup v1 here: %v", err)
	}
	return func() {
		if err := RemoveCgroup(parent); err != nil {
			t.Error(err)
		}
	}
}
