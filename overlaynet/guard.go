package overlaynet

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The ip rule guard keeps task addresses closed when nobody filters: it
// survives `nft flush ruleset`. Per family, in this order:
//
//	base    packets with our mark       skip the guard (published, answers)
//	base+1  from the host itself        skip the guard
//	base+2  from bridge A to subnet A   skip the guard
//	base+3  to subnet A                 unreachable
//	base+4  nop, where the skips go
//
// Skipping, rather than looking up a table, leaves the host's own policy
// routing in force. The nftables table sets the mark; without the table nobody
// does, and only the host and the same network reach a task.
type guardRule struct {
	family int // netlink.FAMILY_V4, FAMILY_V6
	offset int // added to the base
	iif    string
	dst    netip.Prefix
}

const (
	guardMark = iota
	guardHost
	guardSame
	guardDeny
	guardEnd
	guardLen
)

// guardBase leaves room below for rules of the host that must come first, and
// depends on the prefix: several agents may share a network namespace.
func guardBase(prefix string) int {
	const first, slots, step = 1000, 400, 8
	return first + int(crc32.ChecksumIEEE([]byte(prefix))%slots)*step
}

func guardRules(prefix string, networks []Network) []guardRule {
	var out []guardRule
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		var some bool
		for _, n := range networks {
			subnet := n.Subnet4
			if f == netlink.FAMILY_V6 {
				subnet = n.Subnet6
			}
			if !subnet.IsValid() {
				continue
			}
			some = true
			out = append(out,
				guardRule{family: f, offset: guardSame, iif: bridgeName(prefix, n.ID), dst: subnet.Masked()},
				guardRule{family: f, offset: guardDeny, dst: subnet.Masked()})
		}
		if some {
			out = append(out,
				guardRule{family: f, offset: guardEnd},
				guardRule{family: f, offset: guardMark},
				guardRule{family: f, offset: guardHost, iif: "lo"})
		}
	}
	slices.SortFunc(out, guardRule.compare)
	return out
}

// compare sorts in the order of adding: where skips go, the skips, then what
// they skip. Deleting goes the other way round.
func (g guardRule) compare(o guardRule) int {
	rank := func(g guardRule) int { return (g.offset - guardEnd + guardLen) % guardLen }
	if d := rank(g) - rank(o); d != 0 {
		return d
	}
	return strings.Compare(g.key(), o.key())
}

func (g guardRule) key() string {
	return fmt.Sprintf("%d %d %s %s", g.family, g.offset, g.iif, g.dst)
}

func equalGuards(a, b []guardRule) bool { return slices.Equal(a, b) }

// applyGuard adds what is missing, then deletes what is too much.
func (m *Manager) applyGuard(want []guardRule) error {
	have, err := m.listGuard()
	if err != nil {
		return err
	}
	for _, g := range want {
		if slices.Contains(have, g) {
			continue
		}
		if err := m.nl.RuleAdd(m.guardToKernel(g)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add ip rule %s: %w", g.key(), err)
		}
	}
	for _, g := range slices.Backward(have) {
		if slices.Contains(want, g) {
			continue
		}
		if err := m.nl.RuleDel(m.guardToKernel(g)); err != nil && !gone(err) {
			return fmt.Errorf("delete ip rule %s: %w", g.key(), err)
		}
	}
	return nil
}

func (m *Manager) guardInForce(want []guardRule) (bool, error) {
	have, err := m.listGuard()
	return slices.Equal(have, want), err
}

// listGuard reads our rules back, sorted.
func (m *Manager) listGuard() ([]guardRule, error) {
	base := guardBase(m.prefix)
	var out []guardRule
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := complete(func() ([]netlink.Rule, error) { return m.nl.RuleList(f) })
		if err != nil {
			return nil, fmt.Errorf("list ip rules: %w", err)
		}
		for _, r := range rules {
			if r.Priority < base || r.Priority >= base+guardLen {
				continue
			}
			g := guardRule{family: f, offset: r.Priority - base, iif: r.IifName}
			g.dst, _ = prefixOf(r.Dst)
			out = append(out, g)
		}
	}
	slices.SortFunc(out, guardRule.compare)
	return out, nil
}

func (m *Manager) guardToKernel(g guardRule) *netlink.Rule {
	base := guardBase(m.prefix)
	r := netlink.NewRule()
	r.Family, r.Priority, r.IifName, r.Table = g.family, base+g.offset, g.iif, 0
	if g.dst.IsValid() {
		r.Dst = &net.IPNet{IP: g.dst.Addr().AsSlice(), Mask: net.CIDRMask(g.dst.Bits(), g.dst.Addr().BitLen())}
	}
	switch g.offset {
	case guardEnd:
		r.Type = unix.FR_ACT_NOP
	case guardDeny:
		r.Type = unix.FR_ACT_UNREACHABLE
	default:
		r.Goto = base + guardEnd
	}
	if g.offset == guardMark {
		mask := uint32(mark)
		r.Mark, r.Mask = mark, &mask
	}
	return r
}
