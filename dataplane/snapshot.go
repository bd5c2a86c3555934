package dataplane

import "net/netip"

// Snapshot is all that the dataplane knows. The agent writes it to
// RUN/dataplane/snapshot.json with rename; the dataplane applies it whole.
type Snapshot struct {
	Version  int       `json:"version"` // 1
	Networks []Network `json:"networks"`
	// Upstreams are the resolvers that unknown names go to, in order.
	Upstreams []netip.AddrPort `json:"upstreams"`
	// Loopback are published ports that [::1] is proxied for.
	Loopback []Loopback `json:"loopback,omitempty"`
}

// Network is one network's name space.
type Network struct {
	ID       string       `json:"id"`
	Gateways []netip.Addr `json:"gateways"` // DNS listens on their port 53
	Internal bool         `json:"internal,omitempty"`
	// Names in lower case without the final dot.
	Names map[string]Name `json:"names"`
	// PTR by address.
	PTR map[netip.Addr]string `json:"ptr,omitempty"`
	// Elsewhere are the ids of the other networks that a client is on, by its
	// address: it knows the names of all, whichever gateway it asks.
	Elsewhere map[netip.Addr][]string `json:"elsewhere,omitempty"`
	// Clients are those that know more than the names of networks, by address.
	Clients map[netip.Addr]Client `json:"clients,omitempty"`
}

// Client is what one task knows of names beyond its networks.
type Client struct {
	// Links are further names that only it knows: each stands for one of Names.
	Links map[string]string `json:"links,omitempty"`
	// Upstreams, if there are any, are asked instead of the Snapshot's.
	Upstreams []netip.AddrPort `json:"upstreams,omitempty"`
}

// Name is one name's addresses, both families.
type Name struct {
	Addrs []netip.Addr `json:"addrs"`
	TTL   uint32       `json:"ttl"` // seconds
}

// Loopback is a TCP port of [::1] passed on to Backends, in turn.
type Loopback struct {
	Port     uint16           `json:"port"`
	Backends []netip.AddrPort `json:"backends"`
}
