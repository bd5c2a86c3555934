package overlaynet

import (
	"net/netip"
)

// Config places the networks on the machine.
type Config struct {
	Root, Run string
	// Prefix begins the name of every link and of the nftables table; at most
	// 4 bytes, "bt" by default. Agents in one network namespace must differ.
	Prefix string
	// Pools are the prefixes that subnets are taken from: by default
	// 10.210.0.0/16 and then 10.211.0.0/16 … 10.219.0.0/16, /24 each, and a
	// random /48 ULA, /64 each. Overlap with host routes is avoided.
	Pools []netip.Prefix
}

// Network is one bridge network with its allocations; the caller stores it.
type Network struct {
	ID       string       `json:"id"` // 12 hex digits; names the bridge
	Subnet4  netip.Prefix `json:"subnet4"`
	Gateway4 netip.Addr   `json:"gateway4"`
	Subnet6  netip.Prefix `json:"subnet6,omitzero"` // invalid: no IPv6
	Gateway6 netip.Addr   `json:"gateway6,omitzero"`
	Internal bool         `json:"internal,omitempty"`
	MTU      int          `json:"mtu,omitempty"` // 0: 1500
	// AltName is a further name of the bridge, for people and their tools.
	AltName string `json:"alt_name,omitempty"`
	// Isolated keeps its tasks apart; they reach what is outside only.
	Isolated bool `json:"isolated,omitempty"`
	// Unmasqueraded lets packets leave the host with the tasks' own addresses.
	Unmasqueraded bool `json:"unmasqueraded,omitempty"`
}

// Endpoint is a task's place on one network.
type Endpoint struct {
	NetworkID string     `json:"network_id"`
	Addr4     netip.Addr `json:"addr4"`
	Addr6     netip.Addr `json:"addr6,omitzero"`
	MAC       string     `json:"mac,omitempty"`
	// Ifname inside the task, "eth0" and so on.
	Ifname string `json:"ifname"`
	// DefaultRoute says that this endpoint carries the task's default route.
	DefaultRoute bool `json:"default_route,omitempty"`
	// LinkLocal are further addresses of the link's own scope.
	LinkLocal []netip.Addr `json:"link_local,omitempty"`
	// Sysctls are "net.ipv4.conf.IFNAME.NAME=VALUE", with IFNAME as it stands.
	Sysctls []string `json:"sysctls,omitempty"`
}

// Rules is the whole wanted state of load balancing, publishing and isolation.
type Rules struct {
	Networks []Network
	Services []Service
	Ports    []PublishedPort
	// HostUsers are addresses of tasks that may open connections to the host
	// itself, at their gateways.
	HostUsers []netip.Addr
}

// Service is a VIP on one network and its ready backends.
type Service struct {
	ID        string // for names and comments: stack/service/network
	NetworkID string
	VIP4      netip.Addr
	VIP6      netip.Addr // invalid: none
	Backends  []Backend
	// Hold lets new TCP connections wait (their SYNs are dropped, and sent again
	// by the client) while there are no backends; else they are refused.
	Hold bool
}

// Backend is one ready task on the network of its Service.
type Backend struct {
	TaskID string
	Addr4  netip.Addr
	Addr6  netip.Addr
	// Weight is its share of new connections, relative to the others'; 0 is 1.
	// Shares are exact while they make rounds of at most 100 connections, else
	// rounded, and never nothing.
	Weight int
}

// PublishedPort maps a port of the host to a port of ready tasks. Without
// backends new connections are refused.
type PublishedPort struct {
	ID       string     // stack/service/port
	HostIP   netip.Addr // invalid: every local address
	Port     uint16
	Protocol string // tcp, udp, sctp
	Target   uint16
	Backends []Backend
	Hold     bool // as of a Service
}

// Request says what a new network should be like; zero values are free.
type Request struct {
	ID       string
	Subnets  []netip.Prefix // at most one per family
	Gateways []netip.Addr
	Range4   netip.Prefix // addresses are taken from here
	IPv6     bool
	Internal bool
	MTU      int
}
