package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"berth/crash"
)

// The records live in bbolt, not in single JSON files, because an image, its
// reference and its layers must appear and vanish together; bbolt does that in
// one fsync and its file lock keeps a second agent out. They are few and small,
// so all of them are also held in memory: reads never touch the disk.

// imageRecord is an image as it came, and the layers it is mounted from.
type imageRecord struct {
	Image
	Manifest  []byte `json:"manifest"`
	MediaType string `json:"mediaType"`
	RawConfig []byte `json:"rawConfig"`
	// Keys are the layer records, base first; one per diff id.
	Keys []string `json:"keys"`
}

// refRecord says what a reference means since the last pull, load or tag.
type refRecord struct {
	Digest string `json:"digest"`
	// Source is the digest the registry gave for the reference: of an index or
	// of the manifest itself. "" if it wasn't pulled.
	Source   string    `json:"source,omitempty"`
	Platform string    `json:"platform,omitempty"` // as asked for, "" for the machine's
	Pulled   time.Time `json:"pulled"`
}

// layerRecord is an unpacked layer, in directory layers/<Dir>.
//
// Its key is the diff id, so that all images share it. A layer whose archive
// leaves out parent directories takes their mode and owner from the layers
// below: then it belongs to those and its key is "chain:" + chain id.
type layerRecord struct {
	Dir       uint64 `json:"dir"`
	DiffID    string `json:"diffID"`
	Blob      string `json:"blob"` // digest of the file in blobs/ it was unpacked from
	BlobSize  int64  `json:"blobSize"`
	TarSize   int64  `json:"tarSize"` // length of the uncompressed archive
	Bytes     int64  `json:"bytes"`   // of the regular files
	MediaType string `json:"mediaType"`

	// durable: the record is in the database and what it names on the disk.
	durable bool
}

var (
	bucketImages = []byte("images")
	bucketRefs   = []byte("references")
	bucketLayers = []byte("layers")
)

// change is what one transaction does; a nil record deletes.
type change struct {
	images map[string]*imageRecord
	refs   map[string]*refRecord
	layers map[string]*layerRecord
}

func openRecords(path string) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open image store %s: another process has it open", filepath.Dir(path))
	case err != nil:
		return nil, fmt.Errorf("open image records %s: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketImages, bucketRefs, bucketLayers} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare image records %s: %w", path, diskError(err)), db.Close())
	}
	return db, nil
}

// load fills the maps of s.
func (s *Store) load() error {
	return s.db.View(func(tx *bolt.Tx) error {
		return errors.Join(
			decodeAll(tx.Bucket(bucketImages), s.images),
			decodeAll(tx.Bucket(bucketRefs), s.refs),
			decodeAll(tx.Bucket(bucketLayers), s.layers),
		)
	})
}

func decodeAll[R any](b *bolt.Bucket, into map[string]*R) error {
	return b.ForEach(func(k, v []byte) error {
		r := new(R)
		if err := json.Unmarshal(v, r); err != nil {
			return fmt.Errorf("image record %q: %w", k, err)
		}
		into[string(k)] = r
		return nil
	})
}

func encodeAll[R any](b *bolt.Bucket, records map[string]*R) error {
	for k, r := range records {
		if r == nil {
			if err := b.Delete([]byte(k)); err != nil {
				return err
			}
			continue
		}
		v, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := b.Put([]byte(k), v); err != nil {
			return err
		}
	}
	return nil
}

// commit makes c durable, then visible. s.mu must be held for writing.
func (s *Store) commit(c change) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		return errors.Join(
			encodeAll(tx.Bucket(bucketImages), c.images),
			encodeAll(tx.Bucket(bucketRefs), c.refs),
			encodeAll(tx.Bucket(bucketLayers), c.layers),
		)
	})
	if err != nil {
		return fmt.Errorf("write image records: %w", diskError(err))
	}
	crash.At("image.recorded")
	apply(s.images, c.images)
	apply(s.refs, c.refs)
	apply(s.layers, c.layers)
	s.listed.Store(nil)
	return nil
}

func apply[R any](to, from map[string]*R) {
	for k, r := range from {
		if r == nil {
			delete(to, k)
		} else {
			to[k] = r
		}
	}
}

// settle writes the records of layers that are unpacked but not yet durable,
// together with c. One syncfs covers the files of all of them: fsync of each
// file would cost seconds for a layer of many small files.
func (s *Store) settle(c change) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.RLock()
	fresh := map[string]*layerRecord{}
	for k, l := range s.layers {
		if !l.durable {
			copied := *l
			copied.durable = true
			fresh[k] = &copied
		}
	}
	s.mu.RUnlock()
	if len(fresh) > 0 {
		if err := syncTree(s.cfg.Root); err != nil {
			return err
		}
		crash.At("layers.synced")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range fresh {
		if s.layers[k] == nil { // collected meanwhile
			delete(fresh, k)
		}
	}
	if len(fresh) == 0 && len(c.images)+len(c.refs) == 0 {
		return nil
	}
	c.layers = fresh
	return s.commit(c)
}

// syncTree writes out everything dirty on the file system of dir.
func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync image store: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync image store %s: %w", dir, diskError(err))
	}
	return nil
}
