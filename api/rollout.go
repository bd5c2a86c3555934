package api

import (
	"time"

	"berth/spec"
)

// Canary is the part of a service's new connections that its new version gets.
type Canary struct {
	Service string `json:"service"`
	Percent int    `json:"percent"` // 1 to 99
}

// States of a Rollout.
const (
	RolloutProgressing    = "progressing"     // tasks are replaced, or watched
	RolloutCanary         = "canary"          // waits for promote or abort
	RolloutPaused         = "paused"          // by the user, or by a failure
	RolloutComplete       = "complete"        // the revision is stable
	RolloutRollingBack    = "rolling_back"    // to the last stable revision
	RolloutRollbackPaused = "rollback_paused" // the rollback met a failure itself
	RolloutRolledBack     = "rolled_back"
)

// Rollout is the passage of a stack from one revision to the next.
type Rollout struct {
	Stack string `json:"stack"`
	// Revision is the one that is rolled out; From the stable one that a
	// failure goes back to, 0: none.
	Revision uint64 `json:"revision"`
	From     uint64 `json:"from,omitempty"`
	// Failed is the revision that a rollback left, 0: it is none, or the user
	// asked for it.
	Failed uint64 `json:"failed,omitempty"`
	State  string `json:"state"`
	// Reason says why it paused or went back, in one line.
	Reason    string          `json:"reason,omitempty"`
	StartedAt time.Time       `json:"started_at"`
	EndedAt   time.Time       `json:"ended_at,omitzero"`
	Actor     string          `json:"actor,omitempty"`
	Canary    *Canary         `json:"canary,omitempty"`
	Services  []ServiceStatus `json:"services,omitempty"`
}

// Actions of a RolloutRequest.
const (
	RolloutPause   = "pause"
	RolloutResume  = "resume"
	RolloutUndo    = "undo"    // back to the last stable revision
	RolloutPromote = "promote" // the canary: go on with the rollout
	RolloutAbort   = "abort"   // the canary: the same as undo
)

// RolloutRequest acts on the newest rollout of a stack.
type RolloutRequest struct {
	Action string `json:"action"`
	Wait   bool   `json:"wait,omitempty"`
	Actor  string `json:"actor,omitempty"`
}

// RollbackRequest makes an earlier revision the desired one.
type RollbackRequest struct {
	Revision uint64 `json:"revision,omitempty"` // 0: the last stable one before the current
	// ExpectRevision refuses (CodeConflict) when the stack is at another one.
	ExpectRevision uint64 `json:"expect_revision,omitempty"`

	Wait  bool   `json:"wait,omitempty"`
	Actor string `json:"actor,omitempty"`
}

// ScaleRequest sets replicas without a file.
type ScaleRequest struct {
	Services map[string]int `json:"services"`
	Wait     bool           `json:"wait,omitempty"`
	Actor    string         `json:"actor,omitempty"`
}

// Revision is a line of `berth history`.
type Revision struct {
	Number    uint64    `json:"revision"`
	State     string    `json:"state"` // a state of a Rollout; "superseded"
	Reason    string    `json:"reason,omitempty"`
	Current   bool      `json:"current,omitempty"` // the desired one
	Stable    bool      `json:"stable,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	Actor     string    `json:"actor,omitempty"`
	// Images by service.
	Images  map[string]RevisionImage `json:"images"`
	Changes []string                 `json:"changes,omitempty"` // services that differ from the revision before
}

// RevisionImage is an image of a revision.
type RevisionImage struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
	Here      bool   `json:"here"` // no pull is needed to go back
}

// Explanation says why a service is as it is.
type Explanation struct {
	Stack   string        `json:"stack"`
	Service string        `json:"service"`
	Status  ServiceStatus `json:"status"`
	// Summary is the first line: "1 of 2 tasks ready".
	Summary string `json:"summary"`
	// Tasks say how each one is, well or not: by slot, and within a slot the
	// newest first.
	Tasks []Cause `json:"tasks,omitempty"`
	// Causes are what stands in the way of the service as a whole, most
	// important first.
	Causes []Cause `json:"causes,omitempty"`
}

// Cause is what is known about one thing that a service needs, or is made of.
// Its texts hold what containers wrote: escape them before they are printed.
type Cause struct {
	Subject string `json:"subject"` // a task ("web-1"), a service, a port, "rollout"
	// Well says that nothing is wrong with the subject.
	Well bool   `json:"well,omitempty"`
	Text string `json:"text"` // one line
	// Details are further lines: a probe's output, what a dependency waits for.
	Details []string `json:"details,omitempty"`
	// Log are the last lines that a task wrote, at most five.
	Log []string `json:"log,omitempty"`
	// Position is where the cause stands in the Compose file, if it does.
	Position *spec.Position `json:"position,omitempty"`
	Hint     string         `json:"hint,omitempty"`
}
