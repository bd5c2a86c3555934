package store

import (
	"fmt"
	"net/netip"
	"time"

	"berth/spec"
)

// Stack is a stack's record: which revision is wanted, and what the user
// asked for beside it.
type Stack struct {
	Name string `json:"name"`
	// UID tells this stack from an earlier one of the same name.
	UID      string `json:"uid"`
	Revision uint64 `json:"revision"` // wanted
	// Stopped services, by the user.
	Stopped map[string]bool `json:"stopped,omitempty"`
	// Epochs count the explicit restarts of a service.
	Epochs map[string]int `json:"epochs,omitempty"`
	// Renewals count the times that a service asked for fresh anonymous
	// volumes.
	Renewals map[string]int `json:"renewals,omitempty"`
	// StopTimeout replaces the grace of stopped services, if the newest stop
	// gave one; of all services with StopTimeoutAll, if the newest apply did.
	StopTimeout    *time.Duration `json:"stop_timeout,omitempty"`
	StopTimeoutAll bool           `json:"stop_timeout_all,omitempty"`
	// Ports are host ports taken for a service's ranges and unfixed ports, by
	// "service/index".
	Ports map[string]uint16 `json:"ports,omitempty"`
	// Newest is the highest revision that there ever was: after a rollback it
	// is above Revision.
	Newest uint64 `json:"newest"`
	// Stable is the last revision whose rollout was completed; 0: none.
	Stable uint64 `json:"stable,omitempty"`
	// Rollout is the newest one, ended or not.
	Rollout *Rollout `json:"rollout,omitempty"`
	// Completed are the keys that one-shots ran to their end with, the newest
	// last; KEY*N if N slots did.
	Completed map[string][]string `json:"completed,omitempty"`
	// Jobs is what is remembered of jobs.
	Jobs map[string]JobState `json:"jobs,omitempty"`
	// Removing is set by down, with what goes beside the tasks.
	Removing *Removal  `json:"removing,omitempty"`
	Created  time.Time `json:"created"`
}

// JobState is what is remembered of a job beside the records of its runs.
type JobState struct {
	// Fired is the newest fire of its schedules that was dealt with.
	Fired time.Time `json:"fired,omitzero"`
	Runs  int       `json:"runs,omitempty"` // ever
	// Trouble is why the newest fire came to no run.
	Trouble   string    `json:"trouble,omitempty"`
	TroubleAt time.Time `json:"trouble_at,omitzero"`
}

// Rollout is the passage of a stack to Revision.
type Rollout struct {
	Revision uint64 `json:"revision"`
	// From is the stable revision that a failure goes back to, with the epochs
	// and renewals that it had; 0: none.
	From     uint64         `json:"from,omitempty"`
	Epochs   map[string]int `json:"epochs,omitempty"`
	Renewals map[string]int `json:"renewals,omitempty"`
	// Failed is the revision that a rollback left.
	Failed  uint64          `json:"failed,omitempty"`
	State   string          `json:"state"` // api.Rollout…
	Reason  string          `json:"reason,omitempty"`
	Touched map[string]bool `json:"touched,omitempty"`
	Canary  *Canary         `json:"canary,omitempty"`
	Started time.Time       `json:"started"`
	// Since is Started, or when it was resumed: failures before do not count.
	Since time.Time `json:"since"`
	Ended time.Time `json:"ended,omitzero"`
	Actor string    `json:"actor,omitempty"`
}

// Canary is the part of a service's connections that its new version gets.
type Canary struct {
	Service string `json:"service"`
	Percent int    `json:"percent"`
}

// Removal is what down takes away beside tasks and networks.
type Removal struct {
	Volumes bool           `json:"volumes,omitempty"`
	Images  string         `json:"images,omitempty"` // "", local, all
	Timeout *time.Duration `json:"timeout,omitempty"`
}

