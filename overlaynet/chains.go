package overlaynet

import (
	"fmt"
	"strings"
)

// baseChains meet the packets. An accept of ours ends only our own chain:
// another table's drop still holds. All policies are accept, so that traffic
// that is not ours is never judged here.
//
// BRIDGES stands for the names of our bridges.
//
// A packet that meets a change reads all chains of one hook as they were before
// it, or all as they are after it; but sets as they are when it asks, and the
// hooks one after the other (docs/adr/0008). So elements of vips and ports lead
// to the same chain as long as they exist, and only the chain's rules change;
// and a packet that the rules before a change passed untranslated to a VIP is
// dropped by those after it, so that the client's next one is translated.
//
// Order on the way of a packet to a published port: prerouting (DNAT, marks
// the connection), guard (marks the packet), ip rules, forward, postrouting.
var baseChains = []chain{
	{"prerouting", "nat hook prerouting priority dstnat", []string{
		"# Never from a wire: else a neighbour reaches ports published on 127.0.0.1.",
		"ip daddr 127.0.0.0/8 return",
		"ip6 daddr ::1 return",
		"# Names are asked at the gateway, whoever publishes port 53.",
		"iifname . ip daddr @gateways4 th dport 53 return",
		"iifname . ip6 daddr @gateways6 th dport 53 return",
		"iifname . ip daddr vmap @vips4",
		"iifname . ip6 daddr vmap @vips6",
		"goto published",
	}},
	{"output", "nat hook output priority -100", []string{
		"oifname . ip daddr vmap @vips4",
		"oifname . ip6 daddr vmap @vips6",
		"# A connection from ::1 cannot leave the host: the dataplane proxies it.",
		"ip6 daddr ::1 return",
		"goto published",
	}},
	{"published", "", []string{
		"ip daddr . meta l4proto . th dport vmap @hostports4",
		"ip6 daddr . meta l4proto . th dport vmap @hostports6",
		"fib daddr type != local return",
		"meta nfproto ipv4 meta l4proto . th dport vmap @ports4",
		"meta nfproto ipv6 meta l4proto . th dport vmap @ports6",
	}},
	{"guard", "filter hook prerouting priority -95", []string{
		"# After DNAT, before routing: what the ip rules may let through.",
		"# The reverse path check asks for the way back with the same mark (src_valid_mark).",
		"iifname BRIDGES meta mark set meta mark | " + markText,
		"ct mark & " + markText + " == " + markText + " meta mark set meta mark | " + markText,
		"ip daddr @subnets4 ct state established,related meta mark set meta mark | " + markText,
		"ip6 daddr @subnets6 ct state established,related meta mark set meta mark | " + markText,
		"ct state established,related return",
		"iifname vmap @sources",
	}},
	{"forward", "filter hook forward priority filter", []string{
		"iifname BRIDGES goto ours",
		"oifname BRIDGES goto ours",
		"goto closed",
	}},
	{"ours", "", []string{
		refusedSYN,
		"tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
		"ct state established,related accept",
		"# Else a packet outside the window passes without its NAT and resets the connection.",
		"ct state invalid drop",
		"oifname . ip daddr @novips4 goto refuse",
		"oifname . ip6 daddr @novips6 goto refuse",
		"iifname . ip daddr @anyvips4 drop",
		"iifname . ip6 daddr @anyvips6 drop",
		"jump same",
		"iifname @internal reject with icmpx admin-prohibited",
		"ct mark & " + markText + " == " + markText + " accept",
		"iifname BRIDGES oifname BRIDGES reject with icmpx admin-prohibited",
		"oifname BRIDGES drop",
	}},
	{"input", "filter hook input priority filter", []string{
		refusedSYN,
		"ct state established,related accept",
		"ip daddr . meta l4proto . th dport @nohostports4 goto refuse",
		"ip6 daddr . meta l4proto . th dport @nohostports6 goto refuse",
		"ip6 daddr ::1 meta l4proto . th dport @heldports6 drop",
		"meta nfproto ipv4 meta l4proto . th dport @noports4 goto notdns",
		"meta nfproto ipv6 meta l4proto . th dport @noports6 goto notdns",
		"iifname BRIDGES goto host",
	}},
	{"again", "", []string{
		"# Once: who really listens at no backend shall be told so.",
		"ip daddr . tcp dport @tried4 return",
		"ip6 daddr . tcp dport @tried6 return",
		"add @tried4 { ip daddr . tcp dport } drop",
		"add @tried6 { ip6 daddr . tcp dport } drop",
	}},
	{"notdns", "", []string{
		"iifname BRIDGES th dport 53 goto host",
		"goto refuse",
	}},
	{"host", "", []string{
		"iifname . ip daddr @gateways4 meta l4proto udp th dport 53 accept",
		"iifname . ip daddr @gateways4 meta l4proto tcp th dport 53 accept",
		"iifname . ip6 daddr @gateways6 meta l4proto udp th dport 53 accept",
		"iifname . ip6 daddr @gateways6 meta l4proto tcp th dport 53 accept",
		"# Whose file names host-gateway.",
		"ip saddr @hostusers4 iifname . ip daddr @gateways4 accept",
		"ip6 saddr @hostusers6 iifname . ip6 daddr @gateways6 accept",
		"icmp type echo-request accept",
		"icmpv6 type echo-request accept",
		"icmpv6 type nd-neighbor-solicit accept",
		"icmpv6 type nd-neighbor-advert accept",
		"ct state invalid drop",
		"reject with icmpx admin-prohibited",
	}},
	{"outfilter", "filter hook output priority filter", []string{
		"# The gateway is the way to a neighbour on the same bridge; do not advise otherwise.",
		"oifname BRIDGES icmp type redirect drop",
		"oifname BRIDGES icmpv6 type nd-redirect drop",
		"oifname . ip daddr @novips4 goto refuse",
		"oifname . ip6 daddr @novips6 goto refuse",
		"oifname . ip daddr @anyvips4 drop",
		"oifname . ip6 daddr @anyvips6 drop",
	}},
	{"refuse", "", []string{
		"meta l4proto tcp reject with tcp reset",
		"reject with icmpx port-unreachable",
	}},
	{"postrouting", "nat hook postrouting priority srcnat", []string{
		"# A task that reaches itself through its VIP or published port.",
		"ip saddr . ip daddr @hairpin4 masquerade",
		"ip6 saddr . ip6 daddr @hairpin6 masquerade",
		"oifname BRIDGES ip saddr 127.0.0.0/8 masquerade",
		"oifname BRIDGES return",
		"ip saddr @egress4 masquerade",
		"ip6 saddr @egress6 masquerade",
	}},
	{"closed", "", []string{
		"# A host that was no router does not become one between the links that it had.",
		"meta nfproto ipv4 iifname @closed4 oifname @closed4 ct state new drop",
		"meta nfproto ipv6 iifname @closed6 oifname @closed6 ct state new drop",
	}},
}

