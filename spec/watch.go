package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Limits of the content of one bind that is watched.
const (
	maxWatchedFiles = 10_000
	maxWatchedBytes = 64 << 20
)

// watch gives the binds of s that x-watch-content names the digest of their
// content.
func (l *loading) watch(s *Service, watched map[string]string) {
	if l.o.Inspect {
		return
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		path, ok := watched[m.Target]
		if !ok || m.Type != MountBind {
			continue
		}
		digest, err := contentDigest(m.Source)
		if err != nil {
			l.add(l.placedValue(Error, path, "content of "+l.relative(err), "name only binds of small files and folders, or put it into a config"))
		}
		m.Digest = digest
	}
}

// contentDigest is the digest of a file or a folder: names, modes, contents,
// symbolic links by what they say. Owners and times don't count, nor does
// the mode of the folder itself. What does not exist yet is an empty folder:
// it will be made.
func contentDigest(root string) (string, error) {
	d := digester{h: sha256.New(), files: maxWatchedFiles, bytes: maxWatchedBytes, root: root}
	info, err := os.Stat(root)
	switch {
	case os.IsNotExist(err):
	case err != nil:
		return "", fileProblem(root, err)
	case info.IsDir():
		if err := d.folder(root, ""); err != nil {
			return "", err
		}
	default:
		if err := d.entry(root, "", info); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(d.h.Sum(nil)), nil
}

type digester struct {
	h     hash.Hash
	root  string
	files int   // left
	bytes int64 // left
}

func (d *digester) folder(path, name string) error {
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return fileProblem(path, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if os.IsNotExist(err) {
			continue // it went meanwhile
		}
		if err != nil {
			return fileProblem(path, err)
		}
		if err := d.entry(filepath.Join(path, e.Name()), filepath.Join(name, e.Name()), info); err != nil {
			return err
		}
	}
	return nil
}

// entry adds one file, and what is below it. Of a socket or a device only its
// name and kind count.
func (d *digester) entry(path, name string, info fs.FileInfo) error {
	if d.files--; d.files < 0 {
		return &fileError{d.root, fmt.Sprintf("holds more than %d files", maxWatchedFiles)}
	}
	fmt.Fprintf(d.h, "%d:%s %o\n", len(name), name, info.Mode())
	switch {
	case info.IsDir():
		return d.folder(path, name)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return fileProblem(path, err)
		}
		fmt.Fprintf(d.h, "%d:%s\n", len(target), target)
	case info.Mode().IsRegular():
		return d.content(path)
	}
	return nil
}

func (d *digester) content(path string) error {
	// What became a FIFO meanwhile must not hold us up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fileProblem(path, err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, d.bytes+1))
	if err != nil {
		return fileProblem(path, err)
	}
	if d.bytes -= n; d.bytes < 0 {
		return &fileError{d.root, "holds more than " + size(maxWatchedBytes)}
	}
	d.h.Write(sum.Sum(nil))
	return nil
}