// Revision is an immutable version of a stack.
type Revision struct {
	Number  uint64     `json:"number"`
	Stack   spec.Stack `json:"stack"` // contents replaced by digests
	Created time.Time  `json:"created"`
	Actor   string     `json:"actor,omitempty"`
	// Digests of the images, by service.
	Digests map[string]string `json:"digests"`
	// Runs says for each one-shot in which revision it had to run: when it or a
	// service that waits for it had changed.
	Runs map[string]uint64 `json:"runs,omitempty"`
	// State and Reason are how its newest rollout ended, the only part that
	// changes: a state of api.Rollout, or superseded.
	State  string `json:"state,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// RevisionKey orders revisions of a stack by number.
func RevisionKey(stack string, n uint64) string { return fmt.Sprintf("%s/%08d", stack, n) }

// Task is one attempt to fill a slot.
type Task struct {
	ID       string `json:"id"`
	Stack    string `json:"stack"`
	Service  string `json:"service"`
	Slot     int    `json:"slot"`
	Attempt  int    `json:"attempt"`
	Revision uint64 `json:"revision"`
	Key      string `json:"key"`      // what a current task's must equal
	InPlace  string `json:"in_place"` // of the in-place fields in force
	// Contents are the digests of the configs and secrets in force whose change
	// does not replace the task, by "configs.NAME" (spec.InPlaceIdentity).
	Contents map[string]string `json:"contents,omitempty"`
	Image    string            `json:"image"`
	Digest   string            `json:"digest"`
	// Spec is the service as this task runs it.
	Spec spec.Service `json:"spec"`
	// OneOff makes it a task of its own, in no slot; nil: it fills one.
	OneOff *OneOff `json:"one_off,omitempty"`

	Endpoints []Endpoint `json:"endpoints,omitempty"`
	Parent    string     `json:"parent,omitempty"` // whose network it shares
	// Parents are the tasks whose namespaces it shares, that of Parent among
	// them, by "service:NAME" or "container:NAME" (spec.Service.Shares).
	Parents map[string]string `json:"parents,omitempty"`
	// Volumes are the names of the named ones.
	Volumes []string `json:"volumes,omitempty"`
	// Anonymous volumes by target.
	Anonymous map[string]string `json:"anonymous,omitempty"`

	State    State     `json:"state"`
	Created  time.Time `json:"created"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	ExitCode int       `json:"exit_code"`
	OOM      bool      `json:"oom,omitempty"`
	Lost     bool      `json:"lost,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	// Retry: the user asked for another try after it failed.
	Retry bool `json:"retry,omitempty"`
	// Unstartable: its program could not be run. LastLine is the last line
	// that it logged, if it failed.
	Unstartable bool   `json:"unstartable,omitempty"`
	LastLine    string `json:"last_line,omitempty"`
	Failures    int    `json:"failures,omitempty"`
	Restarts    int    `json:"restarts,omitempty"`
	// Restarted are the restarts of its slot that count for max_attempts.
	Restarted []time.Time `json:"restarted,omitempty"`

	Health string `json:"health,omitempty"` // starting, healthy, unhealthy
	// Readiness and Liveness are the same of x-readiness and x-liveness; "": it
	// has none.
	Readiness string `json:"readiness,omitempty"`
	Liveness  string `json:"liveness,omitempty"`
	// ReadyAt is when it first became ready; ReadySince from when it has been
	// without a break, zero: it is not ready.
	ReadyAt    time.Time `json:"ready_at,omitzero"`
	ReadySince time.Time `json:"ready_since,omitzero"`
	UnreadyAt  time.Time `json:"unready_at,omitzero"` // last lost it
	// Listened says that it was seen listening on a port that it publishes.
	Listened bool `json:"listened,omitempty"`
	// Rotation: it shall take traffic. Published: the VIP map and DNS say so,
	// confirmed.
	Rotation  bool      `json:"rotation,omitempty"`
	Published bool      `json:"published,omitempty"`
	Withdrawn time.Time `json:"withdrawn,omitzero"`
	StopAt    time.Time `json:"stop_at,omitzero"`
	// PostStarted: its post_start hooks have ended. Signalled: its pre_stop hooks
	// have, and the stop signal was sent. HookFailed is the hook that failed.
	PostStarted bool      `json:"post_started,omitempty"`
	Signalled   bool      `json:"signalled,omitempty"`
	HookFailed  string    `json:"hook_failed,omitempty"`
	KilledAt    time.Time `json:"killed_at,omitzero"`
}

// OneOff is what a task has that runs once, because somebody asked for it
// (`berth run`, a job). The planner does not count it; `down` ends it.
type OneOff struct {
	Name string `json:"name"` // its container's, and in DNS
	// Remove takes it away once it has ended, with its log and its anonymous
	// volumes.
	Remove bool `json:"remove,omitempty"`
	// Aliases gives it the names and virtual addresses of its service.
	Aliases bool `json:"aliases,omitempty"`
	// Job is the job that it is a run of, the Run-th; Fire is when its schedule
	// asked for it, zero: somebody did.
	Job  string    `json:"job,omitempty"`
	Run  int       `json:"run,omitempty"`
	Fire time.Time `json:"fire,omitzero"`
	// Stack is the part of the stack that Spec names: networks, volumes, configs
	// and secrets as they were asked for, with digests instead of contents. No
	// revision need have them.
	Stack spec.Stack `json:"stack"`
}

// State of a Task's container.
type State string

// States. A removed task has freed everything but its log.
const (
	StatePending State = "pending"
	StateRunning State = "running"
	StatePaused  State = "paused"
	StateExited  State = "exited"
	StateRemoved State = "removed"
)

// Name is STACK-SERVICE-SLOT, as Docker Compose names containers, or a one-off
// task's own.
func (t *Task) Name() string {
	if t.OneOff != nil {
		return t.OneOff.Name
	}
	return fmt.Sprintf("%s-%s-%d", t.Stack, t.Service, t.Slot)
}

// Live says that a program runs or is being started.
func (t *Task) Live() bool {
	return t.State == StatePending || t.State == StateRunning || t.State == StatePaused
}

// Endpoint is a task's addresses on one network.
type Endpoint struct {
	Network string     `json:"network"` // name
	IPv4    netip.Addr `json:"ipv4,omitzero"`
	IPv6    netip.Addr `json:"ipv6,omitzero"`
	MAC     string     `json:"mac,omitempty"`
	Ifname  string     `json:"ifname"`
	Default bool       `json:"default,omitempty"` // carries the default route
	Aliases []string   `json:"aliases,omitempty"`
	// LinkLocal are further addresses; Sysctls are of the interface, as
	// "net.ipv4.conf.IFNAME.NAME=VALUE".
	LinkLocal []netip.Addr `json:"link_local,omitempty"`
	Sysctls   []string     `json:"sysctls,omitempty"`
	// NoServiceName: the service's name does not lead here.
	NoServiceName bool `json:"no_service_name,omitempty"`
}

// Network is a network of this machine.
type Network struct {
	Name     string            `json:"name"`
	ID       string            `json:"id"`
	Stack    string            `json:"stack,omitempty"` // "": made by hand
	Key      string            `json:"key,omitempty"`
	Subnet4  netip.Prefix      `json:"subnet4"`
	Gateway4 netip.Addr        `json:"gateway4"`
	Range4   netip.Prefix      `json:"range4,omitzero"` // tasks get addresses from here
	Range6   netip.Prefix      `json:"range6,omitzero"`
	Subnet6  netip.Prefix      `json:"subnet6,omitzero"`
	Gateway6 netip.Addr        `json:"gateway6,omitzero"`
	Internal bool              `json:"internal,omitempty"`
	MTU      int               `json:"mtu,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Created  time.Time         `json:"created"`
	// Spec is what the file asked for; a difference makes a new network.
	Spec spec.Network `json:"spec"`
	// Last4 and Last6 are the last addresses given to a task: the next one
	// is searched after them, so that an address rests before it is reused.
	Last4 netip.Addr `json:"last4,omitzero"`
	Last6 netip.Addr `json:"last6,omitzero"`
}

