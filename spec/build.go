package spec

import (
	"cmp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Build says how the image of a service is built. It concerns no task: what
// counts for that is the digest of the image that comes out.
type Build struct {
	// Context is an absolute folder or a URL: of a Git repository
	// (https://host/repo.git#ref:folder) or of a tar archive.
	Context string `json:"context"`
	// Dockerfile is relative to Context, unless absolute.
	Dockerfile       string            `json:"dockerfile,omitempty"`
	DockerfileInline string            `json:"dockerfile_inline,omitempty"`
	Target           string            `json:"target,omitempty"`
	Args             map[string]string `json:"args,omitempty"`
	// Contexts are the additional ones by name: a folder, a Git URL,
	// docker-image://REFERENCE, oci-layout://FOLDER or service:NAME.
	Contexts  map[string]string `json:"additional_contexts,omitempty"`
	Secrets   []BuildSecret     `json:"secrets,omitempty"`
	SSH       []BuildSSH        `json:"ssh,omitempty"` // sorted by id
	CacheFrom []string          `json:"cache_from,omitempty"`
	CacheTo   []string          `json:"cache_to,omitempty"`
	Platforms []string          `json:"platforms,omitempty"` // none: the service's, else the machine's
	Labels    map[string]string `json:"labels,omitempty"`
	Tags      []string          `json:"tags,omitempty"` // names beside the service's image
	// Network of RUN steps: "" (what the builder gives), "none" or "host".
	Network       string   `json:"network,omitempty"`
	NoCache       bool     `json:"no_cache,omitempty"`
	NoCacheFilter []string `json:"no_cache_filter,omitempty"` // stages
	Pull          bool     `json:"pull,omitempty"`
	ShmSize       int64    `json:"shm_size,omitempty"`    // bytes
	ExtraHosts    []string `json:"extra_hosts,omitempty"` // "name=address"
	Ulimits       []Ulimit `json:"ulimits,omitempty"`
	Privileged    bool     `json:"privileged,omitempty"`
	Entitlements  []string `json:"entitlements,omitempty"`
	Provenance    string   `json:"provenance,omitempty"`
	SBOM          string   `json:"sbom,omitempty"`
}

// BuildSecret gives a secret of the stack to the RUN steps that mount ID.
type BuildSecret struct {
	Source string `json:"source"` // key in Stack.Secrets
	ID     string `json:"id"`
}

// BuildSSH is an SSH agent or key that RUN steps may use. Path is a socket or
// a private key; "" is the user's agent.
type BuildSSH struct {
	ID   string `json:"id"`
	Path string `json:"path,omitempty"`
}

// ImageOf is the name of a service's image: its own, or STACK-SERVICE for one
// that is only built. "" if there is no such service or it has neither.
func (st *Stack) ImageOf(service string) string {
	s := st.Services[service]
	if s.Image == "" && s.Build != nil {
		return strings.ToLower(st.Name + "-" + service)
	}
	return s.Image
}

// build converts the build section of a service.
func build(b *types.BuildConfig) *Build {
	if b == nil {
		return nil
	}
	out := &Build{
		Context: b.Context, Dockerfile: b.Dockerfile, DockerfileInline: b.DockerfileInline, Target: b.Target,
		Args: environment(b.Args), Contexts: filled(b.AdditionalContexts),
		CacheFrom: list(b.CacheFrom), CacheTo: list(b.CacheTo), Platforms: list(b.Platforms),
		Labels: filled(b.Labels), Tags: list(b.Tags), NoCache: b.NoCache,
		NoCacheFilter: list(b.NoCacheFilter), Pull: b.Pull, ShmSize: int64(b.ShmSize),
		ExtraHosts: extraHosts(b.ExtraHosts), Ulimits: ulimits(b.Ulimits), Privileged: b.Privileged,
		Entitlements: list(b.Entitlements), Provenance: b.Provenance, SBOM: b.SBOM,
	}
	if b.Network == "none" || b.Network == "host" {
		out.Network = b.Network
	}
	for _, s := range b.Secrets {
		out.Secrets = append(out.Secrets, BuildSecret{Source: s.Source, ID: cmp.Or(s.Target, s.Source)})
	}
	for _, k := range b.SSH {
		out.SSH = append(out.SSH, BuildSSH{ID: k.ID, Path: k.Path})
	}
	slices.SortFunc(out.SSH, func(a, b BuildSSH) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
