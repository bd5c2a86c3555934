package overlaynet

import (
	"os/exec"
	"strings"
	"testing"
)

func TestInspect_ForeignDropPolicy_NamesTheChainAndARuleThatHelps(t *testing.T) {
	b := newBed(t)
	if r := b.m.Inspect(t.Context()); len(r.Findings) != 0 || r.NftVersion == "" {
		t.Fatalf("on a good host: %+v", r)
	}
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "inet", "fw").Run() })
	command(t, "nft", "add table inet fw; add chain inet fw pass { type filter hook forward priority 0; policy drop; }")
	if got, err := ask(t, b.paths["lan"], "tcp", hostLAN4+":8080"); err == nil {
		t.Fatalf("the drop policy drops nothing: %q", got)
	}
	r := b.m.Inspect(t.Context())
	if len(r.Findings) != 1 || r.Findings[0].Severity != Broken || !strings.Contains(r.Findings[0].Message, "inet fw pass") {
		t.Fatalf("findings: %+v", r.Findings)
	}
	command(t, "sh", "-c", r.Findings[0].Remedy)
	for _, c := range []cell{
		{"lan", "tcp", hostLAN4 + ":8080", "self"},
		{"same", "tcp", "10.210.0.100:80", "self"},
		{"same", "tcp", lan4 + ":7000", "lan"},
		{"lan", "tcp", "10.210.0.2:80", ""},
		{"other", "tcp", "10.210.0.2:80", ""},
	} {
		got, err := ask(t, b.paths[c.from], c.network, c.to)
		if name, _, _ := strings.Cut(got, " "); name != c.want {
			t.Errorf("with the remedy, %s from %s: %q, %v; want %q", c.to, c.from, got, err, c.want)
		}
	}
}

func TestInspect_InputDropPolicy_WarnsOfNames(t *testing.T) {
	m := openManager(t)
	var r Report
	m.inspectChains([]byte(`{"nftables": [{"metainfo": {}}, {"chain": {"family": "ip", "table": "filter", "name": "INPUT",
		"hook": "input", "policy": "drop"}}, {"chain": {"family": "inet", "table": "bt", "name": "x", "hook": "forward", "policy": "drop"}},
		{"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}},
		{"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}}]}`), &r)
	if len(r.Findings) != 2 || r.Findings[0].Severity != Warned || !strings.Contains(r.Findings[0].Remedy, "dport 53") ||
		!strings.Contains(r.Findings[1].Remedy, "ip filter DOCKER-USER") {
		t.Errorf("findings: %+v", r.Findings)
	}
}
