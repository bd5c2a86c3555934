package spec

import (
	"fmt"
	"strings"
)

// Constraint is one of deploy.placement.constraints, as Swarm reads it:
// KEY == VALUE or KEY != VALUE. Values are compared without regard to case;
// what a node does not have is the empty text.
type Constraint struct {
	Key   string // as written: node.id, node.labels.disk …
	Not   bool   // !=
	Value string
}

// Node is what constraints look at.
type Node struct {
	ID       string
	Hostname string
	Role     string // manager or worker
	OS       string // linux
	Arch     string // of Go: amd64, arm64
	Labels   map[string]string
}

var (
	constraintForm = lazy(`^\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*(==|!=)\s*([A-Za-z0-9:_\s.*()?+\[\]\\^$|/-]+)$`)
	nodeKeys       = []string{"node.id", "node.hostname", "node.role", "node.platform.os", "node.platform.arch"}
)

const constraintHint = "write KEY == VALUE or KEY != VALUE, KEY being node.labels.NAME, node.hostname, node.id, " +
	"node.role, node.platform.os or node.platform.arch"

// ParseConstraint reads one constraint.
func ParseConstraint(text string) (Constraint, error) {
	m := constraintForm().FindStringSubmatch(text)
	if m == nil {
		return Constraint{}, fmt.Errorf("constraint %q is not of the form KEY == VALUE", text)
	}
	c := Constraint{Key: m[1], Not: m[2] == "!=", Value: strings.TrimSpace(m[3])}
	if _, ok := c.label(); ok {
		return c, nil
	}
	for _, k := range nodeKeys {
		if strings.EqualFold(k, c.Key) {
			return c, nil
		}
	}
	return Constraint{}, fmt.Errorf("constraint %q: a node has no %s", text, c.Key)
}

// label is the name of the label that c looks at. Labels of the engine are
// those of the node: there is one agent on it.
func (c Constraint) label() (name string, ok bool) {
	for _, prefix := range []string{"node.labels.", "engine.labels."} {
		if len(c.Key) > len(prefix) && strings.EqualFold(c.Key[:len(prefix)], prefix) {
			return c.Key[len(prefix):], true
		}
	}
	return "", false
}

// Holds says whether n meets c, and what n has.
func (c Constraint) Holds(n *Node) (ok bool, has string) {
	if name, is := c.label(); is {
		has = n.Labels[name]
		return strings.EqualFold(has, c.Value) != c.Not, has
	}
	want := c.Value
	switch strings.ToLower(c.Key) {
	case "node.id":
		has = n.ID
	case "node.hostname":
		has = n.Hostname
	case "node.role":
		has = n.Role
	case "node.platform.os":
		has = n.OS
	case "node.platform.arch":
		has, want = n.Arch, goArch(want)
	}
	return strings.EqualFold(has, want) != c.Not, has
}

// goArch takes the names of uname(2) too, as Swarm does.
func goArch(arch string) string {
	switch strings.ToLower(arch) {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i686", "x86":
		return "386"
	case "armv7l", "armhf":
		return "arm"
	}
	return arch
}
