package api

import (
	"time"

	"berth/build"
	"berth/spec"
)

// Error is a failed request: RFC 9457 with a machine-readable Code, a Hint
// for the user and, where the cause stands in a Compose file, its Position.
type Error struct {
	Status   int            `json:"status"`
	Title    string         `json:"title,omitempty"`
	Detail   string         `json:"detail"`
	Code     string         `json:"code,omitempty"` // see Code…
	Hint     string         `json:"hint,omitempty"`
	Position *spec.Position `json:"position,omitempty"`
	// ExitCode is, with CodeStart, what a shell would exit with: 127 for a
	// program that is not there, 126 for one that can't be run.
	ExitCode int `json:"exit_code,omitempty"`
}

// Codes of an Error.
const (
	CodeNotFound       = "not_found"
	CodeConflict       = "conflict"        // somebody else deploys, or the revision moved on
	CodeInvalid        = "invalid"         // the request or the stack is wrong
	CodePortInUse      = "port_in_use"     // a published port belongs to somebody else
	CodeImageNotFound  = "image_not_found" // the registry has no such image
	CodeRegistry       = "registry"        // the registry can't be reached
	CodeNoSpace        = "no_space"
	CodePoolExhausted  = "pool_exhausted" // no subnet or address left
	CodeRuntimeMissing = "runtime_missing"
	CodeInUse          = "in_use"
	CodeStart          = "start" // the program of a one-off task could not be run
	CodeInternal       = "internal"
)

// Info describes the agent.
type Info struct {
	Version   string    `json:"version"`
	API       int       `json:"api"` // 1
	Pid       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
	Root      string    `json:"root"`
	Run       string    `json:"run"`
	Runtime   string    `json:"runtime"`
	Conmon    string    `json:"conmon"`
	Node      string    `json:"node"`
	// RSS is the agent's resident memory in bytes.
	RSS uint64 `json:"rss"`
}

// ApplyRequest makes a stack the desired state.
type ApplyRequest struct {
	Stack spec.Stack `json:"stack"`
	// Services, when not empty, are the ones to change; others stay as the
	// current revision has them.
	Services      []string       `json:"services,omitempty"`
	Pull          string         `json:"pull,omitempty"` // --pull: always, missing, never
	ForceRecreate bool           `json:"force_recreate,omitempty"`
	NoRecreate    bool           `json:"no_recreate,omitempty"`
	RemoveOrphans bool           `json:"remove_orphans,omitempty"`
	RenewVolumes  bool           `json:"renew_volumes,omitempty"` // -V: fresh anonymous volumes
	NoStart       bool           `json:"no_start,omitempty"`
	Scale         map[string]int `json:"scale,omitempty"`
	StopTimeout   *time.Duration `json:"stop_timeout,omitempty"`
	// ExpectRevision refuses (CodeConflict) when the stack is at another one.
	ExpectRevision uint64 `json:"expect_revision,omitempty"`
	// ExpectPlan refuses (CodeConflict) when apply would do anything else than
	// this plan says.
	ExpectPlan *Plan `json:"expect_plan,omitempty"`
	// Canary leads only a part of one service's connections to its new version
	// and waits there, for promote or abort.
	Canary *Canary `json:"canary,omitempty"`
	// Roll is a content, "secret/NAME" or "config/NAME", of which the current
	// version is taken, also by services that otherwise stay as they are.
	Roll string `json:"roll,omitempty"`
	// Wait keeps the stream open until every service is ready or has failed.
	Wait bool `json:"wait,omitempty"`
	// Auth are the caller's credentials for what is pulled.
	Auth Auths `json:"auth,omitempty"`
	// Actor is who asks, for history: "alice@tty", a commit …
	Actor string `json:"actor,omitempty"`
}

// DownRequest removes a stack.
type DownRequest struct {
	Volumes       bool           `json:"volumes,omitempty"`
	Images        string         `json:"images,omitempty"` // "", local, all
	RemoveOrphans bool           `json:"remove_orphans,omitempty"`
	Timeout       *time.Duration `json:"timeout,omitempty"`
	Services      []string       `json:"services,omitempty"`
}

