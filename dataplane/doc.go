// Package dataplane serves what containers need while no agent runs: DNS on
// the gateway address of each network, and the loopback proxies of published
// ports for [::1].
//
// It is a process of its own, `berthd dataplane`. It reads one snapshot file,
// written atomically by the agent, watches it for the next, and outlives the
// agent. A newer dataplane takes its sockets over with SO_REUSEPORT, then the
// older one ends.
//
// Answers: a service's name is its VIP (TTL 5 s), or its ready tasks with
// endpoint_mode dnsrr; tasks.SERVICE its ready tasks (TTL 1 s); names of
// tasks and aliases their addresses. A name known with another record type
// answers NOERROR, empty. Other names are forwarded, except from networks
// that are internal.
package dataplane
