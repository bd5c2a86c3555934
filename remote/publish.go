package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	registry "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is a file of a stack that is published. Name is relative to the folder
// of the stack.
type File struct {
	Name string
	Data []byte
	// Env says that it is an env_file, not a Compose file.
	Env bool
}

// manifest is an OCI manifest of an artifact; go-containerregistry's has no
// artifactType.
type manifest struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     types.MediaType `json:"mediaType"`
	ArtifactType  string          `json:"artifactType"`
	Config        v1.Descriptor   `json:"config"`
	Layers        []v1.Descriptor `json:"layers"`
}

// taggable is a manifest as it is pushed.
type taggable []byte

func (t taggable) RawManifest() ([]byte, error)      { return t, nil }
func (taggable) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// Publish pushes files as an artifact, for `-f oci://…`, and gives the digest
// of its manifest. Compose files are merged in their order when they are read.
func Publish(ctx context.Context, ref string, files []File) (digest string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return "", fmt.Errorf("publish %s: %w", ref, err)
	}
	m := manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: artifactType}
	push := func(data []byte, kind types.MediaType) (v1.Descriptor, error) {
		layer := static.NewLayer(data, kind)
		if err := registry.WriteLayer(parsed.Context(), layer, options(ctx)...); err != nil {
			return v1.Descriptor{}, fmt.Errorf("publish %s: %w", ref, err)
		}
		digest, err := layer.Digest()
		return v1.Descriptor{MediaType: kind, Digest: digest, Size: int64(len(data))}, err
	}
	if m.Config, err = push([]byte("{}"), emptyType); err != nil {
		return "", err
	}
	total := 0
	for _, f := range files {
		if total += len(f.Data); len(f.Data) > maxFile || total > maxArtifact {
			return "", fmt.Errorf("publish %s: %s is too large: a file may hold %d bytes, all of them %d", ref, f.Name, maxFile, maxArtifact)
		}
		if !filepath.IsLocal(f.Name) {
			return "", fmt.Errorf("publish %s: %s is outside of the stack's folder", ref, f.Name)
		}
		kind, key := composeType, fileAnnotation
		if f.Env {
			kind, key = envType, envAnnotation
		}
		d, err := push(f.Data, kind)
		if err != nil {
			return "", err
		}
		d.Annotations = map[string]string{key: f.Name}
		m.Layers = append(m.Layers, d)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("encode the manifest: %w", err)
	}
	if err := registry.Put(parsed, taggable(raw), options(ctx)...); err != nil {
		return "", fmt.Errorf("publish %s: %w", ref, err)
	}
	sum, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return "", fmt.Errorf("digest of the manifest: %w", err)
	}
	return sum.String(), nil
}

// Digest is what an image's tag names now, in its registry.
func Digest(ctx context.Context, image string) (string, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", fmt.Errorf("find the digest of %s: %w", image, err)
	}
	d, err := registry.Head(ref, options(ctx)...)
	if err != nil {
		return "", fmt.Errorf("find the digest of %s: %w", image, err)
	}
	return d.Digest.String(), nil
}
