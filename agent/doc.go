// Package agent wires the parts of Berth on one machine: it serves the API,
// keeps the records, observes, plans, and carries plans out.
//
// Who writes what. Records of stacks, revisions, networks and virtual
// addresses are written by requests (apply.go, down.go, action.go) and by the
// loop; records of tasks by the loop and by what watches tasks (exits, health
// tests). Every change goes through world, which keeps memory and store
// equal. Intent is committed before its side effect; what can be observed
// again (running, healthy, published) is noted in memory and flushed soon
// after.
//
// The loop (loop.go) is level-triggered. It builds one observation for each
// stack, asks reconciler.PlanStack what to do, and starts each action whose
// target is free. It is woken by requests, exits, health tests, ends of
// actions, foreign changes to the firewall, and by the time that the plan
// returned.
//
// Traffic (traffic.go) follows the set of published tasks: rules and DNS are
// computed whole from the records and made so, many changes at once.
package agent
