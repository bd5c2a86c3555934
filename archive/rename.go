package archive

import (
	"archive/tar"
	"errors"
	"io"
	"time"
)

// Rename writes the tar that pack makes to w, with the names that rename gives
// to its entries and to those that hard links lead to; "" leaves an entry out.
// A folder that has to be there first is its first entry, unless it is "".
func Rename(w io.Writer, pack func(io.Writer) error, folder string, rename func(string) string) error {
	r, p := io.Pipe()
	go func() { p.CloseWithError(pack(p)) }()
	defer r.Close()
	from, to := tar.NewReader(r), tar.NewWriter(w)
	if folder != "" {
		if err := to.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder + "/", Mode: 0o755, ModTime: time.Now()}); err != nil {
			return err
		}
	}
	for {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			return to.Close()
		}
		if err != nil {
			return err
		}
		name := rename(clean(h.Name))
		if name == "" {
			continue
		}
		if h.Name = name; h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = rename(clean(h.Linkname))
		}
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil {
			return err
		}
	}
}
