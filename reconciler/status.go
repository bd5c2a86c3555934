package reconciler

import "fmt"

// Phase of a service.
type Phase int

// Phases of a service, worst news last.
const (
	PhaseReady     Phase = iota // every slot has a ready, published, current task
	PhaseCompleted              // ran to its end, successfully
	PhaseStopped                // by the user
	PhaseStopping
	PhaseStarting // tasks are created, started or not ready yet
	PhaseWaiting  // for a dependency
	PhasePending  // no node fits it
	PhaseFailing  // exits and is restarted with back-off
	PhaseFailed   // exited and stays so
)

// String gives the lower-case name.
func (p Phase) String() string {
	return [...]string{"ready", "completed", "stopped", "stopping", "starting", "waiting", "pending", "failing", "failed"}[p]
}

// Status is how far a service is.
type Status struct {
	Service  string
	Phase    Phase
	Replicas int
	Updated  int // current tasks that run or completed
	Ready    int // ready and published, of any version
	// Available are the current ones that have been watched to the end
	// (update_config.monitor).
	Available int
	// Fits are the slots that can run on this node, if the phase is pending.
	Fits int
	// Fresh are the current ones that take traffic.
	Fresh int
	// Coming says that a task takes traffic, or will soon in the place of one that
	// did: who connects in between does better to wait.
	Coming bool
	Old    int // live tasks of another version or beyond the replicas
	Reason string
	// Failures is the highest number of failures in a row among its tasks.
	Failures int
	// Removed says that the service is not wanted any more.
	Removed bool
}

// worse keeps the later phase, and the reason that belongs to it.
func (s *Status) worse(p Phase, format string, args ...any) {
	if p > s.Phase {
		s.Phase, s.Reason = p, fmt.Sprintf(format, args...)
	}
}