var markText = fmt.Sprintf("0x%08x", mark)

// refusedSYN finds a backend's answer to a SYN that it refuses: its process has
// died and the rules do not know yet. The kernel has forgotten the flow by then
// (nf_conntrack_proto_tcp.c: "if only reply is a RST"). If the client does not
// hear of it either, it sends the SYN again after 1 s, as a new flow, which
// takes another turn.
var refusedSYN = fmt.Sprintf("tcp flags & (rst | ack) == rst | ack tcp sequence 0 ct direction reply ct mark & 0x%08[1]x == 0x%08[1]x jump again", retryMark)

// addSources drops what a network's tasks send under a foreign address.
func (r *renderer) addSources(n Network) {
	statements := []string{
		fmt.Sprintf("meta nfproto ipv4 ip saddr != %s drop", n.Subnet4.Masked()),
		"ip daddr 127.0.0.0/8 drop",
	}
	if n.Subnet6.IsValid() {
		statements = append(statements,
			fmt.Sprintf("meta nfproto ipv6 ip6 saddr != %s ip6 saddr != fe80::/10 ip6 saddr != :: drop", n.Subnet6.Masked()))
	} else {
		statements = append(statements, "meta nfproto ipv6 drop")
	}
	r.chains = append(r.chains, chain{name: ruleName("from", n.ID), statements: statements})
}

// baseChains fills the names of the bridges in.
func (r *renderer) baseChains() []chain {
	bridges := strings.NewReplacer("BRIDGES", quoted(r.prefix+"-*"))
	out := make([]chain, len(baseChains))
	for i, c := range baseChains {
		out[i] = chain{name: c.name, hook: c.hook}
		for _, s := range c.statements {
			out[i].statements = append(out[i].statements, bridges.Replace(s))
		}
	}
	return out
}

// sets has all of them, also the empty ones.
func (r *renderer) sets() []set {
	out := []set{
		{"set", "internal", "type ifname", r.internal, false},
		{"map", "sources", "type ifname : verdict", r.sources, false},
	}
	for _, f := range []struct {
		n, addr string
		*familySets
	}{{"4", "ipv4_addr", &r.v4}, {"6", "ipv6_addr", &r.v6}} {
		out = append(out,
			set{"set", "closed" + f.n, "type ifname", f.closed, false},
			set{"set", "gateways" + f.n, "type ifname . " + f.addr, f.gateways, false},
			set{"set", "subnets" + f.n, "type " + f.addr + "; flags interval", f.subnets, false},
			set{"set", "hostusers" + f.n, "type " + f.addr, f.hostUsers, false},
			set{"set", "egress" + f.n, "type " + f.addr + "; flags interval", f.egress, false},
			set{"set", "hairpin" + f.n, "type " + f.addr + " . " + f.addr, f.hairpin, true},
			set{"map", "vips" + f.n, "type ifname . " + f.addr + " : verdict", f.vips, false},
			set{"set", "anyvips" + f.n, "type ifname . " + f.addr, f.anyVIPs, false},
			set{"set", "novips" + f.n, "type ifname . " + f.addr, f.noVIPs, false},
			set{"map", "ports" + f.n, "type inet_proto . inet_service : verdict", f.ports, false},
			set{"set", "noports" + f.n, "type inet_proto . inet_service", f.noPorts, false},
			set{"map", "hostports" + f.n, "type " + f.addr + " . inet_proto . inet_service : verdict", f.hostPorts, false},
			set{"set", "tried" + f.n, "type " + f.addr + " . inet_service; size 65535; flags dynamic,timeout; timeout 5s", nil, false},
			set{"set", "nohostports" + f.n, "type " + f.addr + " . inet_proto . inet_service", f.noHostPorts, false},
		)
	}
	return append(out, set{"set", "heldports6", "type inet_proto . inet_service", r.held6, false})
}
