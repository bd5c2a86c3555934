package spec

import (
	"context"

	"github.com/compose-spec/compose-go/v2/types"
)

// Options say which files to load and how. The zero value loads what
// `docker compose` would in Dir.
type Options struct {
	Dir         string   // where the user stands; "" is the process's
	ProjectDir  string   // --project-directory
	ProjectName string   // -p
	Files       []string // -f; "-" is Stdin; nil: found upward from Dir
	Profiles    []string
	EnvFiles    []string // --env-file
	// Environ is the environment for interpolation as KEY=VALUE; nil is the
	// process's.
	Environ []string
	// Services, when not empty, limits the stack to these services and what
	// they depend on; profiles of the named services are enabled.
	Services []string
	// NoDeps leaves the dependencies of Services out.
	NoDeps bool
	// NoInterpolate keeps ${VAR} as it is (only for printing).
	NoInterpolate bool
	// Stdin is read for a file named "-".
	Stdin []byte
}

// Result is what Load found. Stack and Project are nil when Diagnostics holds
// an error.
type Result struct {
	Stack       *Stack
	Project     *types.Project // for `config`; never sent anywhere
	Diagnostics Diagnostics
}

// Load reads, merges, interpolates and checks the Compose files. A mistake of
// the user is not an error of Load: it is a Diagnostic. The error is for what
// has no place in a file, such as an unreadable folder.
func Load(ctx context.Context, o Options) (*Result, error) { panic("being written") }
