package api

import (
	"time"

	"berth/spec"
)

// RunRequest makes a one-off task of a service: one that fills no slot, runs
// once and is never restarted.
type RunRequest struct {
	// Stack is the stack as the file has it. What Spec depends on is brought up
	// from it, and the networks, volumes, configs and secrets are its.
	Stack spec.Stack `json:"stack"`
	// Spec is the service as the task runs it, overrides applied. Its ports are
	// published for this task alone; its restart policy and its static addresses
	// are left out.
	Spec spec.Service `json:"spec"`
	// Name of the task; "": STACK-SERVICE-run-ID. CodeConflict if another one
	// has it.
	Name    string `json:"name,omitempty"`
	Remove  bool   `json:"remove,omitempty"`  // once it has ended, with its log and anonymous volumes
	Aliases bool   `json:"aliases,omitempty"` // take a part of the traffic to the service's names
	NoDeps  bool   `json:"no_deps,omitempty"` // neither start nor wait for what it depends on
	Pull    string `json:"pull,omitempty"`    // always, missing, never; "": the service's policy
	// Start runs its program at once. Without it the task is there, created,
	// for an Attach that starts it; nobody's for a minute, it is taken back.
	Start bool `json:"start,omitempty"`
	// Auth are the caller's credentials for what is pulled.
	Auth Auths `json:"auth,omitempty"`
	// Actor is who asks, for history.
	Actor string `json:"actor,omitempty"`
	// Job and Fire make it a run of a job; only the agent says so.
	Job  string    `json:"-"`
	Fire time.Time `json:"-"`
}

// StartPatience is how long a task that was created without Start waits for
// the Attach that starts it.
const StartPatience = time.Minute
