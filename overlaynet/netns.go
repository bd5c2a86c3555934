package overlaynet

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"berth/crash"
)

// Names, and the kernel's own rule, for a network namespace file.
const nsfsMagic = 0x6e736673

// inNetns makes or enters the namespace pinned at path and runs f in it, on a
// thread of its own; created says which of the two it was. f must not start
// goroutines that need the namespace. The thread goes back to the host's
// namespace, or, if that fails, ends with its goroutine.
func (m *Manager) inNetns(path string, f func(created bool) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		created, err := enterNetns(path)
		if err == nil {
			err = f(created)
		}
		if back := unix.Setns(int(m.hostns.Fd()), unix.CLONE_NEWNET); back != nil {
			// Still locked: the runtime ends a thread that its goroutine
			// leaves locked, so nothing else runs in the wrong namespace.
			done <- errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

func enterNetns(path string) (created bool, err error) {
	if isNetns(path) {
		f, err := os.Open(path)
		if err != nil {
			return false, fmt.Errorf("open network namespace: %w", err)
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return false, fmt.Errorf("enter network namespace %s: %w", path, err)
		}
		return false, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return false, fmt.Errorf("make the mount point of a network namespace: %w", err)
	}
	f.Close()
	crash.At("netns.file")
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		os.Remove(path)
		if errors.Is(err, unix.ENOSPC) {
			return false, fmt.Errorf("make a network namespace: the limit user.max_net_namespaces is reached: %w", err)
		}
		return false, fmt.Errorf("make a network namespace: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return false, fmt.Errorf("pin network namespace at %s: %w", path, err)
	}
	crash.At("netns.pinned")
	return true, nil
}

// isNetns says whether a namespace is mounted at path; a bare file is the rest
// of a creation that was cut short.
func isNetns(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == nsfsMagic
}

// unpin removes the mount and the file. Idempotent. The namespace itself lives
// until its last process has ended.
func unpin(path string) error {
	// More than one mount may be stacked if the folder was mounted over.
	for isNetns(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove the mount point of a network namespace: %w", err)
	}
	return nil
}
