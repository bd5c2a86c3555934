package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	registry "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The artifact, as `docker compose publish` makes it: a manifest with this
// type whose layers are the files, as they are.
const (
	artifactType   = "application/vnd.docker.compose.project"
	composeType    = types.MediaType("application/vnd.docker.compose.file+yaml")
	envType        = types.MediaType("application/vnd.docker.compose.envfile")
	emptyType      = types.MediaType("application/vnd.oci.empty.v1+json")
	fileAnnotation = "com.docker.compose.file"
	envAnnotation  = "com.docker.compose.envfile"
	extendsMark    = "com.docker.compose.extends"
)

func options(ctx context.Context) []registry.Option {
	return []registry.Option{registry.WithContext(ctx), registry.WithAuthFromKeychain(authn.DefaultKeychain)}
}

// artifact fetches a stack from a registry.
func (f Fetcher) artifact(ctx context.Context, ref string) (string, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return "", fmt.Errorf("fetch oci://%s: %w", ref, err)
	}
	got, err := registry.Get(parsed, options(ctx)...)
	if err != nil {
		return "", fmt.Errorf("fetch oci://%s: %w", ref, err)
	}
	root, err := f.keep(filepath.Join("oci", got.Digest.Hex), func(into string) error {
		return unpack(ctx, parsed, got, into)
	})
	if err != nil {
		return "", fmt.Errorf("fetch oci://%s: %w", ref, err)
	}
	return filepath.Join(root, names[0]), nil
}

// unpack writes the files of an artifact into a folder. Compose files become
// the documents of one, so that later ones are merged into earlier ones.
func unpack(ctx context.Context, ref name.Reference, got *registry.Descriptor, into string) error {
	var m struct {
		ArtifactType string          `json:"artifactType"`
		Layers       []v1.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(got.Manifest, &m); err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	var compose bytes.Buffer
	var total int64
	for _, layer := range m.Layers {
		if layer.MediaType != composeType && layer.MediaType != envType {
			continue
		}
		if total += layer.Size; layer.Size > maxFile || total > maxArtifact {
			return fmt.Errorf("a file of %d bytes, %d in all; the limits are %d and %d", layer.Size, total, maxFile, maxArtifact)
		}
		data, err := blob(ctx, ref, layer)
		if err != nil {
			return err
		}
		target := ""
		switch _, extended := layer.Annotations[extendsMark]; {
		case layer.MediaType == envType:
			target = layer.Annotations[envAnnotation]
		case extended:
			target = layer.Annotations[fileAnnotation]
		default:
			if compose.Len() > 0 {
				compose.WriteString("\n---\n")
			}
			compose.Write(data)
			continue
		}
		if err := writeInside(into, target, data); err != nil {
			return err
		}
	}
	if compose.Len() == 0 {
		return fmt.Errorf("it holds no Compose file (its type is %q)", m.ArtifactType)
	}
	return writeInside(into, names[0], compose.Bytes())
}

// writeInside writes a file that an artifact names, below a folder.
func writeInside(dir, file string, data []byte) error {
	if file == "" || !filepath.IsLocal(file) || strings.ContainsRune(file, 0) {
		return fmt.Errorf("the name %q of a file leads out of the artifact", file)
	}
	path := filepath.Join(dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make a folder of the artifact: %w", err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write a file of the artifact: %w", err)
	}
	return nil
}

// blob reads a layer, whose digest is verified.
func blob(ctx context.Context, ref name.Reference, d v1.Descriptor) ([]byte, error) {
	layer, err := registry.Layer(ref.Context().Digest(d.Digest.String()), options(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", d.Digest, err)
	}
	r, err := layer.Compressed()
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	if int64(len(data)) != d.Size {
		return nil, fmt.Errorf("fetch %s: its size is not %d bytes", d.Digest, d.Size)
	}
	return data, nil
}
