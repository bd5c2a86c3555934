package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"berth/runtime/volume"
)

// subpaths is where images, and paths below volumes and images, are mounted
// while the containers that want them are created.
func (a *Agent) subpaths() string { return filepath.Join(a.cfg.Run, "subpaths") }

// pin mounts a path below a volume's folder at a place of our own and returns
// that place, for the runtime to bind from until release is called. The path
// itself can't be given to the runtime: a container may put a symlink there
// meanwhile. Neither can the file that volume.Subpath holds open: the runtime
// mounts from a mount namespace of its own, where the kernel refuses it.
func (a *Agent) pin(name, dir, sub string) (path string, release func(), err error) {
	source, closeSource, err := volume.Subpath(dir, sub)
	if err != nil {
		return "", nil, err
	}
	defer closeSource()
	if path, release, err = a.mountAside(name, source, unix.MS_BIND|unix.MS_REC); err != nil {
		return "", nil, fmt.Errorf("subpath %s: %w", sub, err)
	}
	return path, release, nil
}

// mountAside binds source at a place of our own, until release is called.
func (a *Agent) mountAside(name, source string, flags uintptr) (path string, release func(), err error) {
	path = filepath.Join(a.subpaths(), name)
	if err := makeLike(source, path); err != nil {
		return "", nil, fmt.Errorf("make a place to mount at: %w", err)
	}
	release = func() { a.unpinLogged(path) }
	if err := unix.Mount(source, path, "", flags, ""); err != nil {
		release()
		return "", nil, fmt.Errorf("mount: %w", err)
	}
	return path, release, nil
}

// makeLike makes an empty folder or file at path, as what source is.
func makeLike(source, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	fi, err := os.Stat(source)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return os.Mkdir(path, 0o700)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// unpin takes away what pin made. It never removes more than an empty folder:
// below a mount lies the data of the user.
func unpin(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: not mounted
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (a *Agent) unpinLogged(path string) {
	if err := unpin(path); err != nil {
		a.log.Warn("release a place for a mount", "err", err)
	}
}

// sweepSubpaths takes away what an agent that was killed had pinned.
func (a *Agent) sweepSubpaths() error {
	entries, err := os.ReadDir(a.subpaths())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("sweep the subpaths: %w", err)
	}
	for _, e := range entries {
		if err := unpin(filepath.Join(a.subpaths(), e.Name())); err != nil {
			return fmt.Errorf("sweep the subpaths: %w", err)
		}
	}
	return nil
}
