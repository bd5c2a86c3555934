package overlaynet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
)

// Report is what the network of this host lacks or does against us, for
// `berth doctor`.
type Report struct {
	NftVersion string    `json:"nft_version"` // "1.0.6"
	Findings   []Finding `json:"findings"`
}

// Severity of a Finding.
type Severity string

const (
	// Broken: published ports or networks do not work until it is remedied.
	Broken Severity = "broken"
	// Warned: it works, with the restriction that the message tells.
	Warned Severity = "warning"
)

// Finding is one thing, with what to do about it.
type Finding struct {
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	// Remedy is a command, complete, or empty if there is none.
	Remedy string `json:"remedy,omitempty"`
}

// The documentation's prefixes (RFC 5737, RFC 3849), for rules that are only
// checked.
var (
	prefix4Probe = netip.MustParsePrefix("192.0.2.0/24")
	prefix6Probe = netip.MustParsePrefix("2001:db8::/64")
)

// Inspect looks at the host and changes nothing. A part that cannot be read is
// a finding, not an error.
func (m *Manager) Inspect(ctx context.Context) Report {
	var r Report
	version, err := exec.CommandContext(ctx, "nft", "--version").Output()
	if err != nil {
		r.add(Broken, "nft does not run: "+err.Error(), "apt-get install nftables")
		return r
	}
	if fields := strings.Fields(string(version)); len(fields) > 1 {
		r.NftVersion = strings.TrimPrefix(fields[1], "v")
	}
	m.inspectKernel(ctx, &r)
	m.inspectSysctls(&r)
	if list, err := exec.CommandContext(ctx, "nft", "-j", "list", "chains").Output(); err != nil {
		r.add(Warned, "the firewall's chains cannot be listed: "+err.Error(), "")
	} else {
		m.inspectChains(list, &r)
	}
	inspectLegacy(ctx, m.prefix, &r)
	return r
}

func (r *Report) add(s Severity, message, remedy string) {
	r.Findings = append(r.Findings, Finding{s, message, remedy})
}

// inspectKernel has nft check a rule set that uses everything.
func (m *Manager) inspectKernel(ctx context.Context, r *Report) {
	n := Network{
		ID: "00000000", Subnet4: prefix4Probe, Gateway4: prefix4Probe.Addr().Next(),
		Subnet6: prefix6Probe, Gateway6: prefix6Probe.Addr().Next(),
	}
	two := []Backend{{TaskID: "a", Addr4: n.Gateway4.Next(), Addr6: n.Gateway6.Next()}, {TaskID: "b", Addr4: n.Gateway4.Next().Next(), Addr6: n.Gateway6.Next().Next()}}
	text := Render(m.prefix, Rules{
		Networks: []Network{n},
		Ports:    []PublishedPort{{ID: "probe", Port: 1, Protocol: "tcp", Target: 1, Backends: two}},
	})
	cmd := exec.CommandContext(ctx, "nft", "-c", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		r.add(Broken, fmt.Sprintf("nft %s and this kernel do not take the rules: %s", r.NftVersion, first), "")
	}
}

func (m *Manager) inspectSysctls(r *Report) {
	if readSysctl("ipv4/ip_forward") != "1" {
		r.add(Warned, "net.ipv4.ip_forward is off: it is turned on with the first network", "sysctl -w net.ipv4.ip_forward=1")
	}
	if readSysctl("netfilter/nf_conntrack_max") == "" {
		r.add(Broken, "the kernel tracks no connections", "modprobe nf_conntrack")
	} else if count, limit := readSysctl("netfilter/nf_conntrack_count"), readSysctl("netfilter/nf_conntrack_max"); nearly(count, limit) {
		r.add(Warned, fmt.Sprintf("the table of connections is nearly full: %s of %s", count, limit),
			"sysctl -w net.netfilter.nf_conntrack_max="+limit+"0")
	}
	if readSysctl("ipv6/conf/all/disable_ipv6") == "1" {
		r.add(Warned, "IPv6 is disabled: networks with enable_ipv6 and ports on [::1] do not work", "sysctl -w net.ipv6.conf.all.disable_ipv6=0")
	}
	if _, err := os.Stat("/proc/sys/net"); err == nil {
		if err := probeWritable(); err != nil {
			r.add(Broken, "/proc/sys/net is read-only: "+err.Error(), "mount -o remount,rw /proc/sys")
		}
	}
}

