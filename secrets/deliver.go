package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/crash"
)

// File is one config or secret as it is delivered.
type File struct {
	Digest string // as returned by Put
	// Content, if it is not nil, is delivered instead of what Digest is stored
	// of: what was made for one task.
	Content []byte
	Name    string // file name below the delivery folder, unique in it
	UID     int
	GID     int
	Mode    uint32
}

var taskForm = regexp.MustCompile(`^[a-z0-9]{1,64}$`)

// Limits of one delivery.
const (
	maxFiles    = 1000
	maxDelivery = 64 << 20
)

const tmpfsFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// Deliver mounts a tmpfs for a task, fills it and makes it read-only. It
// returns the folder, mode 0711. Idempotent: what is there is replaced; a
// container that has the former one bound keeps it. All or nothing: on failure
// no folder is left.
//
// The files are owned and have the mode that they are given, whatever the
// umask. The tmpfs is never swapped out where the kernel can promise that (6.3).
func (s *Store) Deliver(taskID string, files []File) (dir string, err error) {
	if !taskForm.MatchString(taskID) {
		return "", fmt.Errorf("deliver secrets to task %q: not a task id", taskID)
	}
	contents, size, err := s.contents(taskID, files)
	if err != nil {
		return "", err
	}
	s.delivering.Lock()
	defer s.delivering.Unlock()
	if err := s.withdraw(taskID); err != nil {
		return "", err
	}
	dir = s.dir(taskID)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.withdraw(taskID))
			dir = ""
		}
	}()
	if err := os.Mkdir(dir, 0o711); err != nil {
		return dir, fmt.Errorf("deliver secrets to task %s: %w", taskID, err)
	}
	noswap, err := mountTmpfs(dir, size, len(files))
	if err != nil {
		return dir, fmt.Errorf("deliver secrets to task %s: mount tmpfs: %w", taskID, err)
	}
	crash.At("secrets.mounted")
	for i, f := range files {
		if err := write(dir, f, contents[i]); err != nil {
			return dir, fmt.Errorf("deliver secret %s to task %s: %w", f.Name, taskID, err)
		}
	}
	// The superblock, not only this mount: a bind of it is read-only too.
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY|tmpfsFlags, noswap); err != nil {
		return dir, fmt.Errorf("deliver secrets to task %s: make read-only: %w", taskID, err)
	}
	return dir, nil
}

func (s *Store) dir(taskID string) string { return filepath.Join(s.cfg.Run, taskID) }

// contents reads all that is to be delivered before anything is mounted.
func (s *Store) contents(taskID string, files []File) ([][]byte, int64, error) {
	if len(files) > maxFiles {
		return nil, 0, fmt.Errorf("deliver secrets to task %s: %d files; at most %d", taskID, len(files), maxFiles)
	}
	seen := map[string]bool{}
	out := make([][]byte, len(files))
	var size int64
	for i, f := range files {
		if err := checkFile(f); err != nil {
			return nil, 0, fmt.Errorf("deliver secrets to task %s: %w", taskID, err)
		}
		if seen[f.Name] {
			return nil, 0, fmt.Errorf("deliver secrets to task %s: two files named %s", taskID, f.Name)
		}
		seen[f.Name] = true
		content := f.Content
		if content == nil {
			var err error
			if content, err = s.Get(f.Digest); err != nil {
				return nil, 0, fmt.Errorf("deliver secret %s to task %s: %w", f.Name, taskID, err)
			}
		}
		out[i] = content
		size += pages(int64(len(content)))
	}
	if size > maxDelivery {
		return nil, 0, fmt.Errorf("deliver secrets to task %s: %d MiB; at most %d", taskID, size>>20, maxDelivery>>20)
	}
	return out, size, nil
}

func checkFile(f File) error {
	switch {
	case f.Name == "" || f.Name == "." || f.Name == ".." || len(f.Name) > 255 || strings.ContainsAny(f.Name, "/\x00"):
		return fmt.Errorf("secret file name %.40q", f.Name)
	case f.UID < 0 || f.GID < 0 || f.UID >= 1<<31-1 || f.GID >= 1<<31-1:
		return fmt.Errorf("secret %s: owner %d:%d", f.Name, f.UID, f.GID)
	case f.Mode&^0o777 != 0:
		return fmt.Errorf("secret %s: mode %#o; only permission bits", f.Name, f.Mode)
	}
	return nil
}

func pages(n int64) int64 {
	p := int64(os.Getpagesize())
	return (n + p - 1) / p * p
}

// mountTmpfs returns the option that a remount must repeat.
func mountTmpfs(dir string, size int64, files int) (noswap string, err error) {
	// A page to spare: size=0 would mean no limit. Inodes: the root and some.
	options := fmt.Sprintf("mode=0711,size=%d,nr_inodes=%d", size+int64(os.Getpagesize()), files+2)
	err = unix.Mount("tmpfs", dir, "tmpfs", tmpfsFlags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		return "", unix.Mount("tmpfs", dir, "tmpfs", tmpfsFlags, options)
	}
	return "noswap", err
}

func write(dir string, f File, content []byte) error {
	// A process that is being made has this file open until it runs its program:
	// the kernel would refuse to make the tmpfs read-only.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	w, err := os.OpenFile(filepath.Join(dir, f.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Write(content); err != nil {
		return err
	}
	if err := w.Chown(f.UID, f.GID); err != nil {
		return err
	}
	if err := w.Chmod(fs.FileMode(f.Mode)); err != nil {
		return err
	}
	return w.Close()
}

// Withdraw unmounts a task's tmpfs and removes the folder. Idempotent.
func (s *Store) Withdraw(taskID string) error {
	if !taskForm.MatchString(taskID) {
		return fmt.Errorf("withdraw secrets from task %q: not a task id", taskID)
	}
	s.delivering.Lock()
	defer s.delivering.Unlock()
	return s.withdraw(taskID)
}

func (s *Store) withdraw(taskID string) error {
	dir := s.dir(taskID)
	// Detached, since some process may stand in it; more than once, since an
	// agent that died may have mounted twice.
	for range 16 {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("withdraw secrets from task %s: %w", taskID, err)
		}
	}
	crash.At("secrets.unmounted")
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("withdraw secrets from task %s: %w", taskID, err)
	}
	return nil
}
