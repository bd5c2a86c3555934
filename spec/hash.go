package spec

// Class says what a changed field of a Service does to its running tasks.
type Class int

// Classes of a field.
const (
	ClassReplace Class = iota // a new task replaces the old one
	ClassInPlace              // applied to the running task
	ClassIgnored              // concerns no running task
)

// Identity is what a task's hash covers beside the service's own fields:
// content that the file only names. All values are opaque to spec.
type Identity struct {
	ImageDigest string            // digest of the image's manifest
	Configs     map[string]string // config key -> content digest
	Secrets     map[string]string // secret key -> keyed content digest
	Volumes     map[string]string // volume key -> volume identity
	Networks    map[string]string // network key -> network identity
}

// Change is one difference between two versions of a service.
type Change struct {
	// Path is relative to the service, such as "environment.LOG_LEVEL".
	Path  string `json:"path"`
	Class Class  `json:"class"`
	// Old and New are printable; values of environment variables are left out.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

// Hash is the identity of a task of s: "v1:" and 64 hex digits. Two services
// with equal hashes can share a running task. Zero fields are left out of the
// encoding, so a field added to Service changes no hash until it is used.
func Hash(s *Service, id Identity) string { panic("being written") }

// Diff lists the differences between two versions of one service, sorted by
// path: of the services' fields, then of what Identity covers.
func Diff(old, new *Service, oldID, newID Identity) []Change { panic("being written") }
