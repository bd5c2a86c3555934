package images

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxArchiveFiles bounds the files of an archive given to Load.
const maxArchiveFiles = 20_000

// Load reads images from a docker-archive (docker save) or an OCI layout in a
// tar, which may be compressed, and gives them the references written in it.
// The archive needn't be seekable. Layers take the same way as those of a pull:
// what doesn't match its digest is refused. All images or none get their
// references.
func (s *Store) Load(ctx context.Context, r io.Reader, progress func(Progress)) ([]Image, error) {
	a, err := s.readArchive(ctx, r)
	defer a.close()
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	bundles, err := a.bundles()
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	c := change{images: map[string]*imageRecord{}, refs: map[string]*refRecord{}}
	var order []string
	for _, b := range bundles {
		rec, release, err := s.loadOne(ctx, a, b, progress)
		defer release()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("load %s: %w", b.name(), err), s.settle(change{}))
		}
		if c.images[rec.Digest] == nil {
			order = append(order, rec.Digest)
		}
		c.images[rec.Digest] = rec
		for _, ref := range b.refs {
			c.refs[ref] = &refRecord{Digest: rec.Digest, Pulled: time.Now().UTC()}
		}
	}
	if err := s.settle(c); err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Image
	for _, d := range order {
		out = append(out, s.withNames(c.images[d]))
	}
	return out, nil
}

func (s *Store) loadOne(ctx context.Context, a *archive, b bundle, progress func(Progress)) (*imageRecord, func(), error) {
	var blobs []blob
	var names []string
	for _, f := range b.layers {
		blobs = append(blobs, blob{f.digest, f.size, f.mediaType})
		names = append(names, f.digest)
	}
	release := s.lease(names...)
	chains := chainIDs(b.config.RootFS.DiffIDs)
	for i, f := range b.layers {
		if s.layerAt(b.config.RootFS.DiffIDs[i].String(), chains[i]) != "" || s.hasBlob(f.digest, f.size) {
			continue
		}
		if err := a.publish(f); err != nil {
			return nil, release, err
		}
	}
	none := func(context.Context, int) (*source, error) { return nil, errNoSource }
	rec, done, err := s.assemble(ctx, b.document, b.config, b.rawConfig, blobs, none, reporter{b.name(), progress})
	return rec, func() { done(); release() }, err
}

// archive is the content of a tar, spooled to disk: what its files are is
// written in the last of them.
type archive struct {
	store *Store
	files map[string]*archived
	links map[string]string
}

type archived struct {
	path      string // in ingest/
	digest    string
	size      int64
	mediaType string // as a layer
}

func (s *Store) readArchive(ctx context.Context, r io.Reader) (*archive, error) {
	a := &archive{store: s, files: map[string]*archived{}, links: map[string]string{}}
	body, err := decompress(r)
	if err != nil {
		return a, invalid("archive can't be read: %w", err)
	}
	defer body.Close()
	t := tar.NewReader(body)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return a, err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return a, invalid("archive can't be read: %w", err)
		}
		name, err := cleanName(h.Name)
		if err != nil || n >= maxArchiveFiles {
			return a, invalid("archive entry %q is refused", clip(h.Name))
		}
		switch h.Typeflag {
		case tar.TypeReg, 0:
			if err := a.spool(name, t); err != nil {
				return a, err
			}
		case tar.TypeSymlink: // older docker save: one layer used twice
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			a.links[name] = path.Clean(h.Linkname)
		}
	}
}

func (a *archive) spool(name string, r io.Reader) error {
	if old := a.files[name]; old != nil {
		os.Remove(old.path)
	}
	f, err := os.OpenFile(a.store.path("ingest", "load-"+strconv.FormatUint(a.store.newID(), 10)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return diskError(err)
	}
	defer f.Close()
	e := &archived{path: f.Name()}
	a.files[name] = e
	h := sha256.New()
	e.size, err = io.Copy(io.MultiWriter(f, h), io.LimitReader(r, a.store.limits.unpacked+1))
	if err != nil {
		return fmt.Errorf("read archive entry %q: %w", clip(name), diskError(err))
	}
	if e.size > a.store.limits.unpacked {
		return invalid("archive entry %q is larger than %d bytes", clip(name), a.store.limits.unpacked)
	}
	e.digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	magic := make([]byte, 4)
	n, _ := f.ReadAt(magic, 0)
	e.mediaType = mediaTypeOf(magic[:n])
	return nil
}

// close deletes what wasn't published.
func (a *archive) close() {
	for _, f := range a.files {
		os.Remove(f.path)
	}
}

// publish moves a spooled layer to the blobs.
func (a *archive) publish(e *archived) error {
	f, err := os.Open(e.path)
	if err != nil {
		return fmt.Errorf("store layer %s: %w", short(e.digest), err)
	}
	defer f.Close()
	return a.store.publish(f, e.digest)
}

// file finds an entry, through links.
func (a *archive) file(name string) (*archived, error) {
	at := path.Clean(strings.TrimPrefix(name, "/"))
	for range 8 {
		if e := a.files[at]; e != nil {
			return e, nil
		}
		next, ok := a.links[at]
		if !ok {
			break
		}
		at = next
	}
	return nil, invalid("archive lacks %q", clip(name))
}

// read returns a whole small file.
func (a *archive) read(name string, limit int64) ([]byte, error) {
	e, err := a.file(name)
	if err != nil {
		return nil, err
	}
	if e.size > limit {
		return nil, invalid("archive entry %q has %d bytes, at most %d are allowed", clip(name), e.size, limit)
	}
	return os.ReadFile(e.path)
}

// bundle is one image of an archive.
type bundle struct {
	document  document
	config    *v1.ConfigFile
	rawConfig []byte
	layers    []*archived
	refs      []string // canonical
}

func (b bundle) name() string {
	if len(b.refs) > 0 {
		return b.refs[0]
	}
	return short(b.document.digest)
}
