package runtime

import (
	"errors"
	"fmt"
)

// Sentinels a caller decides on with errors.Is.
var (
	// ErrNotFound: no trace of the container is left.
	ErrNotFound = errors.New("no such container")
	// ErrExists: the id is taken, whatever state its container is in.
	ErrExists = errors.New("container exists already")
	// ErrNotRunning: the container has not been started, or has exited.
	ErrNotRunning = errors.New("container is not running")
	// ErrRuntimeMissing: no OCI runtime, or no conmon, works here.
	ErrRuntimeMissing = errors.New("no working container runtime")
	// ErrInvalid: the request itself is wrong; trying again is pointless.
	ErrInvalid = errors.New("invalid container")
	// ErrStart: the container's command cannot run. It is always a
	// *StartError, which has the reason.
	ErrStart = errors.New("container cannot start")
	// ErrSlowReader: the reader of Attach did not keep up and was dropped.
	ErrSlowReader = errors.New("reader too slow, output dropped")
)

// Reason says why a command could not be run.
type Reason int

// Reasons. ReasonOther has only the runtime's own words.
const (
	ReasonOther Reason = iota
	ReasonNotFound
	ReasonPermission
	ReasonFormat
	ReasonWorkingDir
	ReasonMount
	ReasonCgroup
	ReasonNamespace
)

// String is how the reason reads in a message.
func (r Reason) String() string {
	switch r {
	case ReasonNotFound:
		return "executable not found in the image"
	case ReasonPermission:
		return "permission denied"
	case ReasonFormat:
		return "not an executable for this machine"
	case ReasonWorkingDir:
		return "cannot enter the working directory"
	case ReasonMount:
		return "cannot mount"
	case ReasonCgroup:
		return "cannot set the resource limits"
	case ReasonNamespace:
		return "cannot join a namespace"
	default:
		return "the runtime failed"
	}
}

// StartError is why a container's command, or an exec, could not be run.
type StartError struct {
	Reason Reason
	// Detail is the runtime's message without its decoration, one line.
	Detail string
	// Command is the first argument that was asked for.
	Command string
}

func (e *StartError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("start %q: %v", e.Command, e.Reason)
	}
	return fmt.Sprintf("start %q: %v: %s", e.Command, e.Reason, e.Detail)
}

// Is makes errors.Is(err, ErrStart) true.
func (e *StartError) Is(target error) bool { return target == ErrStart }

// invalid makes an error about the container that was asked for.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
