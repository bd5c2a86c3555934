package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/crash"
)

// Rewrite gives files that Deliver made for a running task other contents.
// Idempotent; files that it is not given stay as they are.
//
// A container has each file bound by itself, so its inode must stay: the new
// content is written over the old one. Each file gets it with one write, and a
// shorter one is cut to its length after it; so a program that reads at that
// very moment may see a part of both, for some microseconds. One that reads
// when it is signalled afterwards sees the new content whole.
func (s *Store) Rewrite(taskID string, files []File) (err error) {
	if !taskForm.MatchString(taskID) {
		return fmt.Errorf("rewrite secrets of task %q: not a task id", taskID)
	}
	contents, _, err := s.contents(taskID, files)
	if err != nil {
		return err
	}
	s.delivering.Lock()
	defer s.delivering.Unlock()
	dir := s.dir(taskID)
	// Containers have their own, read-only mounts: for them it stays so.
	if err := remountTmpfs(dir, 0); err != nil {
		return fmt.Errorf("rewrite secrets of task %s: make writable: %w", taskID, err)
	}
	defer func() {
		if roErr := remountTmpfs(dir, unix.MS_RDONLY); roErr != nil {
			err = errors.Join(err, fmt.Errorf("rewrite secrets of task %s: make read-only: %w", taskID, roErr))
		}
	}()
	for i, f := range files {
		if err := rewrite(filepath.Join(dir, f.Name), contents[i]); err != nil {
			return fmt.Errorf("rewrite secret %s of task %s: %w", f.Name, taskID, err)
		}
	}
	crash.At("secrets.rewritten")
	return nil
}

// remountTmpfs makes a delivery writable, with room for the largest one, or
// read-only.
func remountTmpfs(dir string, flags uintptr) error {
	// Two deliveries: an old and a new content may be there at once.
	options := fmt.Sprintf("size=%d", 2*maxDelivery)
	err := unix.Mount("", dir, "", unix.MS_REMOUNT|tmpfsFlags|flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3, or no mount
		err = unix.Mount("", dir, "", unix.MS_REMOUNT|tmpfsFlags|flags, options)
	}
	return err
}

func rewrite(path string, content []byte) error {
	// As in write: no process that is being made may have the file open.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	w, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer w.Close()
	info, err := w.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fs.ErrInvalid
	}
	if len(content) > 0 {
		if _, err := w.WriteAt(content, 0); err != nil {
			return err
		}
	}
	if info.Size() > int64(len(content)) {
		if err := w.Truncate(int64(len(content))); err != nil {
			return err
		}
	}
	return w.Close()
}
