package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Kind of an Action. The values are fixed: they stand in logs.
type Kind int

// Kinds of actions. Each is idempotent.
const (
	EnsureNetwork Kind = 1  // Target is the network's full name
	CreateTask    Kind = 2  // create and start the next task of Service/Slot
	UpdateTask    Kind = 3  // apply in-place fields
	PublishTask   Kind = 4  // into the VIP map and DNS; ends when confirmed
	WithdrawTask  Kind = 5  // out of both; ends when confirmed
	StopTask      Kind = 6  // send the stop signal
	KillTask      Kind = 7  // send SIGKILL
	RemoveTask    Kind = 8  // free everything an exited task holds but its log
	RemoveNetwork Kind = 9  // Target is the network's full name
	RemoveStack   Kind = 10 // forget it; nothing of it is left

	// What becomes of a rollout; Target is the stack.
	RollBack        Kind = 11 // make the last stable revision the wanted one
	PauseRollout    Kind = 12 // replace no further slots
	CompleteRollout Kind = 13 // the revision is stable, or is back
)

// String gives the verb as plans print it.
func (k Kind) String() string {
	return map[Kind]string{
		EnsureNetwork: "ensure-network", CreateTask: "create", UpdateTask: "update",
		PublishTask: "publish", WithdrawTask: "withdraw", StopTask: "stop", KillTask: "kill",
		RemoveTask: "remove", RemoveNetwork: "remove-network", RemoveStack: "remove-stack",
		RollBack: "roll-back", PauseRollout: "pause-rollout", CompleteRollout: "complete-rollout",
	}[k]
}

// Action is one small step.
type Action struct {
	Kind    Kind
	Target  string // task id, network name, or service/slot of a task to create
	Service string
	Slot    int
	// Attempt, Failures and Restarts of the task that CreateTask makes.
	Attempt, Failures, Restarts int
	// Restarted is the history that the new task begins with.
	Restarted []time.Time
	// Parents are the tasks whose namespaces the new one shares, by what the
	// service's Shares has.
	Parents map[string]string
	// Cause says why, for plans and logs.
	Cause string
	// After are the indexes of actions of the same plan that end first.
	After []int
}

// Wait is something the plan can't do anything about yet.
type Wait struct {
	Service string
	Slot    int
	For     string // in words
	// Until is when it ends by itself; zero: an event ends it.
	Until time.Time
}

// Plan is what to do now.
type Plan struct {
	Stack    string
	Revision uint64
	Actions  []Action
	Waits    []Wait
	// Services tell how far each is, sorted by name.
	Services []Status
	// Next is when to plan again if nothing happens; zero: never.
	Next time.Time
}

// Settled says that there is nothing to do and nothing to wait for.
func (p *Plan) Settled() bool { return len(p.Actions) == 0 && len(p.Waits) == 0 }

// String is the plan as text: one line an action, then one a wait.
//
//	0 ensure-network shop_default
//	1 create web/1 attempt 1: not there  [after 0]
//	wait worker/1: db to be healthy
func (p *Plan) String() string {
	var b strings.Builder
	for i, a := range p.Actions {
		fmt.Fprintf(&b, "%d %s %s", i, a.Kind, a.Target)
		if a.Kind == CreateTask {
			fmt.Fprintf(&b, " attempt %d", a.Attempt)
			if a.Failures > 0 {
				fmt.Fprintf(&b, " failures %d", a.Failures)
			}
			for i, share := range slices.Sorted(maps.Keys(a.Parents)) {
				fmt.Fprintf(&b, "%s %s", []string{" in", " and"}[min(i, 1)], a.Parents[share])
			}
		}
		if a.Cause != "" {
			fmt.Fprintf(&b, ": %s", a.Cause)
		}
		if len(a.After) > 0 {
			fmt.Fprintf(&b, "  [after %s]", strings.Trim(fmt.Sprint(a.After), "[]"))
		}
		b.WriteByte('\n')
	}
	for _, w := range p.Waits {
		fmt.Fprintf(&b, "wait %s/%d: %s", w.Service, w.Slot, w.For)
		if !w.Until.IsZero() {
			fmt.Fprintf(&b, " until %s", w.Until.UTC().Format("15:04:05.000"))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
