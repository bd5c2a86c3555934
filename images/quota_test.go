package images

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLimit_FullFolder_NoSpace fills a folder of an ext4 file system of its own.
func TestLimit_FullFolder_NoSpace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := CheckQuota("/proc"); !errors.Is(err, ErrNoQuota) {
		t.Errorf("/proc: %v", err)
	}
	image, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	for _, d := range []string{mnt} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image).CombinedOutput(); err != nil {
		t.Skipf("no mkfs.ext4 with project quotas: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop,prjquota", image, mnt).CombinedOutput(); err != nil {
		t.Skipf("no loop mount with project quotas: %v %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	})
	a, b := filepath.Join(mnt, "a"), filepath.Join(mnt, "b")
	for _, d := range []string{a, b} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := Limit("task", 2<<20, a, b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a, "half"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b, "more"), make([]byte, 3<<20), 0o600); !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("4 MiB within 2: %v", err)
	}
	if err := Limit("task", 0, a, b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b, "more"), make([]byte, 3<<20), 0o600); err != nil {
		t.Errorf("without the limit: %v", err)
	}
}
