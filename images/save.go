package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Save writes images as one tar that is a docker-archive and an OCI layout at
// once, as `docker save` does since version 25: `docker load`, `podman load`
// and Load read it. The same images give the same bytes. An image named by
// digest or id is written without a name.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string) error {
	p := saving{blobs: map[string]savedBlob{}}
	release, err := s.plan(&p, refs)
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	defer release()
	t := tar.NewWriter(w)
	if err := s.write(ctx, t, &p); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// saving is the content of an archive to be.
type saving struct {
	blobs map[string]savedBlob // by digest
	items []dockerItem
	index []v1.Descriptor
	seen  map[string]int // manifest digest -> place in items
}

type savedBlob struct {
	content []byte // or, if nil, the blob of the store
	size    int64
}

func (s *Store) plan(p *saving, refs []string) (release func(), err error) {
	p.seen = map[string]int{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range refs {
		rec, err := s.find(ref)
		if err != nil {
			return nil, err
		}
		name := ""
		if canonical, bad := ParseReference(ref); bad == nil && s.refs[canonical] != nil {
			name = canonical
		}
		if err := s.planOne(p, rec, name); err != nil {
			return nil, err
		}
	}
	leases := make([]string, 0, len(p.blobs))
	for d := range p.blobs {
		leases = append(leases, d)
	}
	return s.leaseLocked(leases), nil
}

// planOne adds one image; s.mu must be held.
func (s *Store) planOne(p *saving, rec *imageRecord, name string) error {
	d, m, err := s.savable(rec)
	if err != nil {
		return err
	}
	i, again := p.seen[d.digest]
	if !again {
		item := dockerItem{Config: layoutPath(rec.ID), RepoTags: []string{}, Layers: []string{}}
		for _, l := range m.Layers {
			item.Layers = append(item.Layers, layoutPath(l.Digest.String()))
			p.blobs[l.Digest.String()] = savedBlob{size: l.Size}
		}
		p.blobs[d.digest] = savedBlob{content: d.raw, size: int64(len(d.raw))}
		p.blobs[rec.ID] = savedBlob{content: rec.RawConfig, size: int64(len(rec.RawConfig))}
		i = len(p.items)
		p.seen[d.digest] = i
		p.items = append(p.items, item)
	}
	desc := v1.Descriptor{MediaType: types.MediaType(d.mediaType), Size: int64(len(d.raw)), Digest: hashOf(d.digest)}
	if name == "" {
		if !again {
			p.index = append(p.index, desc)
		}
		return nil
	}
	if slices.Contains(p.items[i].RepoTags, Familiar(name)) {
		return nil
	}
	p.items[i].RepoTags = append(p.items[i].RepoTags, Familiar(name))
	named, err := parse(name)
	if err != nil {
		return err
	}
	desc.Annotations = map[string]string{annotationName: name, annotationRef: selector(named)}
	p.index = append(p.index, desc)
	return nil
}

// savable is the manifest to write. It is the image's own, unless a layer was
// shared with another image that has it in other clothes (compressed
// differently): then the store never fetched this one's blob, and the manifest
// names the one it has. The image id stays the same.
func (s *Store) savable(rec *imageRecord) (document, *v1.Manifest, error) {
	d := document{raw: rec.Manifest, digest: rec.Digest, mediaType: rec.MediaType}
	m, err := v1.ParseManifest(bytes.NewReader(rec.Manifest))
	if err != nil {
		return d, nil, fmt.Errorf("manifest of %s: %w", short(rec.Digest), err)
	}
	changed := false
	for i, desc := range m.Layers {
		if s.hasBlob(desc.Digest.String(), desc.Size) {
			continue
		}
		l := s.layers[rec.Keys[i]]
		if l == nil || !s.hasBlob(l.Blob, l.BlobSize) {
			return d, nil, fmt.Errorf("layer %s of %s: %w: pull the image again", short(desc.Digest.String()), short(rec.Digest), ErrNotFound)
		}
		m.Layers[i] = v1.Descriptor{MediaType: types.MediaType(l.MediaType), Size: l.BlobSize, Digest: hashOf(l.Blob)}
		changed = true
	}
	if changed {
		m.MediaType = types.OCIManifestSchema1
		m.Config.MediaType = types.OCIConfigJSON
		d, err = newDocument(m)
	}
	return d, m, err
}

func (s *Store) write(ctx context.Context, t *tar.Writer, p *saving) error {
	digests := make([]string, 0, len(p.blobs))
	for d := range p.blobs {
		digests = append(digests, d)
	}
	sort.Strings(digests)
	for _, d := range digests {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := p.blobs[d]
		if b.content != nil {
			if err := writeFile(t, layoutPath(d), b.size, bytes.NewReader(b.content)); err != nil {
				return err
			}
			continue
		}
		f, err := os.Open(s.blobPath(d))
		if err != nil {
			return fmt.Errorf("layer %s: %w", short(d), err)
		}
		err = writeFile(t, layoutPath(d), b.size, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: p.index}
	for _, doc := range []struct {
		name string
		v    any
	}{{"index.json", index}, {"manifest.json", p.items}, {layoutFile, json.RawMessage(layoutContent)}} {
		raw, err := json.Marshal(doc.v)
		if err != nil {
			return fmt.Errorf("write %s: %w", doc.name, err)
		}
		if err := writeFile(t, doc.name, int64(len(raw)), bytes.NewReader(raw)); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(t *tar.Writer, name string, size int64, r io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o444, ModTime: time.Unix(0, 0)}
	if err := t.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := io.Copy(t, r); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
