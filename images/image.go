package images

import (
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
)

// Config places the store on the machine and names the registries.
type Config struct {
	Root string // blobs, layers, references
	// Registries by host, "docker.io" for the default one.
	Registries map[string]Registry
	// Parallel is how many layers are fetched at once over all pulls; 0: 4.
	Parallel int
}

// Registry says how to reach one registry.
type Registry struct {
	// Mirrors are tried in order before the registry itself:
	// "http://127.0.0.1:5000" or "https://mirror.example".
	Mirrors []string `yaml:"mirrors" json:"mirrors,omitempty"`
	// Insecure allows plain HTTP and unverified TLS.
	Insecure bool `yaml:"insecure" json:"insecure,omitempty"`
	// CA is the path of a PEM file trusted for this registry.
	CA string `yaml:"ca" json:"ca,omitempty"`
}

// Image is one image of the store.
type Image struct {
	Digest     string    `json:"digest"` // of the platform's manifest: sha256:…
	ID         string    `json:"id"`     // digest of the config, as Docker shows it
	References []string  `json:"references,omitempty"`
	Platform   string    `json:"platform"` // os/arch[/variant]
	Created    time.Time `json:"created"`
	Size       int64     `json:"size"`   // compressed bytes
	Layers     []string  `json:"layers"` // diff ids, base first
	Config     v1.Config `json:"config"` // entrypoint, env, user, volumes, healthcheck …
}

// Policy of a pull.
type Policy string

// Policies; the empty one is PullMissing. PullBuild is treated as missing.
const (
	PullMissing Policy = "missing"
	PullAlways  Policy = "always"
	PullNever   Policy = "never"
)

// PullOptions of Pull.
type PullOptions struct {
	Platform string // "" is this machine's
	Policy   Policy // also daily, weekly, every_<duration>: pull when the last pull is older
	// Auth overrides the docker configuration files of the agent's user.
	Auth func(registry string) (username, password string, ok bool)
	// Progress is called from several goroutines, at most every 100 ms per
	// layer and once at its end.
	Progress func(Progress)
}

// Progress of one layer, or of the whole image when Layer is empty.
type Progress struct {
	Reference string `json:"reference"`
	Layer     string `json:"layer,omitempty"`   // 12 hex digits
	Status    string `json:"status"`            // waiting, downloading, unpacking, exists, done
	Current   int64  `json:"current,omitempty"` // bytes
	Total     int64  `json:"total,omitempty"`
}

// Mount is where and how an image is mounted.
type Mount struct {
	Target string // created if missing
	// Upper and Work hold what the container writes; created if missing.
	// Both empty: a read-only mount.
	Upper, Work string
}

// Removed says what Remove or Prune took away.
type Removed struct {
	Untagged []string
	Deleted  []string // manifest digests
	Bytes    int64
}
