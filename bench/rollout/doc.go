// Package rollout measures what replacing a running service costs its clients:
// deploys under load, bad versions, an agent that is killed again and again,
// and how long ten replicas take.
//
// Each section has a machine of its own (an agent and its state in a folder of
// its own) inside the namespaces that the bench made, and another machine
// beside it, from which most of the load comes, through the published ports.
// The rest comes from the machine itself and from a container of the stack,
// through the services' virtual addresses.
package rollout
