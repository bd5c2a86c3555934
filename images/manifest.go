package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// document is a manifest or an index, before it is known which.
type document struct {
	raw       []byte
	digest    string
	mediaType string
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// shape has every field that tells the kinds of documents apart.
type shape struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Layers        json.RawMessage `json:"layers"`
	Config        json.RawMessage `json:"config"`
	Manifests     json.RawMessage `json:"manifests"`
	FSLayers      json.RawMessage `json:"fsLayers"`
}

// classify says whether d is an index. A document that two readers could take
// for different things is refused (GHSA-77vh-xpmg-72qh, "ambiguous OCI
// manifest"): what was checked would not be what runs.
func (d *document) classify() (index bool, err error) {
	var s shape
	if err := json.Unmarshal(d.raw, &s); err != nil {
		return false, invalid("manifest %s: %w", short(d.digest), err)
	}
	if s.FSLayers != nil || s.SchemaVersion == 1 {
		return false, invalid("manifest %s has schema version 1, which is obsolete; push the image again with a current tool", short(d.digest))
	}
	if s.Manifests != nil && (s.Layers != nil || s.Config != nil) {
		return false, invalid("manifest %s has both manifests and layers", short(d.digest))
	}
	index = s.Manifests != nil
	if s.MediaType != "" {
		if d.mediaType != "" && isKnown(d.mediaType) && d.mediaType != s.MediaType {
			return false, invalid("manifest %s: mediaType %s came as Content-Type %s", short(d.digest), s.MediaType, d.mediaType)
		}
		d.mediaType = s.MediaType
	}
	switch mt := types.MediaType(d.mediaType); {
	case index && mt.IsImage(), !index && mt.IsIndex():
		return false, invalid("manifest %s: its fields don't match its mediaType %s", short(d.digest), d.mediaType)
	case !isKnown(d.mediaType) && index:
		d.mediaType = string(types.OCIImageIndex)
	case !isKnown(d.mediaType):
		d.mediaType = string(types.OCIManifestSchema1)
	}
	return index, nil
}

func isKnown(mediaType string) bool {
	mt := types.MediaType(mediaType)
	return mt.IsImage() || mt.IsIndex()
}

// image parses d as the manifest of one image and checks it against l.
func (d *document) image(l limits) (*v1.Manifest, error) {
	m, err := v1.ParseManifest(bytes.NewReader(d.raw))
	if err != nil {
		return nil, invalid("manifest %s: %w", short(d.digest), err)
	}
	if len(m.Layers) > l.layers {
		return nil, invalid("manifest %s has %d layers, at most %d are allowed", short(d.digest), len(m.Layers), l.layers)
	}
	if m.Config.Size <= 0 || m.Config.Size > l.config {
		return nil, invalid("manifest %s: config of %d bytes, at most %d are allowed", short(d.digest), m.Config.Size, l.config)
	}
	if err := checkDigest(m.Config.Digest); err != nil {
		return nil, invalid("manifest %s: config: %w", short(d.digest), err)
	}
	for i, desc := range m.Layers {
		switch {
		case len(desc.URLs) > 0:
			return nil, invalid("manifest %s: layer %d has urls: layers from foreign places aren't fetched", short(d.digest), i)
		case desc.Size < 0 || desc.Size > l.unpacked:
			return nil, invalid("manifest %s: layer %d has a size of %d bytes", short(d.digest), i, desc.Size)
		case !isLayer(desc.MediaType):
			return nil, invalid("manifest %s: layer %d has media type %q: this is no container image", short(d.digest), i, desc.MediaType)
		}
		if err := checkDigest(desc.Digest); err != nil {
			return nil, invalid("manifest %s: layer %d: %w", short(d.digest), i, err)
		}
	}
	return m, nil
}

func isLayer(mt types.MediaType) bool {
	s := strings.TrimSuffix(strings.TrimSuffix(string(mt), "+gzip"), ".gzip")
	s = strings.TrimSuffix(strings.TrimSuffix(s, "+zstd"), ".zstd")
	return s == "application/vnd.oci.image.layer.v1.tar" ||
		s == "application/vnd.docker.image.rootfs.diff.tar" ||
		s == "application/vnd.docker.image.rootfs.diff.tar.zstd"
}