// VIP is a service's virtual address on a network.
type VIP struct {
	Network string     `json:"network"`
	Stack   string     `json:"stack"`
	Service string     `json:"service"`
	IPv4    netip.Addr `json:"ipv4,omitzero"`
	IPv6    netip.Addr `json:"ipv6,omitzero"`
}

// VIPKey is the key of a VIP.
func VIPKey(network, stack, service string) string { return network + "/" + stack + "/" + service }

// Content is a secret or config that stacks name as external, with the
// versions that are kept. The contents themselves are in the secrets store.
type Content struct {
	Kind     string            `json:"kind"`            // secret or config
	Stack    string            `json:"stack,omitempty"` // "": for all stacks
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels,omitempty"`
	Current  uint64            `json:"current"`
	Versions []ContentVersion  `json:"versions"` // oldest first, Current among them
}

// ContentVersion is one content that a Content had.
type ContentVersion struct {
	Number  uint64    `json:"number"`
	Digest  string    `json:"digest"` // keyed, of the secrets store
	Size    int       `json:"size"`   // bytes
	Created time.Time `json:"created"`
	Actor   string    `json:"actor,omitempty"`
	// Before is the version that was current when this one was stored; 0: none.
	Before uint64 `json:"before,omitempty"`
}

// ContentKey is "kind/stack/name".
func ContentKey(kind, stack, name string) string { return kind + "/" + stack + "/" + name }

// Version returns the version with this number, or nil.
func (c *Content) Version(n uint64) *ContentVersion {
	for i := range c.Versions {
		if c.Versions[i].Number == n {
			return &c.Versions[i]
		}
	}
	return nil
}

// Previous is the version to go back to from the current one, or nil.
func (c *Content) Previous() *ContentVersion {
	if now := c.Version(c.Current); now != nil {
		return c.Version(now.Before)
	}
	return nil
}
