package build

import (
	"time"

	"berth/spec"
)

// Request is one build. Build is as in the file, except for what the client
// has turned into parts of the tar: see Source.
type Request struct {
	Stack   string `json:"stack,omitempty"`
	Service string `json:"service"`
	// Names are the references that the image gets.
	Names []string   `json:"names"`
	Build spec.Build `json:"build"`
	// Dockerfile is the name of the file in folder dockerfile/ of the tar; ""
	// if it is to be found in a remote context.
	Dockerfile string   `json:"dockerfile,omitempty"`
	Secrets    []Part   `json:"secrets,omitempty"`
	SSH        []Part   `json:"ssh,omitempty"`
	Platforms  []string `json:"platforms,omitempty"`
	// Builder is "", buildkit, buildah, or the address of a BuildKit.
	Builder string `json:"builder,omitempty"`
	// Auths are credentials by registry host, "docker.io" for the default one.
	Auths  map[string]Auth `json:"auths,omitempty"`
	Memory int64           `json:"memory,omitempty"` // of RUN steps, bytes; 0: no limit
	// Check looks at the Dockerfile only, and builds nothing.
	Check bool `json:"check,omitempty"`
}

// Part is a secret or an SSH key by id. File is its place in the tar; Socket,
// of an SSH agent, the name under which the client offers it.
type Part struct {
	ID     string `json:"id"`
	File   string `json:"file,omitempty"`
	Socket string `json:"socket,omitempty"`
}

// Auth is what one registry wants to know.
type Auth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// Contexts of a request begin with one of these, or are URLs for the builder.
const (
	SourceFolder = "folder:" // a folder of the tar
	SourceImage  = "image:"  // an image of the agent's store
)

// States of a step.
const (
	StepStarted = "started"
	StepCached  = "cached"
	StepDone    = "done"
	StepFailed  = "failed"
)

// Progress of a build: a step that changed, a piece of its output, or a
// warning.
type Progress struct {
	Service string  `json:"service"`
	Step    string  `json:"step,omitempty"` // "[2/4] RUN make"
	State   string  `json:"state,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Log     string  `json:"log,omitempty"` // whole lines
	Warning string  `json:"warning,omitempty"`
	// Attribute is what the warning is about, relative to the service's build.
	Attribute string `json:"attribute,omitempty"`
}

// Built is what came of a build.
type Built struct {
	Service string   `json:"service"`
	Digest  string   `json:"digest"` // of the image's manifest
	ID      string   `json:"id"`     // of its configuration
	Names   []string `json:"names"`
	Builder string   `json:"builder"`
}

// Config of the agent's half.
type Config struct {
	Root, Run string // below the agent's own
	Runtime   string // path of crun or runc
	// CgroupParent holds the cgroups of RUN steps, where the builder allows.
	CgroupParent string
	// Mirrors by registry, as for pulls: "http://127.0.0.1:5000".
	Mirrors map[string]Mirror
	// Redact learns secrets before a build can show them; nil: nobody does.
	Redact func(values ...[]byte)
	// Idle is how long a buildkitd without work stays; 0: 5 min.
	Idle time.Duration
}

// Mirror says how builders reach one registry.
type Mirror struct {
	Mirrors  []string
	Insecure bool
	CA       string
}
