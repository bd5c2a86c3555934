package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount mounts the image's layers at m.Target: with m.Upper an overlay to write
// to, without it read-only. A target that is mounted already is left alone.
//
// Setuid files work: images need them, and the store's root is closed to other
// users. Devices don't: the runtime brings a container's own /dev.
//
// It is on the way of each container's start: no process is spawned, nothing
// is synced, and the records are in memory.
func (s *Store) Mount(ctx context.Context, digest string, m Mount) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dirs, err := s.stack(digest)
	if err != nil {
		return fmt.Errorf("mount %s: %w", short(digest), err)
	}
	if (m.Upper == "") != (m.Work == "") {
		return fmt.Errorf("mount %s: upper and work directory belong together", short(digest))
	}
	s.mounts.Lock()
	defer s.mounts.Unlock()
	mounted, err := isMounted(m.Target)
	if mounted {
		return nil
	}
	if errors.Is(err, os.ErrNotExist) {
		err = os.MkdirAll(m.Target, 0o755)
	}
	if err == nil && m.Upper != "" {
		err = errors.Join(os.MkdirAll(m.Upper, 0o755), os.MkdirAll(m.Work, 0o700))
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", short(digest), diskError(err))
	}
	if len(dirs) == 1 && m.Upper == "" {
		err = s.bind(dirs[0], m.Target)
	} else {
		err = s.overlay(dirs, m)
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mount %s at %s: %w: a layer was deleted by hand; pull it again: %w", short(digest), m.Target, ErrNotFound, err)
	}
	if err != nil {
		return fmt.Errorf("mount %s at %s: %w", short(digest), m.Target, err)
	}
	return nil
}

// stack is the layers' directories by number, top first. A layer that comes
// twice counts at its upper place: overlayfs refuses it otherwise, and there
// it hides all of the lower.
func (s *Store) stack(digest string) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	rec := s.images[digest]
	if rec == nil {
		return nil, ErrNotFound
	}
	if len(rec.Keys) == 0 {
		return []string{"../empty"}, nil
	}
	dirs := make([]string, 0, len(rec.Keys))
	seen := make(map[uint64]bool, len(rec.Keys))
	for i := len(rec.Keys) - 1; i >= 0; i-- {
		l := s.layers[rec.Keys[i]]
		if l == nil {
			return nil, fmt.Errorf("%w: layer %s is gone; pull the image again", ErrNotFound, short(rec.Keys[i]))
		}
		if !seen[l.Dir] {
			seen[l.Dir] = true
			dirs = append(dirs, strconv.FormatUint(l.Dir, 10))
		}
	}
	return dirs, nil
}

