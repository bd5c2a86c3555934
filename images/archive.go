package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Annotations under which tools write an image's name into an OCI layout.
const (
	annotationName = "io.containerd.image.name"          // whole reference
	annotationRef  = "org.opencontainers.image.ref.name" // a tag or a whole reference
	layoutFile     = "oci-layout"                        // marks an OCI layout
	layoutContent  = `{"imageLayoutVersion":"1.0.0"}`    // image-spec, "oci-layout file"
)

// dockerItem is one image in manifest.json of a docker-archive.
type dockerItem struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// bundles finds the images. An archive that is both (docker save since 25) is
// read as an OCI layout, which keeps the manifests and so the digests.
func (a *archive) bundles() ([]bundle, error) {
	var items []dockerItem
	if _, err := a.file("manifest.json"); err == nil {
		raw, err := a.read("manifest.json", a.store.limits.manifest)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, invalid("manifest.json: %w", err)
		}
	}
	var out []bundle
	var err error
	if _, missing := a.file("index.json"); missing == nil {
		out, err = a.fromLayout(items)
	} else if items != nil {
		out, err = a.fromDocker(items)
	} else {
		return nil, invalid("archive has neither index.json nor manifest.json: make it with `docker save`, `podman save` or `buildah push oci-archive:`")
	}
	if err == nil && len(out) == 0 {
		err = invalid("archive holds no image")
	}
	return out, err
}

func (a *archive) fromLayout(items []dockerItem) ([]bundle, error) {
	raw, err := a.read("index.json", a.store.limits.manifest)
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, invalid("index.json: %w", err)
	}
	byDigest := map[string]int{}
	var out []bundle
	for _, desc := range index.Manifests {
		if desc.Platform != nil && desc.Platform.OS == "unknown" {
			continue
		}
		b, err := a.descend(desc, 0)
		if err != nil {
			return nil, err
		}
		i, again := byDigest[b.document.digest]
		if !again {
			i = len(out)
			byDigest[b.document.digest] = i
			out = append(out, b)
		}
		out[i].addRef(desc.Annotations[annotationName])
		if desc.Annotations[annotationName] == "" && strings.ContainsAny(desc.Annotations[annotationRef], ":/") {
			out[i].addRef(desc.Annotations[annotationRef])
		}
	}
	for _, it := range items {
		cfg, err := a.file(it.Config)
		if err != nil {
			continue
		}
		for i := range out {
			if cfg.digest == digestOf(out[i].rawConfig) {
				for _, t := range it.RepoTags {
					out[i].addRef(t)
				}
			}
		}
	}
	return out, nil
}

func (a *archive) descend(desc v1.Descriptor, depth int) (bundle, error) {
	if err := checkDigest(desc.Digest); err != nil {
		return bundle{}, invalid("index.json: %w", err)
	}
	raw, err := a.read(layoutPath(desc.Digest.String()), a.store.limits.manifest)
	if err != nil {
		return bundle{}, err
	}
	d := document{raw: raw, digest: digestOf(raw), mediaType: string(desc.MediaType)}
	if d.digest != desc.Digest.String() {
		return bundle{}, invalid("manifest %s: its content has digest %s", short(desc.Digest.String()), short(d.digest))
	}
	index, err := d.classify()
	if err != nil {
		return bundle{}, err
	}
	if !index {
		return a.bundle(d)
	}
	if depth >= a.store.limits.depth {
		return bundle{}, invalid("indexes are nested deeper than %d", a.store.limits.depth)
	}
	im, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return bundle{}, invalid("index %s: %w", short(d.digest), err)
	}
	here, err := parsePlatform("")
	if err != nil {
		return bundle{}, err
	}
	next, err := choose(im, here)
	if errors.Is(err, ErrPlatform) && len(im.Manifests) == 1 {
		next, err = im.Manifests[0], nil
	}
	if err != nil {
		return bundle{}, err
	}
	return a.descend(next, depth+1)
}

func layoutPath(digest string) string { return "blobs/sha256/" + hexOf(digest) }

// bundle gathers the files of a manifest of an OCI layout.
func (a *archive) bundle(d document) (bundle, error) {
	m, err := d.image(a.store.limits)
	if err != nil {
		return bundle{}, err
	}
	b := bundle{document: d}
	if b.rawConfig, err = a.read(layoutPath(m.Config.Digest.String()), a.store.limits.config); err != nil {
		return b, err
	}
	if b.config, err = parseConfig(b.rawConfig, m); err != nil {
		return b, err
	}
	for _, l := range m.Layers {
		f, err := a.file(layoutPath(l.Digest.String()))
		if err != nil {
			return b, err
		}
		if f.digest != l.Digest.String() || f.size != l.Size {
			return b, invalid("layer %s: its content has digest %s and %d bytes", short(l.Digest.String()), short(f.digest), f.size)
		}
		b.layers = append(b.layers, f)
	}
	return b, nil
}

// fromDocker makes the manifests that a plain docker-archive doesn't have. The
// same archive gives the same digests.
func (a *archive) fromDocker(items []dockerItem) ([]bundle, error) {
	var out []bundle
	for _, it := range items {
		raw, err := a.read(it.Config, a.store.limits.config)
		if err != nil {
			return nil, err
		}
		m := v1.Manifest{
			SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
			Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(raw)), Digest: hashOf(digestOf(raw))},
			Layers: []v1.Descriptor{},
		}
		b := bundle{rawConfig: raw}
		for _, name := range it.Layers {
			f, err := a.file(name)
			if err != nil {
				return nil, err
			}
			b.layers = append(b.layers, f)
			m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.MediaType(f.mediaType), Size: f.size, Digest: hashOf(f.digest)})
		}
		if b.document, err = newDocument(&m); err != nil {
			return nil, err
		}
		if _, err := b.document.image(a.store.limits); err != nil {
			return nil, err
		}
		if b.config, err = parseConfig(raw, &m); err != nil {
			return nil, err
		}
		for _, t := range it.RepoTags {
			b.addRef(t)
		}
		out = append(out, b)
	}
	return out, nil
}

func newDocument(m *v1.Manifest) (document, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return document{}, fmt.Errorf("write manifest: %w", err)
	}
	return document{raw: raw, digest: digestOf(raw), mediaType: string(m.MediaType)}, nil
}

func hashOf(digest string) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: hexOf(digest)} }

// addRef adds a name once; what isn't a reference is no name.
func (b *bundle) addRef(ref string) {
	canonical, err := ParseReference(ref)
	if err != nil || strings.Contains(canonical, "@") {
		return
	}
	for _, r := range b.refs {
		if r == canonical {
			return
		}
	}
	b.refs = append(b.refs, canonical)
}
