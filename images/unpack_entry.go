package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // bookkeeping of aufs
	overlayOpaque  = "trusted.overlay.opaque"
	xattrRecord    = "SCHILY.xattr."
)

// entry writes one entry of the archive.
func (u *unpacker) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "" { // the root: its attributes are those of the mount's upper directory
		return nil
	}
	if h.Size < 0 || u.bytes+h.Size > u.limits.unpacked || u.bytes+h.Size < u.bytes {
		return invalid("size of %d bytes is past the limit", h.Size)
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= 1<<32-1 || int64(h.Gid) >= 1<<32-1 {
		return invalid("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	up, base := splitName(name)
	parent, err := u.enter(up)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(parent, base)
	}
	switch h.Typeflag {
	case tar.TypeReg, 0:
		return u.file(parent, base, h)
	case tar.TypeDir:
		return u.dir(parent, name, base, h)
	case tar.TypeSymlink:
		return u.symlink(parent, base, h)
	case tar.TypeLink:
		return u.link(parent, base, h)
	case tar.TypeFifo:
		return u.fifo(parent, base, h)
	case tar.TypeChar, tar.TypeBlock:
		// The runtime makes the devices a container may use. One from an image
		// would be a way to the host's, or (0:0) a hidden whiteout.
		return nil
	}
	return invalid("entry of unknown type %q", h.Typeflag)
}

func (u *unpacker) whiteout(parent int, base string) error {
	if base == whiteoutOpaque {
		return pathError("make opaque", base, unix.Fsetxattr(parent, overlayOpaque, []byte("y"), 0))
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	target := base[len(whiteoutPrefix):]
	if target == "" || target == "." || target == ".." {
		return invalid("whiteout of nothing")
	}
	err := unix.Mknodat(parent, target, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return pathError("whiteout", target, err)
	}
	// What this layer has itself stays; only lower layers are hidden.
	var st unix.Stat_t
	if err := unix.Fstatat(parent, target, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("stat", target, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return setOpaque(parent, target)
	}
	return nil
}

// replace runs create and, if something of that name exists, clears it and runs
// create again: the last entry of a name wins.
func replace(parent int, base string, create func() error) (wasWhiteout bool, err error) {
	err = create()
	if !errors.Is(err, unix.EEXIST) {
		return false, err
	}
	wasWhiteout = isWhiteout(parent, base)
	if err := os.RemoveAll("/proc/self/fd/" + strconv.Itoa(parent) + "/" + base); err != nil {
		return false, err
	}
	return wasWhiteout, create()
}

func (u *unpacker) file(parent int, base string, h *tar.Header) error {
	var fd int
	_, err := replace(parent, base, func() (err error) {
		fd, err = unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return pathError("create", base, err)
	}
	defer closeFD(fd)
	if err := u.content(fd, h.Size); err != nil {
		return err
	}
	u.bytes += h.Size
	if err := chown(fd, h); err != nil {
		return err
	}
	err = setXattrs(h, func(k string, v []byte) error { return unix.Fsetxattr(fd, k, v, 0) })
	if err != nil {
		return err
	}
	// After chown, which clears setuid.
	if err := unix.Fchmod(fd, uint32(h.Mode&0o7777)); err != nil {
		return pathError("chmod", base, err)
	}
	return pathError("set time", base, unix.UtimesNanoAt(parent, base, times(h), unix.AT_SYMLINK_NOFOLLOW))
}

func (u *unpacker) content(fd int, size int64) error {
	var n int64
	for n < size {
		m, err := io.ReadFull(u.tar, u.buf[:min(size-n, int64(len(u.buf)))])
		if err != nil {
			return corrupt(err)
		}
		for p := u.buf[:m]; len(p) > 0; {
			w, err := unix.Write(fd, p)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return pathError("write", "file", err)
			}
			p = p[w:]
		}
		n += int64(m)
	}
	return nil
}

func (u *unpacker) dir(parent int, name, base string, h *tar.Header) error {
	err := unix.Mkdirat(parent, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		err = u.reuseDir(parent, base)
	}
	if err != nil {
		return pathError("mkdir", base, err)
	}
	fd, err := unix.Openat(parent, base, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError("open", base, err)
	}
	defer closeFD(fd)
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return pathError("chown", base, err)
	}
	err = setXattrs(h, func(k string, v []byte) error { return unix.Fsetxattr(fd, k, v, 0) })
	if err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(h.Mode&0o7777)); err != nil {
		return pathError("chmod", base, err)
	}
	if u.names += int64(len(name)); u.names > u.limits.names {
		return invalid("a layer has too many directories")
	}
	delete(u.implicit, name)
	u.dirs = append(u.dirs, dirTime{name, times(h)})
	return nil
}

// reuseDir: a directory listed twice is merged, anything else is replaced. In
// place of a whiteout it is opaque: the layer deleted what was below.
func (u *unpacker) reuseDir(parent int, base string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	wasWhiteout, err := replace(parent, base, func() error { return unix.Mkdirat(parent, base, 0o700) })
	if err == nil && wasWhiteout {
		err = setOpaque(parent, base)
	}
	return err
}

func (u *unpacker) symlink(parent int, base string, h *tar.Header) error {
	if h.Linkname == "" || len(h.Linkname) >= unix.PathMax || strings.IndexByte(h.Linkname, 0) >= 0 {
		return invalid("bad link target")
	}
	_, err := replace(parent, base, func() error { return unix.Symlinkat(h.Linkname, parent, base) })
	if err != nil {
		return pathError("symlink", base, err)
	}
	return setAttributes(parent, base, h, false)
}

// link makes a hard link. Its target must be in this layer and come first.
func (u *unpacker) link(parent int, base string, h *tar.Header) error {
	target, err := cleanName(h.Linkname)
	if err != nil || target == "" {
		return invalid("hard link to %q leaves the layer", clip(h.Linkname))
	}
	up, from := splitName(target)
	dir := u.root
	if up != "" {
		if dir, err = u.openDir(up); err != nil {
			return invalid("hard link to %q, which isn't in the layer: %w", clip(h.Linkname), err)
		}
		defer closeFD(dir)
	}
	var a, b unix.Stat_t
	if err := unix.Fstatat(dir, from, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return invalid("hard link to %q, which isn't in the layer: %w", clip(h.Linkname), err)
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFCHR:
		return invalid("hard link to %q, which is no file", clip(h.Linkname))
	}
	if unix.Fstatat(parent, base, &b, unix.AT_SYMLINK_NOFOLLOW) == nil && a.Ino == b.Ino {
		return nil // to itself, or listed twice
	}
	_, err = replace(parent, base, func() error { return unix.Linkat(dir, from, parent, base, 0) })
	if errors.Is(err, unix.ENOENT) {
		return invalid("hard link to %q, which it replaces", clip(h.Linkname))
	}
	return pathError("link", base, err)
}

func (u *unpacker) fifo(parent int, base string, h *tar.Header) error {
	_, err := replace(parent, base, func() error { return unix.Mknodat(parent, base, unix.S_IFIFO|0o600, 0) })
	if err != nil {
		return pathError("mkfifo", base, err)
	}
	return setAttributes(parent, base, h, true)
}

// setAttributes of what can't be opened.
func setAttributes(parent int, base string, h *tar.Header, mode bool) error {
	if err := unix.Fchownat(parent, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("chown", base, err)
	}
	name := "/proc/self/fd/" + strconv.Itoa(parent) + "/" + base
	err := setXattrs(h, func(k string, v []byte) error { return unix.Lsetxattr(name, k, v, 0) })
	if err != nil {
		return err
	}
	if mode {
		if err := unix.Fchmodat(parent, base, uint32(h.Mode&0o7777), 0); err != nil {
			return pathError("chmod", base, err)
		}
	}
	return pathError("set time", base, unix.UtimesNanoAt(parent, base, times(h), unix.AT_SYMLINK_NOFOLLOW))
}

// setXattrs sets those that belong to a container: capabilities, ACLs and
// user's. trusted.* and overlayfs' own could forge whiteouts and redirects;
// security labels are the host's. A file system without them is no error.
func setXattrs(h *tar.Header, set func(string, []byte) error) error {
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, xattrRecord)
		if !ok || !allowedXattr(name) {
			continue
		}
		err := set(name, []byte(v))
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user.") {
			continue // user.* is for files and directories only
		}
		if err != nil {
			return pathError("set attribute", name, err)
		}
	}
	return nil
}

