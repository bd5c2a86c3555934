package images

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func ownerAndMode(t testing.TB, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %o", st.Uid, st.Mode&0o7777)
}

// describe renders a tree, one line per file: everything that a container could
// notice. Root itself is left out.
func describe(t testing.TB, root string) string {
	t.Helper()
	var lines []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s %06o %d:%d mtime=%d.%d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + short(digestOf(b))
			if first, ok := inodes[st.Ino]; ok {
				line += " = " + first
			} else if st.Nlink > 1 {
				inodes[st.Ino] = name
			}
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + to
		case unix.S_IFCHR:
			line = fmt.Sprintf("%s whiteout dev=%d", name, st.Rdev)
		}
		lines = append(lines, line+xattrsOf(path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func xattrsOf(path string) string {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil || n == 0 {
		return ""
	}
	names := strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00")
	sort.Strings(names)
	out := ""
	for _, k := range names {
		v := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, k, v)
		if err != nil && !errors.Is(err, syscall.ENODATA) {
			return err.Error()
		}
		out += fmt.Sprintf(" %s=%q", k, v[:max(n, 0)])
	}
	return out
}