// Actions of an ActionRequest.
const (
	ActionStart   = "start"
	ActionStop    = "stop"
	ActionRestart = "restart"
	ActionKill    = "kill"
	ActionRemove  = "rm"
	ActionPause   = "pause"
	ActionUnpause = "unpause"
)

// ActionRequest acts on services of a stack without changing its revision.
type ActionRequest struct {
	Action   string         `json:"action"`
	Services []string       `json:"services,omitempty"` // empty: all
	Signal   string         `json:"signal,omitempty"`   // kill
	Timeout  *time.Duration `json:"timeout,omitempty"`  // stop, restart
	Stop     bool           `json:"stop,omitempty"`     // rm -s
	Volumes  bool           `json:"volumes,omitempty"`  // rm -v
}

// Progress is one line of a stream that reports work. Exactly one of the
// pointers is set, or Error, or Done at the end.
type Progress struct {
	Pull    *PullProgress   `json:"pull,omitempty"`
	Build   *build.Progress `json:"build,omitempty"`
	Built   *build.Built    `json:"built,omitempty"`
	Applied *Applied        `json:"applied,omitempty"`
	Service *ServiceStatus  `json:"service,omitempty"`
	Task    *Task           `json:"task,omitempty"`    // a one-off task that was made
	Message string          `json:"message,omitempty"` // "network shop_default removed"
	Warning string          `json:"warning,omitempty"`
	Error   *Error          `json:"error,omitempty"`
	Done    *Done           `json:"done,omitempty"`
}

// PullProgress of one layer, or of the image when Layer is empty.
type PullProgress struct {
	Reference string `json:"reference"`
	Layer     string `json:"layer,omitempty"`
	Status    string `json:"status"` // waiting, downloading, unpacking, exists, done
	Current   int64  `json:"current,omitempty"`
	Total     int64  `json:"total,omitempty"`
}

// Applied says which revision is the desired one now.
type Applied struct {
	Stack    string `json:"stack"`
	Revision uint64 `json:"revision"`
	// Changed is false when the revision was current already.
	Changed bool `json:"changed"`
}

// Outcomes of Done.
const (
	OutcomeDone       = "done"
	OutcomeNotReady   = "not_ready"   // in time
	OutcomeFailed     = "failed"      // a service can't become ready
	OutcomeRolledBack = "rolled_back" // the last stable revision serves again
	OutcomeSuperseded = "superseded"  // a newer revision took over
	OutcomePaused     = "paused"      // the rollout waits for the user
)

