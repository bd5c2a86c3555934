// Package testbed is where tests touch the kernel: a private network and
// mount namespace around a whole test binary, a look at everything that could
// leak, and images made on the spot.
//
// Nothing in here is linked into berth or berthd.
package testbed

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const isolatedEnv = "BERTH_TESTBED"

// Isolated says whether the process runs inside the namespaces that Main made.
func Isolated() bool { return os.Getenv(isolatedEnv) != "" }

// Main runs the tests of a package as root in a private network and mount
// namespace: no packet leaves it, no mount is seen outside, and they vanish
// with the process. Without root it runs them where it stands, and tests that
// call NeedKernel skip.
//
//	func TestMain(m *testing.M) { testbed.Main(m) }
func Main(m *testing.M) {
	if os.Geteuid() == 0 {
		Isolate()
	}
	os.Exit(m.Run())
}

// Isolate is Main for a program that is not a test: it returns inside the
// namespaces, in a new process. It needs root.
func Isolate() {
	if !Isolated() {
		os.Exit(reexec())
	}
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(1)
	}
}

// NeedKernel skips t unless it may create links, mounts and containers.
func NeedKernel(t testing.TB) {
	t.Helper()
	if !Isolated() {
		t.Skip("SKIPPED: needs root and testbed.Main: this test creates links and mounts")
	}
}

// reexec runs this binary again in new namespaces. The thread stays locked:
// the child dies with it (Pdeathsig). Whatever the tests start descends from
// this process, which adopts orphans (conmon detaches itself) so that
// CheckLeaks sees them and nothing outlives the tests.
func reexec() int {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "testbed: become a subreaper:", err)
		return 1
	}
	attr := &os.ProcAttr{
		Env:   append(os.Environ(), isolatedEnv+"=1"),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET,
			Pdeathsig:  syscall.SIGKILL,
		},
	}
	child, err := os.StartProcess("/proc/self/exe", os.Args, attr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed: start the tests:", err)
		return 1
	}
	code := reap(child.Pid)
	for left := descendants(os.Getpid()); len(left) > 0; left = descendants(os.Getpid()) {
		for _, p := range left {
			fmt.Fprintf(os.Stderr, "testbed: ending %s, which outlived the tests\n", p)
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		reap(0)
	}
	return code
}

// reap waits for children, adopted ones too, until pid has ended, and returns
// its exit code; with pid 0, until one has ended.
func reap(pid int) int {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1
		case pid == 0:
			return 0
		case got != pid:
		case status.Signaled():
			fmt.Fprintln(os.Stderr, "testbed: the tests ended by signal", status.Signal())
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}

func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := legacyCgroups(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// legacyCgroups hides the v2 half of a hybrid cgroup hierarchy, which crun 1.8
// refuses. What is left is plain v1. crun still makes folders where that half
// was: they go into a tmpfs that ends with the namespace.
func legacyCgroups() error {
	const unified = "/sys/fs/cgroup/unified"
	var fs unix.Statfs_t
	if err := unix.Statfs(unified, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil //nolint:nilerr // not a hybrid hierarchy: nothing to hide
	}
	if err := unix.Unmount(unified, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the unified cgroup hierarchy: %w", err)
	}
	if err := unix.Mount("tmpfs", unified, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755,size=16m"); err != nil {
		return fmt.Errorf("mount a tmpfs over the unified cgroup hierarchy: %w", err)
	}
	return nil
}
