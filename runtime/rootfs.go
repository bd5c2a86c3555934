package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// rootfs is a container's root as the agent may look into it: everything is
// resolved as if it were the root (openat2 RESOLVE_IN_ROOT), so no symlink of
// an image leads to the host, and magic links are refused.
type rootfs struct{ dir *os.File }

func openRootfs(p string) (*rootfs, error) {
	if !path.IsAbs(p) {
		return nil, invalid("root filesystem %q is not an absolute path", p)
	}
	fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root filesystem %s: %w", p, err)
	}
	return &rootfs{dir: os.NewFile(uintptr(fd), p)}, nil
}

func (r *rootfs) close() { r.dir.Close() }

func (r *rootfs) open(p string, flags uint64, resolve uint64) (int, error) {
	p = strings.TrimLeft(path.Clean("/"+p), "/")
	if p == "" {
		p = "."
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	// EAGAIN: something was renamed meanwhile and ".." could not be judged.
	for range 32 {
		fd, err := unix.Openat2(int(r.dir.Fd()), p, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

const confined = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// maxDatabase is how much of /etc/passwd and /etc/group is read: an image is
// hostile data, and a distribution's files have a few KiB.
const maxDatabase = 1 << 20

// readFile reads a regular file of at most limit bytes. A fifo or a device in
// its place is an error, never a wait.
func (r *rootfs) readFile(p string, limit int64) ([]byte, error) {
	fd, err := r.open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, confined)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p, Err: err}
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", p, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, invalid("%s of the image is not a regular file", p)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p, err)
	}
	if int64(len(b)) > limit {
		return nil, invalid("%s of the image is larger than %d KiB", p, limit>>10)
	}
	return b, nil
}

// mkdirAll makes a folder and its parents, 0755, root's. What exists is left
// alone, symlinks within the root are followed.
func (r *rootfs) mkdirAll(p string) error {
	p = path.Clean("/" + p)
	if p == "/" {
		return nil
	}
	fd, err := r.open(p, unix.O_PATH|unix.O_DIRECTORY, confined)
	if err == nil {
		closeFd(fd)
		return nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "open", Path: p, Err: err}
	}
	if err := r.mkdirAll(path.Dir(p)); err != nil {
		return err
	}
	parent, err := r.open(path.Dir(p), unix.O_PATH|unix.O_DIRECTORY, confined)
	if err != nil {
		return &os.PathError{Op: "open", Path: path.Dir(p), Err: err}
	}
	defer closeFd(parent)
	if err := unix.Mkdirat(parent, path.Base(p), 0o755); err != nil {
		return &os.PathError{Op: "mkdir", Path: p, Err: err}
	}
	return nil
}

// checkPlaces refuses an image in which a folder that the runtime mounts or
// writes into is a symlink or a file: crun before 1.28 and runc before 1.2.8
// follow it out of the root (CVE-2026-41579, CVE-2026-47766).
func (r *rootfs) checkPlaces() error {
	for _, p := range []string{"dev", "proc", "sys", "etc", "run"} {
		fd, err := r.open(p, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			var st unix.Stat_t
			err = unix.Fstat(fd, &st)
			closeFd(fd)
			if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				continue
			}
		}
		return invalid("/%s of the image is not a plain folder", p)
	}
	return nil
}
