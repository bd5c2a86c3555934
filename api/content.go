package api

import "time"

// Kinds of a Content.
const (
	KindSecret = "secret"
	KindConfig = "config"
)

// Content is a secret or config in the agent's store, which stacks name as
// external. What it contains is only told of a config, by inspect.
type Content struct {
	Kind      string            `json:"kind"`
	Stack     string            `json:"stack,omitempty"` // "": for all stacks
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	Current   uint64            `json:"current"`
	Versions  []ContentVersion  `json:"versions"` // newest first
	UsedBy    []string          `json:"used_by"`  // STACK/SERVICE, of the wanted revisions
	CreatedAt time.Time         `json:"created_at"`
	// Content of the current version, of a config only.
	Content []byte `json:"content,omitempty"`
}

// ContentVersion is one content that it had.
type ContentVersion struct {
	Number    uint64    `json:"number"`
	Size      int       `json:"size"` // bytes
	CreatedAt time.Time `json:"created_at"`
	Actor     string    `json:"actor,omitempty"`
	// Revisions that have it: STACK/NUMBER.
	Revisions []string `json:"revisions,omitempty"`
}

// ContentSet gives a content a new version. The same content again is none.
type ContentSet struct {
	Stack   string            `json:"stack,omitempty"`
	Name    string            `json:"name"`
	Content []byte            `json:"content"`
	Labels  map[string]string `json:"labels,omitempty"`
	Actor   string            `json:"actor,omitempty"`
}

// ContentRoll rolls the services that use a content to a new version of it or,
// with Back, to the one before.
type ContentRoll struct {
	Stack   string `json:"stack,omitempty"`
	Back    bool   `json:"back,omitempty"`
	Content []byte `json:"content,omitempty"` // without Back
	Wait    bool   `json:"wait,omitempty"`
	Actor   string `json:"actor,omitempty"`
}

// ContentExport asks for all secrets and configs of the store as one age file,
// encrypted to Recipients (age1…, age1pq1…) or with Passphrase.
type ContentExport struct {
	Recipients []string `json:"recipients,omitempty"`
	Passphrase string   `json:"passphrase,omitempty"`
}

// ContentRecipient is what a file of a config or secret may be encrypted to so
// that the agent's host can read it.
type ContentRecipient struct {
	Recipient string `json:"recipient"`        // age1…
	Hybrid    bool   `json:"hybrid,omitempty"` // for age 1.3 and later
	// From is where the operator keeps its identity; "" for the host's own.
	From string `json:"from,omitempty"`
}

// ContentArchive is an export: an age file.
type ContentArchive struct {
	Data []byte `json:"data"`
}

// ContentImport brings an export back. Names that are there get a new version
// if their content differs.
type ContentImport struct {
	Data       []byte `json:"data"`
	Identity   string `json:"identity,omitempty"` // AGE-SECRET-KEY-…
	Passphrase string `json:"passphrase,omitempty"`
	Actor      string `json:"actor,omitempty"`
}
