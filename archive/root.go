package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// Root is a folder that paths can't lead out of.
type Root struct{ dir *os.File }

// Open opens a root: a folder, or /proc/PID/root for what that process sees.
func Open(dir string) (*Root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Root{os.NewFile(uintptr(fd), dir)}, nil
}

// Close frees it.
func (r *Root) Close() error { return r.dir.Close() }

// open opens a path below the root.
func (r *Root) open(name string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC), //nolint:gosec // flags are bits
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(int(r.dir.Fd()), clean(name), &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // something was renamed meanwhile
		default:
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// clean is a path relative to the root.
func clean(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}

// parent opens the folder that holds name, and gives the last element. The
// folder may be reached through links, the element is not looked at.
func (r *Root) parent(name string) (*os.File, string, error) {
	dir, base := path.Split(clean(name))
	if base == "." {
		return nil, "", fmt.Errorf("%s: %w", name, unix.EBUSY)
	}
	f, err := r.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	return f, base, err
}

// Stat is what there is at a path.
type Stat struct {
	Path string // in the root, links resolved but for the last unless it was followed
	Mode fs.FileMode
	Size int64
	Link string // where it leads, if it is a link
}

// Stat describes a path. The last link is followed if follow says so.
func (r *Root) Stat(name string, follow bool) (Stat, error) {
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	f, err := r.open(name, flags)
	if err != nil {
		return Stat{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return Stat{}, err
	}
	st := Stat{Path: "/" + clean(name), Mode: fi.Mode(), Size: fi.Size()}
	if st.Path == "/." {
		st.Path = "/"
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		st.Link, err = readlink(int(f.Fd()), "")
		return st, err
	}
	if follow {
		st.Path, err = r.resolved(f, st.Path)
	}
	return st, err
}

// resolved is where an open file lies in the root, by what the kernel calls it;
// as it was asked for if that lies elsewhere, such as in a mount.
func (r *Root) resolved(f *os.File, asked string) (string, error) {
	self := func(f *os.File) (string, error) { return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd()))) }
	root, err := self(r.dir)
	if err != nil {
		return "", err
	}
	at, err := self(f)
	if err != nil {
		return "", err
	}
	if rest, ok := cutPath(at, root); ok {
		return rest, nil
	}
	return asked, nil
}

func cutPath(at, root string) (string, bool) {
	if root == "/" {
		return at, true
	}
	if at == root {
		return "/", true
	}
	if len(at) > len(root) && at[:len(root)] == root && at[len(root)] == '/' {
		return at[len(root):], true
	}
	return "", false
}

func readlink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(buf[:n]), nil
}

// Remove removes a path and all below it; links are not followed. What is not
// there is success.
func (r *Root) Remove(name string) error {
	dir, base, err := r.parent(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return removeAt(int(dir.Fd()), base)
}

func removeAt(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAt(fd, n); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}
