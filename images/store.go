package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Store is the images of one agent. Its methods may be called at the same
// time; Close must come last.
//
// On disk, below Config.Root (0700):
//
//	meta.db    records: images, references, layers
//	blobs/     layers as they came, by hex digest
//	ingest/    downloads under way, by hex digest of what they will be
//	layers/    unpacked layers, by number
//	unpack/    layers being unpacked
//	trash/     what is being deleted
//	empty/     the only layer of an image without layers
type Store struct {
	cfg       Config
	limits    limits
	db        *bolt.DB
	slots     chan struct{}    // one per layer being fetched
	layer     flight[*fetched] // by diff id
	questions flight[*found]   // by reference, platform and credentials
	sweeps    sync.WaitGroup
	lastID    atomic.Uint64

	// settling serialises syncfs with the records that depend on it.
	settling sync.Mutex

	mu     sync.RWMutex // guards the maps
	images map[string]*imageRecord
	refs   map[string]*refRecord
	layers map[string]*layerRecord
	// leases count who is about to use a diff id or a blob digest that no
	// image names yet; collection leaves them alone.
	leases map[string]int

	listed  atomic.Pointer[[]Image] // List, until the next commit
	mounts  sync.Mutex
	oldAPI  atomic.Bool // the kernel lacks lowerdir+
	newAPI  atomic.Bool // lowerdir+ has worked
	sources sources
}

// Open opens the store below c.Root, or makes it, and collects what a crash
// left behind. A second Open of the same root fails while the first is open.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Root == "" || !filepath.IsAbs(c.Root) {
		return nil, fmt.Errorf("open image store: root %q is not an absolute path", c.Root)
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	src, err := newSources(c.Registries)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: c, limits: defaultLimits, slots: make(chan struct{}, c.Parallel), sources: src,
		images: map[string]*imageRecord{}, refs: map[string]*refRecord{},
		layers: map[string]*layerRecord{}, leases: map[string]int{},
	}
	for _, d := range []string{"", "blobs", "ingest", "layers", "unpack", "trash"} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, fmt.Errorf("make image store: %w", diskError(err))
		}
	}
	if err := os.MkdirAll(s.path("empty"), 0o755); err != nil {
		return nil, fmt.Errorf("make image store: %w", diskError(err))
	}
	// Layers hold setuid files: no other user of the machine may reach them.
	if err := os.Chmod(c.Root, 0o700); err != nil {
		return nil, fmt.Errorf("make image store private: %w", err)
	}
	if s.db, err = openRecords(s.path("meta.db")); err != nil {
		return nil, err
	}
	err = s.load()
	if err == nil {
		err = s.collectLeftovers(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// Close waits for deletions under way and closes the records. Pulls must have
// ended. What is mounted stays mounted.
func (s *Store) Close() error {
	s.sweeps.Wait()
	s.sources.close()
	return s.db.Close()
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Root}, elem...)...)
}

func (s *Store) layerDir(l *layerRecord) string {
	return filepath.Join(s.cfg.Root, "layers", strconv.FormatUint(l.Dir, 10))
}

// List returns all images, newest first.
func (s *Store) List() ([]Image, error) {
	if l := s.listed.Load(); l != nil {
		return append([]Image(nil), *l...), nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := map[string][]string{}
	for ref, r := range s.refs {
		names[r.Digest] = append(names[r.Digest], ref)
	}
	list := make([]Image, 0, len(s.images))
	for d, r := range s.images {
		img := r.Image
		img.References = names[d]
		sort.Strings(img.References)
		list = append(list, img)
	}
	sort.Slice(list, func(i, j int) bool {
		if !list[i].Created.Equal(list[j].Created) {
			return list[i].Created.After(list[j].Created)
		}
		return list[i].Digest < list[j].Digest
	})
	// Stored under the read lock: a commit, which clears it, comes after.
	s.listed.Store(&list)
	return append([]Image(nil), list...), nil
}

// Resolve finds an image by reference, by digest or id, or by a prefix of at
// least 4 hex digits of either. A name wins over a prefix, as with Docker.
func (s *Store) Resolve(ref string) (Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, err := s.find(ref)
	if err != nil {
		return Image{}, err
	}
	return s.withNames(r), nil
}

// find is Resolve; s.mu must be held.
func (s *Store) find(ref string) (*imageRecord, error) {
	if r, ok := s.images[ref]; ok {
		return r, nil
	}
	if named, err := parse(ref); err == nil {
		if r := s.lookup(named.String(), wantedDigest(named)); r != nil {
			return r, nil
		}
	}
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) < 4 || strings.Trim(hex, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%s: %w", ref, ErrNotFound)
	}
	var found *imageRecord
	for d, r := range s.images {
		if !strings.HasPrefix(d, "sha256:"+hex) && !strings.HasPrefix(r.ID, "sha256:"+hex) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s: %w: it fits %s and %s; write more digits", ref, ErrAmbiguous, short(found.Digest), short(d))
		}
		found = r
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w", ref, ErrNotFound)
	}
	return found, nil
}

// lookup finds what a canonical reference means here, nil if nothing. A digest
// is found whatever name it was pulled by: it can only be that content.
func (s *Store) lookup(canonical, digest string) *imageRecord {
	if r, ok := s.refs[canonical]; ok {
		return s.images[r.Digest]
	}
	if digest == "" {
		return nil
	}
	if r, ok := s.images[digest]; ok {
		return r
	}
	for _, r := range s.refs {
		if r.Source == digest {
			return s.images[r.Digest]
		}
	}
	return nil
}

func (s *Store) withNames(r *imageRecord) Image {
	img := r.Image
	img.References = s.names(r.Digest)
	return img
}

// names of an image, sorted; s.mu must be held.
func (s *Store) names(digest string) []string {
	var names []string
	for ref, r := range s.refs {
		if r.Digest == digest {
			names = append(names, ref)
		}
	}
	sort.Strings(names)
	return names
}

// Tag makes ref mean the image with digest (a reference or a prefix will do).
func (s *Store) Tag(ref, digest string) error {
	named, err := parse(ref)
	if err != nil {
		return err
	}
	if wantedDigest(named) != "" {
		return fmt.Errorf("%w %q: a tag can't hold a digest", ErrReference, ref)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(digest)
	if err != nil {
		return err
	}
	return s.commit(change{refs: map[string]*refRecord{
		named.String(): {Digest: r.Digest, Pulled: time.Now().UTC()},
	}})
}

// short is a digest as people read it: 12 hex digits.
func short(digest string) string {
	hex := digest[strings.IndexByte(digest, ':')+1:]
	return hex[:min(12, len(hex))]
}