// Done ends a stream of Progress.
type Done struct {
	Outcome string `json:"outcome"`
	Detail  string `json:"detail,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// StackSummary is a line of `berth ls`.
type StackSummary struct {
	Name     string         `json:"name"`
	Revision uint64         `json:"revision"`
	States   map[string]int `json:"states"` // running, exited …: how many tasks
	Files    []string       `json:"files"`
	// Removing says that `down` is under way.
	Removing bool `json:"removing,omitempty"`
}

// StackStatus is the whole of a stack.
type StackStatus struct {
	StackSummary
	Stack    spec.Stack      `json:"stack"` // contents of configs and secrets left out
	Services []ServiceStatus `json:"services"`
	Tasks    []Task          `json:"tasks"`
}

// Phases of a ServiceStatus.
const (
	PhaseWaiting   = "waiting"   // for a dependency
	PhaseStarting  = "starting"  // tasks are created or not ready yet
	PhaseReady     = "ready"     // all wanted tasks are ready
	PhaseCompleted = "completed" // a one-shot that exited 0
	PhasePending   = "pending"   // fits no node
	PhaseFailing   = "failing"   // crashes, restarts with back-off
	PhaseFailed    = "failed"    // exited, and its policy does not restart it
	PhaseStopped   = "stopped"   // by the user
	PhaseStopping  = "stopping"
	PhaseRemoved   = "removed"
)

// ServiceStatus is the progress of one service.
type ServiceStatus struct {
	Service  string `json:"service"`
	Phase    string `json:"phase"`
	Replicas int    `json:"replicas"` // wanted
	Updated  int    `json:"updated"`  // tasks of the wanted version
	Ready    int    `json:"ready"`
	// Available tasks have been ready for as long as they are watched
	// (update_config.monitor).
	Available int `json:"available"`
	Old       int `json:"old"` // tasks of another version still there
	// Reason says what it waits for or why it fails, in one line.
	Reason string `json:"reason,omitempty"`
	// Position is where the cause stands in the Compose file, if it does.
	Position *spec.Position `json:"position,omitempty"`
	// Elapsed since the service began to change.
	Elapsed time.Duration `json:"elapsed,omitempty"`
	// Change is what is or was done: created, replaced, updated, removed,
	// unchanged.
	Change string `json:"change,omitempty"`
}

// States of a Task, as Docker Compose names them.
const (
	TaskPending    = "pending" // not made: its service fits no node
	TaskCreated    = "created"
	TaskRunning    = "running"
	TaskPaused     = "paused"
	TaskExited     = "exited"
	TaskRestarting = "restarting" // exited, a successor is due
	TaskRemoving   = "removing"
)

// Task is one container of a stack.
type Task struct {
	ID       string `json:"id"`
	Name     string `json:"name"` // STACK-SERVICE-SLOT
	Stack    string `json:"stack"`
	Service  string `json:"service"`
	Slot     int    `json:"slot"` // from 1
	Revision uint64 `json:"revision"`
	Image    string `json:"image"` // reference as written
	Digest   string `json:"digest,omitempty"`
	Command  string `json:"command"`
	State    string `json:"state"`
	Health   string `json:"health,omitempty"` // starting, healthy, unhealthy
	// Readiness and Liveness are the same of x-readiness and x-liveness.
	Readiness  string            `json:"readiness,omitempty"`
	Liveness   string            `json:"liveness,omitempty"`
	Ready      bool              `json:"ready"` // takes traffic
	CreatedAt  time.Time         `json:"created_at"`
	StartedAt  time.Time         `json:"started_at,omitzero"`
	FinishedAt time.Time         `json:"finished_at,omitzero"`
	ExitCode   int               `json:"exit_code"`
	OOMKilled  bool              `json:"oom_killed,omitempty"`
	Restarts   int               `json:"restarts"`
	Reason     string            `json:"reason,omitempty"`
	Pid        int               `json:"pid,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	// ServiceLabels are deploy.labels of its service.
	ServiceLabels map[string]string `json:"service_labels,omitempty"`
	Networks      []TaskNetwork     `json:"networks,omitempty"`
	Mounts        []TaskMount       `json:"mounts,omitempty"`
	Ports         []PortMapping     `json:"ports,omitempty"`
	// Current is false for a task that a newer one replaced.
	Current bool `json:"current"`
	// OneOff says that it fills no slot: `berth run` or a job made it. Its Slot
	// is 0.
	OneOff bool `json:"one_off,omitempty"`
}

// TaskNetwork is an address of a task.
type TaskNetwork struct {
	Network string   `json:"network"` // full name
	IPv4    string   `json:"ipv4,omitempty"`
	IPv6    string   `json:"ipv6,omitempty"`
	Aliases []string `json:"aliases,omitempty"`
}

