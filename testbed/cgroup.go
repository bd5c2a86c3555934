package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

var cgroupParents atomic.Int64

// CgroupParent returns the path of a cgroup that no other test uses, for an
// agent's cgroup_parent, and removes it in every hierarchy when the test ends.
func CgroupParent(t testing.TB) string {
	t.Helper()
	parent := fmt.Sprintf("/berth-test-%d-%d", os.Getpid(), cgroupParents.Add(1))
	t.Cleanup(func() {
		if err := RemoveCgroup(parent); err != nil {
			t.Errorf("remove cgroup %s: %v", parent, err)
		}
	})
	return parent
}

// RemoveCgroup removes a cgroup with all below it in every hierarchy. It fails
// if a process is left in one. One that does not exist is removed.
func RemoveCgroup(parent string) error {
	const root = "/sys/fs/cgroup"
	hierarchies, err := filepath.Glob(filepath.Join(root, "*", parent))
	if err != nil {
		return fmt.Errorf("find cgroup %s: %w", parent, err)
	}
	var errs []error
	for _, dir := range append(hierarchies, filepath.Join(root, parent)) {
		var fs unix.Statfs_t
		err := unix.Statfs(dir, &fs)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			errs = append(errs, err)
		case fs.Type == unix.CGROUP_SUPER_MAGIC, fs.Type == unix.CGROUP2_SUPER_MAGIC:
			errs = append(errs, removeTree(dir))
		default: // a plain folder that crun made where no hierarchy is
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// removeTree removes folders, the deepest first: the files in them are the
// kernel's.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("walk cgroup %s: %w", dir, err)
	}
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", d, err)
		}
	}
	return nil
}