func checkDigest(h v1.Hash) error {
	if raw, err := hex.DecodeString(h.Hex); h.Algorithm != "sha256" || err != nil || len(raw) != sha256.Size || strings.ToLower(h.Hex) != h.Hex {
		return fmt.Errorf("digest %q is not a sha256", h)
	}
	return nil
}

// parseConfig parses an image's config and checks it against its manifest.
func parseConfig(raw []byte, m *v1.Manifest) (*v1.ConfigFile, error) {
	id := short(m.Config.Digest.String())
	if got := digestOf(raw); got != m.Config.Digest.String() {
		return nil, invalid("config %s: its content has digest %s", id, short(got))
	}
	cf, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, invalid("config %s: %w", id, err)
	}
	if len(cf.RootFS.DiffIDs) != len(m.Layers) {
		return nil, invalid("config %s has %d diff ids, the manifest %d layers", id, len(cf.RootFS.DiffIDs), len(m.Layers))
	}
	for _, h := range cf.RootFS.DiffIDs {
		if err := checkDigest(h); err != nil {
			return nil, invalid("config %s: diff id: %w", id, err)
		}
	}
	return cf, nil
}

// chainIDs name a stack of layers, by the OCI image spec ("Layer ChainID").
func chainIDs(diffIDs []v1.Hash) []string {
	out := make([]string, len(diffIDs))
	for i, d := range diffIDs {
		out[i] = d.String()
		if i > 0 {
			out[i] = digestOf([]byte(out[i-1] + " " + d.String()))
		}
	}
	return out
}

// parsePlatform reads os/arch[/variant]; "" is this machine's.
func parsePlatform(s string) (v1.Platform, error) {
	if s == "" {
		return normal(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}), nil
	}
	p, err := v1.ParsePlatform(s)
	if err != nil || p.OS == "" || p.Architecture == "" {
		return v1.Platform{}, fmt.Errorf("platform %q: write os/arch or os/arch/variant, such as linux/arm64", s)
	}
	return normal(*p), nil
}

// normal gives one name to what has several.
func normal(p v1.Platform) v1.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	if p.Architecture == "arm" && p.Variant == "" {
		p.Variant = "v7"
	}
	if p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "8") || p.Architecture == "amd64" && p.Variant == "v1" {
		p.Variant = ""
	}
	return p
}

// fits ranks how well an image for have runs on want: 0 is not at all. A
// 32-bit ARM runs what is made for its forebears.
func fits(have, want v1.Platform) int {
	have = normal(have)
	if have.OS != want.OS || have.Architecture != want.Architecture {
		return 0
	}
	switch {
	case have.Variant == want.Variant:
		return 100
	case want.Architecture == "arm" && have.Variant < want.Variant:
		return 50 + int(have.Variant[len(have.Variant)-1]-'0')
	case have.Variant == "":
		return 40
	}
	return 0
}

// choose picks the manifest for want. The first of the best wins, as in the
// image-spec. Attestations (platform unknown/unknown) never fit.
func choose(index *v1.IndexManifest, want v1.Platform) (v1.Descriptor, error) {
	var best v1.Descriptor
	rank := 0
	var names []string
	for _, d := range index.Manifests {
		if d.Platform == nil {
			if d.MediaType.IsIndex() && rank == 0 {
				best, rank = d, 1
			}
			continue
		}
		if d.Platform.OS == "unknown" {
			continue
		}
		names = append(names, normal(*d.Platform).String())
		if r := fits(*d.Platform, want); r > rank {
			best, rank = d, r
		}
	}
	if rank == 0 && len(index.Manifests) == 1 && index.Manifests[0].Platform == nil {
		return index.Manifests[0], nil
	}
	if rank == 0 {
		return best, fmt.Errorf("%w %s; there is: %s", ErrPlatform, want, strings.Join(names, ", "))
	}
	return best, nil
}
