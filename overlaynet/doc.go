// Package overlaynet gives tasks addresses and names to be reached by:
// bridge networks, /32 and /128 addresses, virtual addresses of services
// (VIP), published ports, and isolation between networks.
//
// Who writes what. Ensure and Attach create kernel objects for one network or
// one endpoint; Sync makes the load balancing, publishing and isolation rules
// of the kernel equal to a Rules value: one nftables table of our own, changed
// by what differs in one transaction, and one ip rule guard. All of them are
// idempotent. Names of kernel objects derive from network and endpoint ids,
// so that Sweep can collect what no record claims.
//
// Every packet between containers passes the host's IP stack: an address is a
// /32 with an on-link route to the gateway, ports are hairpin. So a VIP works
// from the same network, from the backend itself, with bridge-nf-call-iptables
// 0 or 1 (measured: DESIGN.md, Network).
package overlaynet