// probeWritable writes a sysctl's own value back.
func probeWritable() error {
	const file = "ipv4/conf/default/send_redirects"
	return setSysctls([]sysctl{{path: file, value: readSysctl(file)}})
}

// nearly says whether count is over nine tenths of limit.
func nearly(count, limit string) bool {
	var c, l int
	_, errC := fmt.Sscan(count, &c)
	_, errL := fmt.Sscan(limit, &l)
	return errC == nil && errL == nil && c > l/10*9
}

// inspectChains finds base chains of others that drop what we let pass: an
// accept of ours ends only our own chain.
func (m *Manager) inspectChains(list []byte, r *Report) {
	var out struct {
		Nftables []struct {
			Chain *struct {
				Family, Table, Name, Hook, Policy string
			} `json:"chain"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(list, &out); err != nil {
		r.add(Warned, "the firewall's chains cannot be read: "+err.Error(), "")
		return
	}
	docker := false
	for _, o := range out.Nftables {
		if c := o.Chain; c != nil && c.Name == "DOCKER-USER" {
			docker = true
		}
	}
	for _, o := range out.Nftables {
		c := o.Chain
		if c == nil || c.Policy != "drop" || c.Table == m.prefix {
			continue
		}
		chain := c.Family + " " + c.Table + " " + c.Name
		switch c.Hook {
		case "forward":
			target := chain
			if docker && c.Table == "filter" {
				target = c.Family + " filter DOCKER-USER"
			}
			r.add(Broken, "the chain "+chain+" drops what is forwarded: networks and published ports do not work",
				fmt.Sprintf(`nft 'insert rule %s ct mark & %s == %s accept'; nft 'insert rule %s iifname "%s-*" accept'; nft 'insert rule %s oifname "%s-*" ct state established,related accept'`,
					target, markText, markText, target, m.prefix, target, m.prefix))
		case "input":
			r.add(Warned, "the chain "+chain+" drops what comes in: names are not resolved unless port 53 of the bridges is open",
				fmt.Sprintf(`nft 'insert rule %s iifname "%s-*" udp dport 53 accept'; nft 'insert rule %s iifname "%s-*" tcp dport 53 accept'`,
					chain, m.prefix, chain, m.prefix))
		}
	}
}

// inspectLegacy looks at iptables-legacy, whose rules nft does not show.
func inspectLegacy(ctx context.Context, prefix string, r *Report) {
	for _, c := range []struct{ command, tables string }{
		{"iptables-legacy", "/proc/net/ip_tables_names"},
		{"ip6tables-legacy", "/proc/net/ip6_tables_names"},
	} {
		// Listing would load the module: look first whether it is in use.
		if names, err := os.ReadFile(c.tables); err != nil || !strings.Contains(string(names), "filter") {
			continue
		}
		out, err := exec.CommandContext(ctx, c.command, "-S", "FORWARD").Output()
		if err != nil {
			r.add(Warned, c.command+" is in use and its rules cannot be listed: "+err.Error(), "")
			continue
		}
		if strings.Contains(string(out), "-P FORWARD DROP") {
			r.add(Broken, c.command+" drops what is forwarded: networks and published ports do not work",
				fmt.Sprintf("%[1]s -I FORWARD -o %[2]s-+ -j ACCEPT; %[1]s -I FORWARD -i %[2]s-+ -j ACCEPT", c.command, prefix))
		}
	}
}
