package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Pack writes what is at a path of the root to w, as a tar. Its first entry has
// the path's last element for a name, "." if that is the root; the rest lies
// below. Sockets are left out, and what goes away meanwhile. With follow a path
// that is a link stands for where it leads.
func (r *Root) Pack(w io.Writer, name string, follow bool) error {
	st, err := r.Stat(name, follow)
	if err != nil {
		return err
	}
	p := packer{tar: tar.NewWriter(w), links: map[inode]string{}}
	base := path.Base(clean(name))
	if st.Path == "/" || clean(name) == "." {
		base = "."
	}
	if err := r.packOne(&p, st.Path, base); err != nil {
		return err
	}
	return p.tar.Close()
}

func (r *Root) packOne(p *packer, at, as string) error {
	if at == "/" {
		f, err := r.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		return p.folder(f, as)
	}
	dir, base, err := r.parent(at)
	if err != nil {
		return err
	}
	defer dir.Close()
	return p.entry(int(dir.Fd()), base, as)
}

type inode struct{ dev, ino uint64 }

// packer writes entries; links of one file after the first are hard links.
type packer struct {
	tar   *tar.Writer
	links map[inode]string
	layer bool
}

// entry writes dir/name under the name as. A file is opened before it is looked
// at, without following a link and without waiting for a pipe.
func (p *packer) entry(dir int, name, as string) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: as, Err: err}
	}
	f := os.NewFile(uintptr(fd), as)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: as, Err: err}
	}
	h := header(&st, as)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		in, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return gone(&fs.PathError{Op: "open", Path: as, Err: err})
		}
		return p.folder(os.NewFile(uintptr(in), as), as)
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = readlink(fd, ""); err != nil {
			return err
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		if p.layer && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return p.removed(as)
		}
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFREG:
		return p.file(dir, name, as, h, &st)
	default:
		return nil // a socket
	}
	return p.tar.WriteHeader(h)
}

// gone drops the error of what was removed meanwhile.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func header(st *unix.Stat_t, as string) *tar.Header {
	return &tar.Header{
		Name: as, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
}

// file writes a regular file. Its size is what it was when it was opened: one
// that grows is cut, one that shrinks is filled with zeros.
func (p *packer) file(dir int, name, as string, h *tar.Header, st *unix.Stat_t) error {
	at := inode{st.Dev, st.Ino}
	if first, again := p.links[at]; again && st.Nlink > 1 {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return p.tar.WriteHeader(h)
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return gone(&fs.PathError{Op: "open", Path: as, Err: err})
	}
	f := os.NewFile(uintptr(fd), as)
	defer f.Close()
	if err := unix.Fstat(fd, st); err != nil {
		return &fs.PathError{Op: "stat", Path: as, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil // it was swapped
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	if p.layer {
		capabilities(fd, h)
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", as, err)
	}
	n, err := io.Copy(p.tar, io.LimitReader(f, st.Size))
	if err != nil {
		return fmt.Errorf("write %s: %w", as, err)
	}
	if _, err := io.CopyN(p.tar, zeros{}, st.Size-n); err != nil {
		return fmt.Errorf("write %s: %w", as, err)
	}
	if st.Nlink > 1 {
		p.links[at] = as
	}
	return nil
}

// folder writes an open folder and what is in it, and closes it.
func (p *packer) folder(f *os.File, as string) error {
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: as, Err: err}
	}
	h := header(&st, as+"/")
	h.Typeflag = tar.TypeDir
	if !p.layer || as != "." { // a layer has no root of its own
		if err := p.tar.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", as, err)
		}
	}
	if p.layer {
		if err := p.folderOfLayer(int(f.Fd()), as); err != nil {
			return err
		}
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := p.entry(int(f.Fd()), n, path.Join(as, n)); err != nil {
			return err
		}
	}
	return nil
}

type zeros struct{}

// Read fills p.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Item is one path of the root, and its name in a tar.
type Item struct{ Path, As string }

// PackItems writes items to w, as a tar: what each path is, and all below it.
// One that is gone is left out.
func (r *Root) PackItems(w io.Writer, items []Item) error {
	p := packer{tar: tar.NewWriter(w), links: map[inode]string{}}
	for _, i := range items {
		if err := gone(r.packOne(&p, i.Path, i.As)); err != nil {
			return err
		}
	}
	return p.tar.Close()
}

// PackLayer writes the whole root to w as a layer of an image, taking it for
// the upper folder of an overlay: what stands there for "removed" becomes a
// whiteout (OCI image-spec, layer.md).
func (r *Root) PackLayer(w io.Writer) error {
	p := packer{tar: tar.NewWriter(w), links: map[inode]string{}, layer: true}
	if err := r.packOne(&p, "/", "."); err != nil {
		return err
	}
	return p.tar.Close()
}

// Whiteouts of an image's layer.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// removed writes the whiteout of an entry.
func (p *packer) removed(as string) error {
	dir, base := path.Split(as)
	return p.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dir + whiteout + base, Mode: 0o600})
}

// folderOfLayer writes what an overlay notes at a folder.
func (p *packer) folderOfLayer(fd int, as string) error {
	if _, err := unix.Fgetxattr(fd, "trusted.overlay.redirect", nil); err == nil {
		return fmt.Errorf("%s was renamed by way of the overlay, which a layer can't tell", as)
	}
	value := make([]byte, 1)
	if n, err := unix.Fgetxattr(fd, "trusted.overlay.opaque", value); err != nil || n != 1 || value[0] != 'y' {
		return nil //nolint:nilerr // it is not opaque
	}
	return p.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(as, opaque), Mode: 0o600})
}

// capabilities are kept in a layer: without them the file is another program.
func capabilities(fd int, h *tar.Header) {
	value := make([]byte, 64)
	if n, err := unix.Fgetxattr(fd, "security.capability", value); err == nil && n > 0 {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": string(value[:n])}
	}
}
