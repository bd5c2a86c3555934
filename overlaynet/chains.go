package overlaynet

import (
	"fmt"
	"io"
	"strings"
)

// chain is a base chain, or a part of one, that is the same for all rules.
type chain struct {
	name       string
	statements []string
}

// baseChains meet the packets. An accept of ours ends only our own chain:
// another table's drop still holds. All policies are accept, so that traffic
// that is not ours is never judged here.
//
// BRIDGES stands for the names of our bridges, as a pattern and not a set: when
// the table is replaced, a packet that is inside the old one finds its sets
// empty all at once, and must not be taken for somebody else's.
//
// Order on the way of a packet to a published port: prerouting (DNAT, marks
// the connection), guard (marks the packet), ip rules, forward, postrouting.
var baseChains = []chain{
	{"prerouting", []string{
		"type nat hook prerouting priority dstnat; policy accept;",
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
	{"output", []string{
		"type nat hook output priority -100; policy accept;",
		"oifname . ip daddr vmap @vips4",
		"oifname . ip6 daddr vmap @vips6",
		"# A connection from ::1 cannot leave the host: the dataplane proxies it.",
		"ip6 daddr ::1 return",
		"goto published",
	}},
	{"published", []string{
		"ip daddr . meta l4proto . th dport vmap @hostports4",
		"ip6 daddr . meta l4proto . th dport vmap @hostports6",
		"fib daddr type != local return",
		"meta nfproto ipv4 meta l4proto . th dport vmap @ports4",
		"meta nfproto ipv6 meta l4proto . th dport vmap @ports6",
	}},
	{"guard", []string{
		"# After DNAT, before routing: what the ip rules may let through.",
		"type filter hook prerouting priority -95; policy accept;",
		"# The reverse path check asks for the way back with the same mark (src_valid_mark).",
		"iifname BRIDGES meta mark set meta mark | " + markText,
		"ct mark & " + markText + " == " + markText + " meta mark set meta mark | " + markText,
		"ip daddr @subnets4 ct state established,related meta mark set meta mark | " + markText,
		"ip6 daddr @subnets6 ct state established,related meta mark set meta mark | " + markText,
		"ct state established,related return",
		"iifname vmap @sources",
	}},
	{"forward", []string{
		"type filter hook forward priority filter; policy accept;",
		"iifname BRIDGES goto ours",
		"oifname BRIDGES goto ours",
		"goto closed",
	}},
	{"ours", []string{
		"tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
		"ct state established,related accept",
		"# Else a packet outside the window passes without its NAT and resets the connection.",
		"ct state invalid drop",
		"oifname . ip daddr @novips4 goto refuse",
		"oifname . ip6 daddr @novips6 goto refuse",
		"jump same",
		"iifname @internal reject with icmpx admin-prohibited",
		"ct mark & " + markText + " == " + markText + " accept",
		"iifname BRIDGES oifname BRIDGES reject with icmpx admin-prohibited",
		"oifname BRIDGES drop",
	}},
	{"input", []string{
		"type filter hook input priority filter; policy accept;",
		"ct state established,related accept",
		"ip daddr . meta l4proto . th dport @nohostports4 goto refuse",
		"ip6 daddr . meta l4proto . th dport @nohostports6 goto refuse",
		"meta nfproto ipv4 meta l4proto . th dport @noports4 goto notdns",
		"meta nfproto ipv6 meta l4proto . th dport @noports6 goto notdns",
		"iifname BRIDGES goto host",
	}},
	{"notdns", []string{
		"iifname BRIDGES th dport 53 goto host",
		"goto refuse",
	}},
	{"host", []string{
		"iifname . ip daddr @gateways4 meta l4proto udp th dport 53 accept",
		"iifname . ip daddr @gateways4 meta l4proto tcp th dport 53 accept",
		"iifname . ip6 daddr @gateways6 meta l4proto udp th dport 53 accept",
		"iifname . ip6 daddr @gateways6 meta l4proto tcp th dport 53 accept",
		"icmp type echo-request accept",
		"icmpv6 type echo-request accept",
		"icmpv6 type nd-neighbor-solicit accept",
		"icmpv6 type nd-neighbor-advert accept",
		"ct state invalid drop",
		"reject with icmpx admin-prohibited",
	}},
	{"outfilter", []string{
		"type filter hook output priority filter; policy accept;",
		"# The gateway is the way to a neighbour on the same bridge; do not advise otherwise.",
		"oifname BRIDGES icmp type redirect drop",
		"oifname BRIDGES icmpv6 type nd-redirect drop",
		"oifname . ip daddr @novips4 goto refuse",
		"oifname . ip6 daddr @novips6 goto refuse",
	}},
	{"refuse", []string{
		"meta l4proto tcp reject with tcp reset",
		"reject with icmpx port-unreachable",
	}},
	{"postrouting", []string{
		"type nat hook postrouting priority srcnat; policy accept;",
		"# A task that reaches itself through its VIP or published port.",
		"ip saddr . ip daddr @hairpin4 masquerade",
		"ip6 saddr . ip6 daddr @hairpin6 masquerade",
		"oifname BRIDGES ip saddr 127.0.0.0/8 masquerade",
		"oifname BRIDGES return",
		"ip saddr @egress4 masquerade",
		"ip6 saddr @egress6 masquerade",
	}},
}

var markText = fmt.Sprintf("0x%08x", mark)

// renderSources drops what a network's tasks send under a foreign address.
func (t *table) renderSources(r Rules) {
	for _, n := range sorted(r.Networks, func(n Network) string { return n.ID }) {
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
		writeChain(&t.out, ruleName("from", n.ID), statements...)
	}
}

// renderClosed keeps a host that was no router from becoming one between the
// links that it had.
func (t *table) renderClosed(c closed) {
	var statements []string
	for _, f := range []struct {
		family, set string
		links       []string
	}{{"ipv4", "closed4", c.v4}, {"ipv6", "closed6", c.v6}} {
		if len(f.links) == 0 {
			continue
		}
		var elements []string
		for _, l := range f.links {
			elements = append(elements, quoted(l))
		}
		writeSet(&t.out, "set", f.set, "type ifname", elements)
		statements = append(statements, fmt.Sprintf("meta nfproto %s iifname @%s oifname @%s ct state new drop", f.family, f.set, f.set))
	}
	writeChain(&t.out, "closed", statements...)
}

func (t *table) renderSets() {
	w := &t.out
	writeSet(w, "set", "internal", "type ifname", t.internal)
	writeSet(w, "map", "sources", "type ifname : verdict", t.sources)
	for _, f := range []struct {
		n, addr, field string
		*familySets
	}{{"4", "ipv4_addr", "ip daddr", &t.v4}, {"6", "ipv6_addr", "ip6 daddr", &t.v6}} {
		writeSet(w, "set", "gateways"+f.n, "type ifname . "+f.addr, f.gateways)
		writeSet(w, "set", "subnets"+f.n, "type "+f.addr+"; flags interval", f.subnets)
		writeSet(w, "set", "egress"+f.n, "type "+f.addr+"; flags interval", f.egress)
		writeSet(w, "set", "hairpin"+f.n, "type "+f.addr+" . "+f.addr, f.hairpin)
		writeSet(w, "map", "backends"+f.n, "typeof numgen inc mod 2 : "+f.field, f.backends)
		writeSet(w, "map", "vips"+f.n, "type ifname . "+f.addr+" : verdict", f.vips)
		writeSet(w, "set", "novips"+f.n, "type ifname . "+f.addr, f.noVIPs)
		writeSet(w, "map", "ports"+f.n, "type inet_proto . inet_service : verdict", f.ports)
		writeSet(w, "set", "noports"+f.n, "type inet_proto . inet_service", f.noPorts)
		writeSet(w, "map", "hostports"+f.n, "type "+f.addr+" . inet_proto . inet_service : verdict", f.hostPorts)
		writeSet(w, "set", "nohostports"+f.n, "type "+f.addr+" . inet_proto . inet_service", f.noHostPorts)
	}
}

func writeSet(w io.Writer, kind, name, spec string, elements []string) {
	fmt.Fprintf(w, "\t%s %s {\n", kind, name)
	for line := range strings.SplitSeq(spec, "; ") {
		fmt.Fprintf(w, "\t\t%s\n", line)
	}
	if len(elements) > 0 {
		fmt.Fprint(w, "\t\telements = {\n")
		for _, e := range elements {
			fmt.Fprintf(w, "\t\t\t%s,\n", e)
		}
		fmt.Fprint(w, "\t\t}\n")
	}
	fmt.Fprint(w, "\t}\n")
}

func writeChain(w io.Writer, name string, statements ...string) {
	fmt.Fprintf(w, "\tchain %s {\n", name)
	for _, s := range statements {
		fmt.Fprintf(w, "\t\t%s\n", s)
	}
	fmt.Fprint(w, "\t}\n")
}
