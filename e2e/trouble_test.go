package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/testbed"
)

// kill ends a process at once and waits until it is gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("there is no process %d to kill", pid)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatalf("kill %d: %v", pid, err)
	}
	eventually(t, 10*time.Second, func() error {
		if alive(pid) {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	})
}

// alive says whether a process runs. A zombie does not, unless it has threads
// whose end is still to come: with the last one its sockets close.
func alive(pid int) bool {
	if threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)); len(threads) > 1 {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// run runs a program of the host.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// processes finds those whose command line has every one of words, as the
// machine's own processes have its run folder.
func processes(words ...string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	var pids []int
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it has ended
		}
		line := strings.ReplaceAll(string(text), "\x00", " ")
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

// conmon is the process that watches a container.
func (m *machine) conmon(t *testing.T, id string) int {
	t.Helper()
	pids := processes("conmon", m.run, id)
	if len(pids) != 1 {
		t.Fatalf("container %s has %d conmons, want 1", id, len(pids))
	}
	return pids[0]
}

// runtime calls the OCI runtime behind Berth's back.
func (m *machine) runtime(t *testing.T, args ...string) {
	t.Helper()
	run(t, append([]string{"crun", "--root", filepath.Join(m.run, "crun")}, args...)...)
}

// reboot does to a machine what a reboot does: every process ends, mounts,
// namespaces, links and rules are gone, the run folder is empty, and the boot
// has another id. Disks stay as they are.
func (m *machine) reboot(t *testing.T, pids map[string]int) {
	t.Helper()
	kill(t, m.agentPid(t))
	for _, pid := range processes("dataplane", m.run) {
		kill(t, pid)
	}
	// Without its conmon no container's end is noted, as in a power cut.
	for id, pid := range pids {
		kill(t, m.conmon(t, id))
		kill(t, pid)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(m.run))
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range slices.Backward(mounts) {
		if err := unix.Unmount(mount.Mountpoint, unix.MNT_DETACH); err != nil {
			t.Fatalf("unmount %s: %v", mount.Mountpoint, err)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Attrs().Name != "lo" {
			_ = netlink.LinkDel(link) // one end of a veth goes with the other
		}
	}
	run(t, "nft", "flush", "ruleset")
	deleteGuards(t)
	entries, err := os.ReadDir(m.run)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(m.run, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := testbed.RemoveCgroup(m.cgroups); err != nil {
		t.Fatal(err)
	}
	newBootID(t)
}

// newBootID gives the kernel another boot id for the rest of the test, as far
// as programs in the test bed's mount namespace can tell.
func newBootID(t *testing.T) {
	t.Helper()
	const path = "/proc/sys/kernel/random/boot_id"
	file := filepath.Join(t.TempDir(), "boot_id")
	if err := os.WriteFile(file, []byte("0b00710b-0071-4b00-8710-0b00710b0071\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("change the boot id: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("give the boot id back: %v", err)
		}
	})
}

// families are ip's flags for both.
var families = []string{"-4", "-6"}

// guards are the preferences of Berth's own routing rules, by family: those
// between the kernel's first rule (0) and its last ones (32766).
func guards(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, family := range families {
		for line := range strings.Lines(run(t, "ip", family, "rule")) {
			pref, _, _ := strings.Cut(line, ":")
			if n, err := strconv.Atoi(pref); err == nil && n > 0 && n < 32766 {
				out[family] = append(out[family], pref)
			}
		}
	}
	return out
}

// deleteGuards deletes them, whichever rule they jump to first of all.
func deleteGuards(t *testing.T) {
	t.Helper()
	for family, prefs := range guards(t) {
		for _, pref := range prefs {
			run(t, "ip", family, "rule", "del", "pref", pref)
		}
	}
}

// resolve asks a network's name server, as a container does.
func resolve(t *testing.T, server, name string) ([]netip.Addr, error) {
	t.Helper()
	out, err := exec.Command("dig", "+short", "+time=2", "+tries=1", "@"+server, name, "A").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("resolve %s at %s: %w: %s", name, server, err, out)
	}
	var addrs []netip.Addr
	for line := range strings.Lines(string(out)) {
		a, err := netip.ParseAddr(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("resolve %s at %s: %s", name, server, out)
		}
		addrs = append(addrs, a)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address at %s", name, server)
	}
	return addrs, nil
}
