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
	"os/exec"
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
	if Isolated() {
		if err := enter(); err != nil {
			fmt.Fprintln(os.Stderr, "testbed:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	os.Exit(reexec())
}

// NeedKernel skips t unless it may create links, mounts and containers.
func NeedKernel(t testing.TB) {
	t.Helper()
	if !Isolated() {
		t.Skip("SKIPPED: needs root and testbed.Main: this test creates links and mounts")
	}
}

// reexec runs this binary again in new namespaces. The thread stays locked:
// the child dies with it (Pdeathsig).
func reexec() int {
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "testbed:", err)
		return 1
	}
	return 0
}

func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// crun 1.8 refuses a hybrid cgroup hierarchy; without the v2 half it is
	// plain v1.
	err := unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount the unified cgroup hierarchy: %w", err)
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
