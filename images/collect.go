package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"time"

	"berth/crash"
)

// partialAge is how long an interrupted download is kept for its resumption.
const partialAge = 7 * 24 * time.Hour

// lease keeps diff ids and blob digests from collection until release.
func (s *Store) lease(keys ...string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaseLocked(keys)
}

// leaseLocked is lease for who holds s.mu for writing; release must not.
func (s *Store) leaseLocked(keys []string) (release func()) {
	for _, k := range keys {
		s.leases[k]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, k := range keys {
			if s.leases[k]--; s.leases[k] == 0 {
				delete(s.leases, k)
			}
		}
	}
}

// Remove takes ref away and, with its last reference, the image and whatever
// no other image needs. ref may be a digest or an id: then all references of
// the image go, which needs force if there are several. A pinned image is
// never deleted: ErrInUse.
func (s *Store) Remove(ref string, force bool, pinned map[string]bool) (Removed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(ref)
	if err != nil {
		return Removed{}, err
	}
	names := s.names(r.Digest)
	gone := names
	if named, err := parse(ref); err == nil && s.refs[named.String()] != nil {
		gone = []string{named.String()}
	} else if len(names) > 1 && !force {
		return Removed{}, fmt.Errorf("%s: %w: it has %d names; remove them one by one or use force", ref, ErrInUse, len(names))
	}
	last := len(gone) == len(names)
	if last && pinned[r.Digest] {
		return Removed{}, fmt.Errorf("%s: %w: a stack needs it; take the stack down first", ref, ErrInUse)
	}
	c := change{refs: map[string]*refRecord{}, images: map[string]*imageRecord{}}
	out := Removed{}
	for _, n := range gone {
		c.refs[n] = nil
		out.Untagged = append(out.Untagged, n)
	}
	if last {
		c.images[r.Digest] = nil
		out.Deleted = []string{r.Digest}
	}
	out.Bytes, err = s.sweep(c)
	return out, err
}

// Prune deletes images without a reference, with all also those with one,
// except the pinned; then every layer and blob that no image needs. Layers of
// a pull under way stay.
func (s *Store) Prune(all bool, pinned map[string]bool) (Removed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := change{refs: map[string]*refRecord{}, images: map[string]*imageRecord{}}
	out := Removed{}
	for d := range s.images {
		names := s.names(d)
		if pinned[d] || len(names) > 0 && !all {
			continue
		}
		c.images[d] = nil
		out.Deleted = append(out.Deleted, d)
		for _, n := range names {
			c.refs[n] = nil
			out.Untagged = append(out.Untagged, n)
		}
	}
	sort.Strings(out.Deleted)
	sort.Strings(out.Untagged)
	var err error
	out.Bytes, err = s.sweep(c)
	return out, err
}

// sweep commits c together with the removal of all layer records that no image
// left over needs, then moves their files to the trash. The records go first:
// a crash in between leaves files that the next Open collects, never a record
// of files that are gone. s.mu must be held for writing.
func (s *Store) sweep(c change) (bytes int64, err error) {
	usedLayers, usedBlobs := s.marked(c.images)
	c.layers = map[string]*layerRecord{}
	dirs := []string{}
	for k, l := range s.layers {
		if !usedLayers[k] {
			c.layers[k] = nil
			dirs = append(dirs, s.layerDir(l))
			bytes += l.Bytes
		}
	}
	if err := s.commit(c); err != nil {
		return 0, err
	}
	files, err := os.ReadDir(s.path("blobs"))
	if err != nil {
		return 0, fmt.Errorf("list blobs: %w", err)
	}
	for _, f := range files {
		if usedBlobs["sha256:"+f.Name()] {
			continue
		}
		if info, err := f.Info(); err == nil {
			bytes += info.Size()
		}
		dirs = append(dirs, s.path("blobs", f.Name()))
	}
	partials, freed := s.partials(0) // who prunes wants the space
	return bytes + freed, s.discard(append(dirs, partials...))
}

// marked are the layer keys and blob digests that images, except those that
// are nil in without, and leases need.
func (s *Store) marked(without map[string]*imageRecord) (layers, blobs map[string]bool) {
	layers, blobs = map[string]bool{}, map[string]bool{}
	for k := range s.leases {
		blobs[k] = true
	}
	for k, l := range s.layers {
		if s.leases[k] > 0 || s.leases[l.DiffID] > 0 || s.leases[l.Blob] > 0 {
			layers[k] = true
		}
	}
	for d, img := range s.images {
		if _, dropped := without[d]; dropped {
			continue
		}
		for _, k := range img.Keys {
			layers[k] = true
		}
	}
	for k := range layers {
		if l := s.layers[k]; l != nil {
			blobs[l.Blob] = true
		}
	}
	return layers, blobs
}

// partials are interrupted downloads that nobody has touched for age and that
// no pull is about to take up.
func (s *Store) partials(age time.Duration) (paths []string, bytes int64) {
	entries, err := os.ReadDir(s.path("ingest"))
	if err != nil {
		return nil, 0
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !isDigestName(e.Name()) || s.leases["sha256:"+e.Name()] > 0 || time.Since(info.ModTime()) < age {
			continue
		}
		paths = append(paths, s.path("ingest", e.Name()))
		bytes += info.Size()
	}
	return paths, bytes
}

// discard moves paths to the trash, which is quick, and deletes them in the
// background. Close waits for that.
func (s *Store) discard(paths []string) error {
	var moved []string
	for _, p := range paths {
		t := s.path("trash", strconv.FormatUint(s.newID(), 10))
		err := os.Rename(p, t)
		switch {
		case err == nil:
			moved = append(moved, t)
			crash.At("image.discarded")
		case !os.IsNotExist(err):
			return fmt.Errorf("discard %s: %w", p, err)
		}
	}
	if len(moved) > 0 {
		s.sweeps.Go(func() {
			for _, p := range moved {
				// What can't be deleted now is tried again by the next Open.
				_ = os.RemoveAll(p)
			}
		})
	}
	return nil
}

// isDigestName: a download, not a file that Load is reading.
func isDigestName(name string) bool { return len(name) == 64 }

func isRecent(e os.DirEntry) bool {
	info, err := e.Info()
	return err == nil && time.Since(info.ModTime()) < partialAge
}

// newID numbers layer directories and trash; it never repeats while a
// directory of that number exists.
func (s *Store) newID() uint64 { return s.lastID.Add(1) }

// collectLeftovers runs in Open, before anybody else uses the store.
func (s *Store) collectLeftovers(ctx context.Context) error {
	known, blobs := map[string]bool{}, map[string]bool{}
	for _, l := range s.layers {
		l.durable = true
		known[strconv.FormatUint(l.Dir, 10)] = true
		blobs[l.Blob] = true
	}
	var left []string
	for _, d := range []string{"trash", "unpack", "layers", "blobs", "ingest"} {
		entries, err := os.ReadDir(s.path(d))
		if err != nil {
			return fmt.Errorf("collect leftovers: %w", err)
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && d != "blobs" && d != "ingest" {
				s.lastID.Store(max(s.lastID.Load(), n))
			}
			switch {
			case d == "layers" && known[e.Name()],
				d == "blobs" && (blobs["sha256:"+e.Name()] || isRecent(e)), // of a pull that goes on
				d == "ingest" && isDigestName(e.Name()):
			default:
				left = append(left, filepath.Join(s.path(d), e.Name()))
			}
		}
	}
	stale, _ := s.partials(partialAge)
	return s.discard(append(left, stale...))
}
