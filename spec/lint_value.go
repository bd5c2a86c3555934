package spec

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// booleans are the attributes that the loader casts from text, and for which
// it takes the words of YAML 1.1 with a warning.
var booleans = []string{
	"networks.*.external", "networks.*.internal", "networks.*.attachable", "networks.*.enable_ipv4",
	"networks.*.enable_ipv6", "volumes.*.external", "secrets.*.external", "configs.*.external",
	"services.*.init", "services.*.oom_kill_disable", "services.*.privileged", "services.*.read_only",
	"services.*.stdin_open", "services.*.tty", "services.*.volumes.[].read_only",
	"services.*.volumes.[].volume.nocopy", "services.*.depends_on.*.required", "services.*.depends_on.*.restart",
	"services.*.healthcheck.disable",
}

// modes are permission bits, which people write in octal.
var modes = []string{"services.*.configs.[].mode", "services.*.secrets.[].mode", "services.*.volumes.[].tmpfs.mode"}

// endless are the numbers of YAML that have no end, or are none.
var endless = lazy(`(?i)(inf|nan)$`)

var octalLooking = lazy(`^[1-7][0-7]{2,3}$`)

// values warns of what is taken, but probably not as it was meant.
func (l *loading) values(u *unit, v visit) {
	n := resolve(v.value)
	switch path := v.elem.attr.Path; {
	case strings.HasSuffix(path, "*.external.name"):
		l.ignored = append(l.ignored, u.src.node(Warning, v.node(), v.path, "external.name is deprecated",
			"write external: true, and name: beside it"))
	case path == "services.*.ulimits.*" && n.Kind == yaml.MappingNode && (get(n, "soft") == nil || get(n, "hard") == nil):
		l.suspects = append(l.suspects, u.src.node(Error, v.node(), v.path, "a limit needs both soft and hard", "write both, or one number"))
	case n.Kind != yaml.ScalarNode:
	case n.ShortTag() == "!!float" && endless().MatchString(n.Value):
		l.suspects = append(l.suspects, u.src.node(Error, n, v.path, attributeName(v)+": "+n.Value+" is no number to count with", "write digits"))
	case path == "services.*.ports.[].target":
		if text, ok := u.text(n); ok && !l.o.NoInterpolate {
			if _, err := strconv.Atoi(text); err != nil {
				l.suspects = append(l.suspects, u.src.node(Error, n, v.path, fmt.Sprintf("the container port %q is not a number", text), "write digits"))
			}
		}
	case path == "services.*.ports.[].host_ip":
		if text, ok := u.text(n); ok && text != "" && net.ParseIP(strings.Trim(text, "[]")) == nil && !l.o.NoInterpolate {
			l.suspects = append(l.suspects, u.src.node(Error, n, v.path, fmt.Sprintf("host_ip %q is not an IP address", text), "write it as 127.0.0.1"))
		}
	case slices.Contains(booleans, path):
		text, _ := u.text(n)
		meant := ""
		switch strings.ToLower(text) {
		case "y", "yes", "on":
			meant = "true"
		case "n", "no", "off":
			meant = "false"
		default:
			return
		}
		l.ignored = append(l.ignored, u.src.node(Warning, n, v.path, fmt.Sprintf("%s is taken as %s", text, meant), "write "+meant))
	case slices.Contains(modes, path):
		// Quoted it is read as octal, and so is 0440.
		if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) == 0 && octalLooking().MatchString(n.Value) {
			l.ignored = append(l.ignored, u.src.node(Warning, n, v.path,
				fmt.Sprintf("mode %s is a decimal number here: %#o", n.Value, decimal(n.Value)), modeHint(n.Value)))
		}
	}
}

func decimal(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// modeHint says what to write instead of a decimal mode whose digits could be
// octal: most often they are meant so, but 420 is what 0644 is for JSON.
func modeHint(text string) string {
	octal, _ := strconv.ParseUint(text, 8, 32)
	asked := decimal(text)
	if usual(asked) && !usual(int(octal)) {
		return fmt.Sprintf("write %#o", asked)
	}
	return fmt.Sprintf("write %#o, or %#o if that is meant", octal, asked)
}

// usual says of a mode that its owner reads, its group may no more than its
// owner, and others no more than the group.
func usual(mode int) bool {
	owner, group, others := mode>>6&7, mode>>3&7, mode&7
	return owner&4 != 0 && group&^owner == 0 && others&^group == 0
}
