package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// Options of Unpack.
type Options struct {
	// Owner keeps the owners that the tar names; else everything is UID:GID.
	Owner    bool
	UID, GID int
	// Rename gives the entry another name, "" leaves it out; nil keeps them.
	Rename func(name string) string
}

// ErrKind says that a tar has an entry that is not unpacked: a device.
var ErrKind = errors.New("is a device, which is not copied")

// Unpack writes the entries of a tar into a folder of the root, over what is
// there; a folder is never replaced by a file, nor a file by a folder. Parents
// that are missing are made. Entry names lie below the folder whatever they
// say, and hard links link to what was unpacked.
func (r *Root) Unpack(from io.Reader, folder string, o Options) error {
	st, err := r.Stat(folder, true)
	if err != nil {
		return err
	}
	if !st.Mode.IsDir() {
		return &fs.PathError{Op: "unpack into", Path: folder, Err: unix.ENOTDIR}
	}
	u := unpacker{r: r, folder: folder, o: o}
	t := tar.NewReader(from)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return fmt.Errorf("read the tar: %w", err)
		}
		if err := u.entry(h, t); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

type unpacker struct {
	r      *Root
	folder string
	o      Options
	// dirs get their times last: what is put into one changes them.
	dirs []datedFolder
}

type datedFolder struct {
	path string
	at   time.Time
}

// place is where an entry goes; "" leaves it out.
func (u *unpacker) place(name string) string {
	name = clean(name)
	if u.o.Rename != nil {
		if name = u.o.Rename(name); name == "" {
			return ""
		}
		name = clean(name)
	}
	return path.Join(u.folder, name)
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	at := u.place(h.Name)
	if at == "" {
		return nil
	}
	if clean(at) == clean(u.folder) { // the folder itself, which is there
		return nil
	}
	dir, base, err := u.parent(at)
	if err != nil {
		return err
	}
	defer dir.Close()
	fd := int(dir.Fd())
	if h.Typeflag == tar.TypeDir {
		return u.makeFolder(fd, base, at, h)
	}
	if err := unlink(fd, base); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return u.file(fd, base, h, content)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, fd, base); err != nil {
			return err
		}
	case tar.TypeLink:
		return u.hardLink(fd, base, h)
	case tar.TypeFifo:
		if err := unix.Mknodat(fd, base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		if err := unix.Fchmodat(fd, base, uint32(h.Mode)&0o777, 0); err != nil { //nolint:gosec // masked
			return err
		}
	case tar.TypeChar, tar.TypeBlock:
		return ErrKind
	default:
		return nil // headers of other tools
	}
	if err := u.chown(fd, base, h); err != nil {
		return err
	}
	return utimes(fd, base, h.ModTime)
}

// parent opens the folder of an entry, and makes it if a tar names it nowhere.
func (u *unpacker) parent(at string) (*os.File, string, error) {
	dir, base, err := u.r.parent(at)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, base, err
	}
	up, name, err := u.parent(path.Dir(at))
	if err != nil {
		return nil, "", err
	}
	defer up.Close()
	if err := unix.Mkdirat(int(up.Fd()), name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, "", err
	}
	return u.r.parent(at)
}

// unlink makes room for what is no folder.
func unlink(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("there is a folder of that name: %w", err)
	}
	return err
}

func (u *unpacker) makeFolder(dir int, name, at string, h *tar.Header) error {
	err := unix.Mkdirat(dir, name, 0o700)
	there := errors.Is(err, unix.EEXIST)
	if err != nil && !there {
		return err
	}
	f, err := u.r.open(at, unix.O_RDONLY|unix.O_DIRECTORY) // it may be a link to one
	if errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("there is something of that name that is no folder: %w", err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if there && !u.o.Owner {
		return nil // as it is
	}
	uid, gid := u.owner(h)
	if err := unix.Fchown(int(f.Fd()), uid, gid); err != nil {
		return err
	}
	if err := unix.Fchmod(int(f.Fd()), uint32(h.Mode)&0o7777); err != nil { //nolint:gosec // masked
		return err
	}
	u.dirs = append(u.dirs, datedFolder{at, h.ModTime})
	return nil
}

func (u *unpacker) file(dir int, name string, h *tar.Header, content io.Reader) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	uid, gid := u.owner(h)
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil { //nolint:gosec // masked
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return utimes(dir, name, h.ModTime)
}

// hardLink links to what an earlier entry made, which is looked for where that
// entry went.
func (u *unpacker) hardLink(dir int, name string, h *tar.Header) error {
	target := u.place(h.Linkname)
	if target == "" {
		return fmt.Errorf("link to %s, which is not copied: %w", h.Linkname, fs.ErrNotExist)
	}
	from, base, err := u.r.parent(target)
	if err != nil {
		return err
	}
	defer from.Close()
	return unix.Linkat(int(from.Fd()), base, dir, name, 0)
}

func (u *unpacker) owner(h *tar.Header) (uid, gid int) {
	if u.o.Owner {
		return h.Uid, h.Gid
	}
	return u.o.UID, u.o.GID
}

func (u *unpacker) chown(dir int, name string, h *tar.Header) error {
	uid, gid := u.owner(h)
	return unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) finish() error {
	for _, d := range u.dirs {
		dir, base, err := u.r.parent(d.path)
		if err != nil {
			return err
		}
		err = utimes(int(dir.Fd()), base, d.at)
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func utimes(dir int, name string, at time.Time) error {
	if at.IsZero() {
		return nil
	}
	ts := unix.NsecToTimespec(at.UnixNano())
	err := unix.UtimesNanoAt(dir, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EPERM) {
		return nil // a file of somebody else's; its time is no reason to fail
	}
	return err
}