// TaskMount is a mount of a task.
type TaskMount struct {
	Type     string `json:"type"`
	Name     string `json:"name,omitempty"` // of a volume
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// PortMapping is a published port of the task's service.
type PortMapping struct {
	HostIP    string `json:"host_ip,omitempty"`
	Published uint16 `json:"published"`
	Target    uint16 `json:"target"`
	Protocol  string `json:"protocol"`
}

// TaskInspect is everything about a task.
type TaskInspect struct {
	Task
	Service     spec.Service  `json:"service_spec"`
	Probes      []ProbeResult `json:"probes,omitempty"` // the last five of each test
	LogPath     string        `json:"log_path"`
	Bundle      string        `json:"bundle"`
	SpecHash    string        `json:"spec_hash"`
	CgroupPath  string        `json:"cgroup_path"`
	Predecessor string        `json:"predecessor,omitempty"`
}

// ProbeResult is one run of a task's test.
type ProbeResult struct {
	Test     string        `json:"test"` // health, readiness, liveness
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration"`
	ExitCode int           `json:"exit_code"` // -1: timed out
	Output   string        `json:"output"`    // at most 4096 bytes
}

// Plan is what apply would do.
type Plan struct {
	Stack    string `json:"stack"`
	Revision uint64 `json:"revision"` // current; 0: none
	Next     uint64 `json:"next"`     // equal to Revision when nothing changes
	Changed  bool   `json:"changed"`
	// Services in dependency order, unchanged ones included.
	Services []PlanService  `json:"services"`
	Networks []PlanResource `json:"networks,omitempty"`
	Volumes  []PlanResource `json:"volumes,omitempty"`
	Images   []string       `json:"images,omitempty"` // to be pulled
}

// Verbs of a PlanService and PlanResource.
const (
	PlanCreate    = "create"
	PlanReplace   = "replace"
	PlanUpdate    = "update" // in place, no process touched
	PlanScale     = "scale"
	PlanRemove    = "remove"
	PlanUnchanged = "unchanged"
)

// PlanService is what happens to one service.
type PlanService struct {
	Service string       `json:"service"`
	Verb    string       `json:"verb"`
	Tasks   int          `json:"tasks"`
	From    int          `json:"from"`             // replicas before
	To      int          `json:"to"`               // and after
	Order   string       `json:"order,omitempty"`  // start-first, stop-first
	Reason  string       `json:"reason,omitempty"` // of Order, or of the verb
	Changes []PlanChange `json:"changes,omitempty"`
}

// PlanChange is one field that differs.
type PlanChange struct {
	Path     string         `json:"path"`
	Old      string         `json:"old,omitempty"`
	New      string         `json:"new,omitempty"`
	Position *spec.Position `json:"position,omitempty"`
}

// PlanResource is what happens to a network or volume.
type PlanResource struct {
	Name   string `json:"name"`
	Verb   string `json:"verb"`
	Reason string `json:"reason,omitempty"`
}

// LogQuery selects log lines of a stack.
type LogQuery struct {
	Services []string
	Index    int // slot; 0: all
	Follow   bool
	Since    string // RFC 3339 or a duration before now
	Until    string
	Tail     int    // <0: all
	Revision uint64 // 0: all
}

// LogEntry is one line, merged over tasks by time.
type LogEntry struct {
	Time     time.Time `json:"time"`
	Service  string    `json:"service"`
	Task     string    `json:"task"`
	Name     string    `json:"name"` // STACK-SERVICE-SLOT
	Slot     int       `json:"slot"`
	Revision uint64    `json:"revision"`
	Stream   string    `json:"stream"`
	Text     string    `json:"text"`
	Error    *Error    `json:"error,omitempty"`
}

// EventQuery selects events.
type EventQuery struct {
	Stack    string
	Services []string
	Since    string
	Until    string
	// Follow keeps the stream open; without it the stream ends at now.
	Follow bool
}

// Event is something that happened.
type Event struct {
	Time     time.Time         `json:"time"`
	Type     string            `json:"type"`   // task, service, stack, network, volume, image
	Action   string            `json:"action"` // create, start, die, oom, health_status, destroy …
	Stack    string            `json:"stack,omitempty"`
	Service  string            `json:"service,omitempty"`
	Task     string            `json:"task,omitempty"`
	Name     string            `json:"name,omitempty"`
	Revision uint64            `json:"revision,omitempty"`
	Message  string            `json:"message,omitempty"`
	Attrs    map[string]string `json:"attributes,omitempty"`
}

// TaskStats is a sample of one task's use of the machine.
type TaskStats struct {
	Task       string    `json:"task"`
	Name       string    `json:"name"`
	Service    string    `json:"service"`
	Time       time.Time `json:"time"`
	CPUPercent float64   `json:"cpu_percent"` // 100 is one CPU
	Memory     uint64    `json:"memory"`
	MemLimit   uint64    `json:"memory_limit"`
	NetRx      uint64    `json:"net_rx"`
	NetTx      uint64    `json:"net_tx"`
	BlockRead  uint64    `json:"block_read"`
	BlockWrite uint64    `json:"block_write"`
	Pids       uint64    `json:"pids"`
	Error      *Error    `json:"error,omitempty"`
}

// ExecRequest is the first message of an exec WebSocket (text, JSON). Then
// binary messages: their first byte is a Channel, the rest is data.
type ExecRequest struct {
	Args       []string `json:"args"`
	Env        []string `json:"env,omitempty"`
	User       string   `json:"user,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	TTY        bool     `json:"tty,omitempty"`
	Stdin      bool     `json:"stdin,omitempty"`
	Privileged bool     `json:"privileged,omitempty"`
	Detach     bool     `json:"detach,omitempty"`
	Rows       uint16   `json:"rows,omitempty"`
	Cols       uint16   `json:"cols,omitempty"`
}

// Channels of exec and attach WebSockets.
const (
	ChannelStdin    = 0 // client to agent; an empty message is the end of input
	ChannelStdout   = 1
	ChannelStderr   = 2
	ChannelResize   = 3 // client to agent: JSON {"rows":R,"cols":C}
	ChannelExit     = 4 // agent to client, last: JSON {"exit_code":N}
	ChannelError    = 5 // agent to client, last: JSON Error
	ChannelSignaled = 6 // client to agent: JSON {"signal":"INT"}
)

// ImagePullRequest pulls one image.
type ImagePullRequest struct {
	Reference string `json:"reference"`
	Platform  string `json:"platform,omitempty"`
	Policy    string `json:"policy,omitempty"`
	Auth      Auths  `json:"auth,omitempty"`
}

// RegistryAuth are credentials for one request; never stored. With the
// username "<token>" the password is an identity token, as credential helpers
// have it.
type RegistryAuth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// ImageRemoved says what went.
type ImageRemoved struct {
	Untagged []string `json:"untagged,omitempty"`
	Deleted  []string `json:"deleted,omitempty"` // digests
	Bytes    int64    `json:"bytes"`             // freed
}

// Removed says what went.
type Removed struct {
	Names []string `json:"names"`
	Bytes int64    `json:"bytes,omitempty"`
}

// Volume is a named or anonymous volume.
type Volume struct {
	Name       string            `json:"name"`
	Driver     string            `json:"driver"`
	Mountpoint string            `json:"mountpoint"`
	Stack      string            `json:"stack,omitempty"`
	Key        string            `json:"key,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
	CreatedAt  time.Time         `json:"created_at"`
	Anonymous  bool              `json:"anonymous,omitempty"`
	UsedBy     []string          `json:"used_by,omitempty"` // task names
}

// VolumeCreate makes a volume.
type VolumeCreate struct {
	Name    string            `json:"name"`
	Driver  string            `json:"driver,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Adopt is a folder of somebody else's, such as a volume of Docker's, that
	// the volume shows; it is never deleted.
	Adopt string `json:"adopt,omitempty"`
}

// Network is a network of this machine.
type Network struct {
	Name     string            `json:"name"`
	ID       string            `json:"id"`
	Driver   string            `json:"driver"`
	Stack    string            `json:"stack,omitempty"`
	Key      string            `json:"key,omitempty"`
	Subnets  []string          `json:"subnets"`
	Gateways []string          `json:"gateways"`
	Internal bool              `json:"internal,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Bridge   string            `json:"bridge"`
	// Endpoints by task name, with its addresses.
	Endpoints map[string][]string `json:"endpoints,omitempty"`
	VIPs      map[string][]string `json:"vips,omitempty"` // by service
	CreatedAt time.Time           `json:"created_at"`
}

// NetworkCreate makes a network.
type NetworkCreate struct {
	Name       string            `json:"name"`
	Driver     string            `json:"driver,omitempty"`
	Internal   bool              `json:"internal,omitempty"`
	EnableIPv6 bool              `json:"enable_ipv6,omitempty"`
	Subnets    []string          `json:"subnets,omitempty"`
	Gateway    string            `json:"gateway,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}
