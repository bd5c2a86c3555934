package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// CommitOptions say what Commit makes beside the layer.
type CommitOptions struct {
	Reference string // "": it has no name
	Author    string
	Comment   string
	Config    v1.Config // as the new image has it
}

// Commit makes an image of another one and one more layer, an uncompressed tar
// that layer writes. The layers below are shared.
func (s *Store) Commit(ctx context.Context, base string, layer func(io.Writer) error, o CommitOptions) (Image, error) {
	name := ""
	if o.Reference != "" {
		named, err := parse(o.Reference)
		if err != nil {
			return Image{}, err
		}
		name = named.String()
	}
	s.mu.RLock()
	rec, err := s.find(base)
	s.mu.RUnlock()
	if err != nil {
		return Image{}, fmt.Errorf("commit: %w", err)
	}
	img, err := s.commitLayer(ctx, rec, layer, o, name)
	if err != nil {
		return Image{}, fmt.Errorf("commit: %w", err)
	}
	return img, nil
}

func (s *Store) commitLayer(ctx context.Context, base *imageRecord, layer func(io.Writer) error, o CommitOptions, name string) (Image, error) {
	digest, size, release, err := s.spool(layer)
	defer release()
	if err != nil {
		return Image{}, err
	}
	cf, raw, err := o.config(base, digest)
	if err != nil {
		return Image{}, err
	}
	m, err := v1.ParseManifest(bytes.NewReader(base.Manifest))
	if err != nil {
		return Image{}, fmt.Errorf("manifest of %s: %w", short(base.Digest), err)
	}
	kind := types.OCIUncompressedLayer
	if m.MediaType == types.DockerManifestSchema2 {
		kind = types.DockerUncompressedLayer
	}
	m.Layers = append(m.Layers, v1.Descriptor{MediaType: kind, Size: size, Digest: hashOf(digest)})
	m.Config.Size, m.Config.Digest = int64(len(raw)), hashOf(digestOf(raw))
	d, err := newDocument(m)
	if err != nil {
		return Image{}, err
	}
	if m.MediaType != "" {
		d.mediaType = string(m.MediaType)
	}
	blobs := make([]blob, len(m.Layers))
	for i, l := range m.Layers {
		blobs[i] = blob{l.Digest.String(), l.Size, string(l.MediaType)}
	}
	none := func(context.Context, int) (*source, error) { return nil, errNoSource }
	rec, done, err := s.assemble(ctx, d, cf, raw, blobs, none, reporter{name, nil})
	defer done()
	if err != nil {
		return Image{}, err
	}
	c := change{images: map[string]*imageRecord{rec.Digest: rec}, refs: map[string]*refRecord{}}
	if name != "" {
		c.refs[name] = &refRecord{Digest: rec.Digest, Pulled: time.Now().UTC()}
	}
	if err := s.settle(c); err != nil {
		return Image{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.withNames(rec), nil
}

// spool brings a layer into blobs/; release gives it up to collection.
func (s *Store) spool(layer func(io.Writer) error) (digest string, size int64, release func(), err error) {
	release = func() {}
	f, err := os.CreateTemp(s.path("ingest"), "commit-")
	if err != nil {
		return "", 0, release, fmt.Errorf("write the layer: %w", diskError(err))
	}
	defer os.Remove(f.Name()) // unless it was renamed
	defer f.Close()
	sum := sha256.New()
	if err := layer(io.MultiWriter(f, sum)); err != nil {
		return "", 0, release, fmt.Errorf("write the layer: %w", diskError(err))
	}
	if size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return "", 0, release, fmt.Errorf("write the layer: %w", err)
	}
	digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	release = s.lease(digest)
	return digest, size, release, s.publish(f, digest)
}

// config is the base's with what the commit adds.
func (o *CommitOptions) config(base *imageRecord, diffID string) (*v1.ConfigFile, []byte, error) {
	cf, err := v1.ParseConfigFile(bytes.NewReader(base.RawConfig))
	if err != nil {
		return nil, nil, fmt.Errorf("config of %s: %w", short(base.Digest), err)
	}
	now := v1.Time{Time: time.Now().UTC()}
	cf.Created, cf.Author, cf.Config = now, o.Author, o.Config
	cf.RootFS.DiffIDs = append(cf.RootFS.DiffIDs, hashOf(diffID))
	cf.History = append(cf.History, v1.History{Created: now, Author: o.Author, Comment: o.Comment, CreatedBy: "berth commit"})
	raw, err := json.Marshal(cf)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the config: %w", err)
	}
	return cf, raw, nil
}
