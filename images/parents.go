package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// settleLayer gives layer f its key. A layer that stands on its own has it
// already. One with implicit directories takes their attributes from the
// layers below (their keys, base first) and gets a key of its own place.
func (s *Store) settleLayer(ctx context.Context, f *fetched, b blob, diffID, chain string, below []string) (string, error) {
	if key := s.layerAt(diffID, chain); key != "" {
		return key, nil
	}
	if f == nil {
		return "", fmt.Errorf("layer %s: %w: it was deleted meanwhile", short(diffID), ErrNotFound)
	}
	tree, rec := f.take(), *f.record
	if tree == "" {
		// Another pull took the tree for its own stack.
		again, err := s.unpackBlob(ctx, b, diffID, &progress{})
		if err != nil {
			return "", err
		}
		tree, rec = again.take(), *again.record
	}
	var parents []string
	s.mu.RLock()
	for _, k := range below {
		parents = append(parents, s.layerDir(s.layers[k]))
	}
	s.mu.RUnlock()
	if err := inherit(tree, f.implicit, parents); err != nil {
		s.dropTree(tree)
		return "", err
	}
	key := "chain:" + chain
	return key, s.place(key, &rec, tree)
}

// inherit gives the directories of tree that its archive didn't list the mode,
// owner, times and attributes they have in the nearest of parents. Without
// this, a layer with var/www/index.html alone would make /var/www root's.
func inherit(tree string, dirs, parents []string) error {
	for _, d := range dirs {
		for i := len(parents) - 1; i >= 0; i-- {
			stop, err := inheritOne(tree, d, parents[i])
			if err != nil {
				return fmt.Errorf("take attributes of %q from the layers below: %w", clip(d), err)
			}
			if stop {
				break
			}
		}
	}
	return nil
}

// beneath never follows a link: the path below a layer is as hostile as its
// archive.
func beneath(root, name string, flags uint64) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer closeFD(dir)
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// inheritOne looks in one layer; stop when lower ones don't count any more.
func inheritOne(tree, name, parent string) (stop bool, err error) {
	from, err := beneath(parent, name, unix.O_RDONLY|unix.O_DIRECTORY)
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOENT):
		return hidesBelow(parent, name), nil
	default: // a file, a link or a whiteout hides what is below
		return true, nil
	}
	defer closeFD(from)
	to, err := beneath(tree, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return true, nil // the archive replaced it later
	}
	defer closeFD(to)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return true, err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return true, err
	}
	if err := copyXattrs(from, to); err != nil {
		return true, err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return true, err
	}
	return true, os.Chtimes("/proc/self/fd/"+strconv.Itoa(to), timeOf(st.Atim), timeOf(st.Mtim))
}

// hidesBelow: a parent of name is opaque in this layer.
func hidesBelow(layer, name string) bool {
	for {
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return false
		}
		name = name[:i]
		fd, err := beneath(layer, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			continue
		}
		n, err := unix.Fgetxattr(fd, overlayOpaque, make([]byte, 4))
		closeFD(fd)
		if err == nil && n > 0 {
			return true
		}
	}
}

func copyXattrs(from, to int) error {
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, list)
	if err != nil || n == 0 {
		return nil // no attributes, or a file system without
	}
	for _, k := range strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if !allowedXattr(k) {
			continue
		}
		v := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(from, k, v)
		if err != nil {
			return pathError("read attribute", k, err)
		}
		if err := unix.Fsetxattr(to, k, v[:n], 0); err != nil {
			return pathError("set attribute", k, err)
		}
	}
	return nil
}