func allowedXattr(name string) bool {
	switch {
	case name == "security.capability", strings.HasPrefix(name, "system.posix_acl_"):
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

func chown(fd int, h *tar.Header) error {
	if h.Uid == 0 && h.Gid == 0 {
		return nil // as it was created
	}
	return pathError("chown", h.Name, unix.Fchown(fd, h.Uid, h.Gid))
}

// times of an entry, clamped to what every file system can hold.
func times(h *tar.Header) []unix.Timespec {
	m := clampTime(h.ModTime)
	a := m
	if !h.AccessTime.IsZero() {
		a = clampTime(h.AccessTime)
	}
	return []unix.Timespec{a, m}
}

func clampTime(t time.Time) unix.Timespec {
	const last = 1<<34 - 1<<31 - 1 // ext4: May 2446
	switch s := t.Unix(); {
	case s < 0:
		return unix.Timespec{}
	case s > last:
		return unix.Timespec{Sec: last}
	default:
		return unix.Timespec{Sec: s, Nsec: int64(t.Nanosecond())}
	}
}

func timeOf(t unix.Timespec) time.Time { return time.Unix(t.Sec, t.Nsec) }

func isWhiteout(parent int, base string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func setOpaque(parent int, base string) error {
	fd, err := unix.Openat(parent, base, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError("open", base, err)
	}
	defer closeFD(fd)
	return pathError("make opaque", base, unix.Fsetxattr(fd, overlayOpaque, []byte("y"), 0))
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", op, clip(name), err)
}

func sortByDepth(dirs []string) {
	sort.Slice(dirs, func(i, j int) bool {
		a, b := strings.Count(dirs[i], "/"), strings.Count(dirs[j], "/")
		if a != b {
			return a < b
		}
		return dirs[i] < dirs[j]
	})
}
