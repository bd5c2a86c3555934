// Package reconciler decides what to do so that a machine matches a stack.
//
// PlanStack is pure: the wanted stack, one observation and the time go in, a
// Plan comes out. No I/O, no clock, no randomness: the same input gives the
// same plan, and its text is the golden of its tests. Times are inputs, waits
// are outputs.
//
// Model. A service has slots 1…replicas. A slot is filled by tasks, one after
// the other; the newest has the highest attempt. A task is current when its
// key equals the service's: the key covers everything whose change needs a
// new container. Tasks are immutable and run once: a restart is a new task.
//
// The loop that carries a plan out is level-triggered: it observes, plans,
// starts the actions whose target is free, and looks again when one ends,
// when something changes, or at Plan.Next. It never continues an old plan, so
// there is no cursor to store: after a crash the next plan goes on from what
// is there.
//
// The life of a task in a replacement, start-first: create and start → ready
// → published (in the VIP map and DNS, confirmed) → the old one withdrawn,
// confirmed → drained → stop signal → grace → kill → removed. Stop-first
// withdraws, drains and stops the old one before the new one is created.
package reconciler
