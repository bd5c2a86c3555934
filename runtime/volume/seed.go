package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/crash"
)

// Seed copies what rootfs has at path into a volume that is empty: content,
// owners, modes, times, extended attributes, links and special files. The
// volume's own folder gets owner and mode of the image's. A volume with
// content, or an image without that path, is left alone. Idempotent; what a
// crash cut off is begun anew.
//
// dir is a volume's Mountpoint. No container runs on rootfs yet.
func Seed(ctx context.Context, dir, rootfs, path string) error {
	mark := filepath.Join(filepath.Dir(dir), "seeding")
	_, err := os.Lstat(mark)
	interrupted := err == nil
	if !interrupted {
		empty, err := isEmpty(dir)
		if err != nil {
			return fmt.Errorf("seed volume %s: %w", dir, err)
		}
		if !empty {
			return nil
		}
	}
	src, err := openInside(rootfs, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("seed volume %s: %w", dir, err)
	}
	defer src.Close()
	if interrupted {
		if err := clearDir(dir); err != nil {
			return fmt.Errorf("seed volume %s: %w", dir, err)
		}
	}
	if err := touch(mark); err != nil {
		return fmt.Errorf("seed volume %s: %w", dir, err)
	}
	crash.At("seed.marked")
	c := &copier{links: map[inode]string{}}
	// By descriptor: the path may have gone through links of the image.
	if err := c.tree(ctx, fmt.Sprintf("/proc/self/fd/%d/.", src.Fd()), dir); err != nil {
		return fmt.Errorf("seed volume %s: %w", dir, err)
	}
	if err := syncfs(dir); err != nil {
		return fmt.Errorf("seed volume %s: %w", dir, err)
	}
	crash.At("seed.copied")
	if err := os.Remove(mark); err != nil {
		return fmt.Errorf("seed volume %s: %w", dir, err)
	}
	return nil
}

// touch makes the mark and puts its name on disk before any content is.
func touch(mark string) error {
	f, err := os.OpenFile(mark, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	d, err := os.Open(filepath.Dir(mark))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func syncfs(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// isEmpty: lost+found is what mkfs leaves in a filesystem of its own.
func isEmpty(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return len(names) == 0 || len(names) == 1 && names[0] == "lost+found", nil
}

func clearDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

type inode struct{ dev, ino uint64 }

// copier copies a tree without following links.
type copier struct {
	links map[inode]string // files with several names: where the first went
}

func (c *copier) tree(ctx context.Context, from, to string) error {
	type folder struct {
		path string
		st   unix.Stat_t
		from string
	}
	var folders []folder
	err := filepath.WalkDir(from, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return &os.PathError{Op: "stat", Path: rel, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if rel != "." {
				if err := os.Mkdir(target, 0o700); err != nil {
					return err
				}
			}
			folders = append(folders, folder{target, st, p})
			return nil
		}
		return c.node(p, target, &st)
	})
	if err != nil {
		return err
	}
	// Folders last and innermost first: their times change with their contents,
	// and a mode may forbid to write into them.
	for i := len(folders) - 1; i >= 0; i-- {
		f := folders[i]
		if err := attributes(f.from, f.path, &f.st); err != nil {
			return err
		}
	}
	return nil
}

// node copies anything but a folder.
func (c *copier) node(from, to string, st *unix.Stat_t) error {
	if st.Nlink > 1 {
		key := inode{uint64(st.Dev), st.Ino}
		if first, ok := c.links[key]; ok {
			return os.Link(first, to)
		}
		c.links[key] = to
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if err := copyFile(from, to); err != nil {
			return err
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
	case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
		if err := unix.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			return &os.PathError{Op: "mknod", Path: to, Err: err}
		}
	default:
		return nil // a socket means nothing without its server
	}
	return attributes(from, to, st)
}

func copyFile(from, to string) error {
	r, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil { // copy_file_range where it can
		w.Close()
		return err
	}
	return w.Close()
}

// attributes gives owner, extended attributes, mode and times, in this order:
// a change of owner drops setuid bits and file capabilities.
func attributes(from, to string, st *unix.Stat_t) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	link := st.Mode&unix.S_IFMT == unix.S_IFLNK
	if !link {
		if err := unix.Fchmodat(unix.AT_FDCWD, to, st.Mode&0o7777, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "utimes", Path: to, Err: err}
	}
	return nil
}

// copyXattrs leaves out what belongs to the overlay and to the host's SELinux
// policy, and what the target's filesystem does not take.
func copyXattrs(from, to string) error {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "listxattr", Path: from, Err: err}
	}
	value := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.overlay.") || name == "security.selinux" {
			continue
		}
		n, err := unix.Lgetxattr(from, name, value)
		if err != nil {
			return &os.PathError{Op: "getxattr " + name, Path: from, Err: err}
		}
		err = unix.Lsetxattr(to, name, value[:n], 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return &os.PathError{Op: "setxattr " + name, Path: to, Err: err}
		}
	}
	return nil
}
