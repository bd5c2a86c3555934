package reconciler

import (
	"time"

	"berth/spec"
)

// Stack is the wanted state of one stack.
type Stack struct {
	Name     string
	Revision uint64
	Services map[string]Service
	// Networks are the stack's own networks, by full name.
	Networks []string
	// Removing asks for the end of everything that the stack has.
	Removing bool
	// Rollout is the passage to Revision; nil: it ended, or there is none.
	Rollout *Rollout
}

// RolloutState of a Rollout that is under way.
type RolloutState int

// States of a rollout. A paused one replaces no further slots.
const (
	Progressing RolloutState = iota
	Paused
	RollingBack    // to the last stable revision
	RollbackPaused // a rollback that met a failure itself: never chained
)

// Rollout is the passage of a stack from one revision to the next.
type Rollout struct {
	State RolloutState
	// Stable says that there is a revision to go back to.
	Stable bool
	// Touched are the services whose tasks this rollout replaces or makes, or
	// whose limits or probes it changes in place; what happens to others is not
	// its doing.
	Touched map[string]bool
	// Since is when it began, or was resumed: failures before do not count.
	Since time.Time
	// Canary is the service of which only the first slot is renewed, beside its
	// predecessor, until the user promotes it; "": none.
	Canary string
}

// Service is the wanted state of one service.
type Service struct {
	Name      string
	Key       string // of a current task
	InPlace   string // of a current task's in-place fields
	Replicas  int
	Order     Order
	DependsOn []spec.Dependency
	Restart   spec.RestartPolicy
	OneShot   bool
	// Stopped by the user: tasks end and stay ended.
	Stopped bool
	// Shares names whose namespaces its tasks use (network_mode, pid, ipc, uts): "service:NAME", or "container:NAME" with Containers, sorted.
	Shares []string
	// Containers are the ids of the running tasks, of any stack, that the
	// "container:NAME" of Shares lead to.
	Containers map[string]string
	// Networks are the full names of the networks it is attached to.
	Networks []string
	// Completed is how many slots of this version of a one-shot, from the first
	// on, have run to their end before: they are not run again.
	Completed int
	// Unfit says why the slots above Fits can't run on this node; "": all can.
	Unfit string
	Fits  int
	// Update says how slots are replaced and watched.
	Update Update
	// MinReady is how long a task must be ready before it takes traffic.
	MinReady time.Duration
	// Deadline is how long a task may take to become ready.
	Deadline time.Duration
	// Drain is how long a withdrawn task may finish its connections.
	Drain time.Duration
	// Grace is the time between stop signal and SIGKILL; <0: for ever.
	Grace time.Duration
}

// FailureAction is what a rollout does after a failure.
type FailureAction int

// Failure actions, as Compose names them.
const (
	ActionRollback FailureAction = iota
	ActionPause
	ActionContinue
)

// Update is deploy.update_config, or rollback_config while rolling back, with
// every default filled in.
type Update struct {
	// Parallelism is how many slots are replaced at once; 0 means all.
	Parallelism int
	// Delay is the time between a slot that is done and the next.
	Delay time.Duration
	// Monitor is how long a new task is watched from when it is ready: a failure
	// within is one of the rollout.
	Monitor time.Duration
	// MaxFailureRatio is the part of failed slots that is tolerated.
	MaxFailureRatio float64
	OnFailure       FailureAction
}

// TaskState of an observed task.
type TaskState int

// States, in the order of a task's life.
const (
	TaskPending TaskState = iota // recorded, being created
	TaskRunning
	TaskPaused
	TaskExited
)

// String gives the lower-case name.
func (s TaskState) String() string {
	return [...]string{"pending", "running", "paused", "exited"}[s]
}

// Task is one observed task.
type Task struct {
	ID      string
	Service string
	Slot    int
	Attempt int // the newest of a slot is its highest
	Key     string
	InPlace string
	State   TaskState
	// Ready says that it may take traffic; Healthy that its healthcheck
	// passes (a task without one is never Healthy and may be Ready).
	Ready, Healthy bool
	// ReadyAt is when it first became ready; zero: it never was. ReadySince is
	// from when it has been without a break; zero: it is not ready.
	ReadyAt, ReadySince time.Time
	// UnreadyAt is when it last lost its readiness.
	UnreadyAt time.Time
	// Unhealthy says that its healthcheck or liveness probe has failed for good:
	// it is to be replaced.
	Unhealthy bool
	// Doubtful says that its last probe failed, and it has not taken traffic yet.
	Doubtful bool
	// Hooking says that its post_start hooks have not ended: it counts as being
	// started.
	Hooking bool
	// Checked says that it has a healthcheck.
	Checked bool
	// Published says that it is in the VIP map and DNS, confirmed. Exposed
	// says that it may be: to publish it was begun, or to withdraw it failed.
	Published, Exposed bool
	// WithdrawnAt is when it left them; zero if it never did.
	WithdrawnAt time.Time
	// Flows are its open connections, counted while it drains; -1: unknown.
	// Idle is the time since the last packet on any of them.
	Flows int
	Idle  time.Duration
	// StopAt is when the stop signal was sent, KilledAt when SIGKILL was last.
	StopAt   time.Time
	KilledAt time.Time

	StartedAt, FinishedAt time.Time
	ExitCode              int
	// Lost is an exit that is not the program's own: a reboot, a container
	// removed by hand, an agent that died while it created the task.
	Lost bool
	// Unstartable is an exit of a program that could not be run at all: it is
	// not in the image, or not executable. Trying again gives the same.
	Unstartable bool
	// Retry says that the user asked for another try after it failed.
	Retry bool
	// LastLine is the last line that a failed task logged.
	LastLine string
	// Failures are the failed predecessors in a row; Restarts all of them.
	Failures, Restarts int
	// Restarted are the times of the restarts that count for max_attempts.
	Restarted []time.Time
	// Exclusive says that it holds something that a successor can't share with
	// it: its service is replaced stop-first.
	Exclusive bool
	// Parents are the tasks whose namespaces it shares, by what Shares has.
	Parents map[string]string
	// Grace is its own, for when its service is not known any more;
	// nil: 10 s; <0: for ever.
	Grace *time.Duration
	// Reason is why it could not start or is not ready, in one line.
	Reason string
}

// Observed is one look at the machine.
type Observed struct {
	Tasks []Task
	// Attempts is the highest attempt that each slot ("service/n") ever had:
	// removed tasks are not among Tasks, and their ids are not given again.
	Attempts map[string]int
	// Networks of the stack that exist, by full name.
	Networks map[string]bool
	// Idle are networks of the stack that it does not want any more and that
	// no task uses.
	Idle []string
}

func (t *Task) live() bool { return t.State != TaskExited }

// inTraffic says that connections may still be led to t.
func (t *Task) inTraffic() bool { return t.Published || t.Exposed }

// up says that the program of t runs.
func (t *Task) up() bool { return t.State == TaskRunning || t.State == TaskPaused }