// isMounted asks the kernel whether path is the root of a mount.
func isMounted(path string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Attributes_mask&st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// bind shows one layer read-only: overlayfs wants two layers or an upper. The
// copy of the mount is made read-only before anybody can see it.
func (s *Store) bind(dir, target string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, s.path("layers", dir), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open layer %s: %w", dir, err)
	}
	defer closeFD(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("make layer %s read-only: %w", dir, err)
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// errOldAPI: the kernel can't take layers one by one.
var errOldAPI = errors.New("kernel has no lowerdir+")

// fsconfigMax is the longest string that fsconfig(2) takes.
const fsconfigMax = 255

func (s *Store) overlay(dirs []string, m Mount) error {
	longest := max(len(s.path("layers"))+20, len(m.Upper), len(m.Work))
	if !s.oldAPI.Load() && longest <= fsconfigMax {
		err := s.overlayByParts(dirs, m)
		if !errors.Is(err, errOldAPI) {
			return err
		}
		s.oldAPI.Store(true)
	}
	return s.overlayByOptions(dirs, m)
}

// overlayByParts hands the layers over one by one (lowerdir+, Linux 6.8 and
// later): mount(2) takes no more than a page of options.
func (s *Store) overlayByParts(dirs []string, m Mount) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		return errOldAPI
	}
	if err != nil {
		return fmt.Errorf("open overlayfs: %w", err)
	}
	defer closeFD(fd)
	base := s.path("layers") + "/"
	for i, d := range dirs {
		err := unix.FsconfigSetString(fd, "lowerdir+", base+d)
		if errors.Is(err, unix.EINVAL) && i == 0 {
			return errOldAPI
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w%s", d, err, reasons(fd))
		}
	}
	options := [][2]string{{"source", "berth"}, {"index", "off"}}
	if m.Upper != "" {
		options = append(options, [2]string{"upperdir", m.Upper}, [2]string{"workdir", m.Work})
	}
	for _, o := range options {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return fmt.Errorf("%s=%s: %w%s", o[0], o[1], err, reasons(fd))
		}
	}
	err = unix.FsconfigCreate(fd)
	if errors.Is(err, unix.EINVAL) && !s.newAPI.Load() {
		// Before Linux 6.5 overlayfs is behind the kernel's adapter for old
		// filesystems, which takes any option and looks at it only here.
		return errOldAPI
	}
	if err != nil {
		return fmt.Errorf("overlayfs: %w%s", err, reasons(fd))
	}
	s.newAPI.Store(true)
	attr := unix.MOUNT_ATTR_NODEV
	if m.Upper == "" {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	mfd, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return fmt.Errorf("overlayfs: %w%s", err, reasons(fd))
	}
	defer closeFD(mfd)
	return unix.MoveMount(mfd, "", unix.AT_FDCWD, m.Target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// reasons are what the kernel has to say about a failure.
func reasons(fd int) string {
	var out []string
	buf := make([]byte, 1024)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			break
		}
		out = append(out, strings.TrimSpace(string(buf[:n])))
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, "; ") + ")"
}

// overlayByOptions is mount(2) for kernels before 6.8. To fit many layers into
// one page of options they are named relative to layers/, by a thread that
// stands there and ends with the call: its working directory is its own.
func (s *Store) overlayByOptions(dirs []string, m Mount) error {
	options := "index=off,lowerdir=" + strings.Join(dirs, ":")
	if m.Upper != "" {
		options += ",upperdir=" + escape(m.Upper) + ",workdir=" + escape(m.Work)
	}
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("%d layers need %d bytes of mount options, this kernel takes %d; a kernel from 6.8 on has no limit", len(dirs), len(options), os.Getpagesize()-1)
	}
	flags := uintptr(unix.MS_NODEV)
	if m.Upper == "" {
		flags |= unix.MS_RDONLY
	}
	target, err := filepath.Abs(m.Target)
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is spoilt
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(s.path("layers"))
		}
		if err == nil {
			err = unix.Mount("berth", target, "overlay", flags, options)
		}
		result <- err
	}()
	return <-result
}

// escape keeps overlayfs from splitting a path at its separators.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, ",", `\,`, ":", `\:`).Replace(path)
}

// Unmount takes away what is mounted at target. Nothing there is success; when
// somebody still uses it, it vanishes from the tree now and ends with its last
// user.
func (s *Store) Unmount(target string) error {
	for {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		switch {
		case err == nil:
			continue // until nothing is left, were it mounted twice
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}

// Preflight refuses a root file system whose /dev, /proc, /sys, /run or /etc is
// not a directory: the runtime mounts and writes there, and a link would lead
// it elsewhere (CVE-2026-41579 of runc, CVE-2026-47766 of crun). Absent is fine,
// the runtime makes them.
func Preflight(rootfs string) error {
	for _, name := range []string{"dev", "proc", "sys", "run", "etc"} {
		fd, err := beneath(rootfs, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		switch {
		case err == nil:
			closeFD(fd)
		case errors.Is(err, unix.ENOENT):
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
			return invalid("/%s of the image is not a directory: it is not safe to run; rebuild the image with a real /%s", name, name)
		default:
			return fmt.Errorf("look at /%s of the image: %w", name, err)
		}
	}
	return nil
}
