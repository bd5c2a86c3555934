package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"
)

// lint reports what one file holds that is unknown, obsolete or not
// honoured. Only what the user wrote is looked at, never a default.
func (l *loading) lint(u *unit) {
	quiet := "" // below an attribute that was reported
	u.src.walk(func(v visit) {
		path, ok := u.stackPath(v.path)
		if !ok {
			return
		}
		v.path = path
		if quiet != "" && within(v.path, quiet) {
			// Unknown keys are still worth saying; the rest was said.
			if v.name != "" {
				l.unknown(u, v)
			}
			return
		}
		quiet = ""
		switch {
		case v.reset:
			l.resets = append(l.resets, v.path)
		case l.badName(u, v), l.unknown(u, v):
			quiet = v.path
		case v.elem != nil && v.elem.attr != nil:
			if l.unsupported(u, v) {
				quiet = v.path
			}
			l.probe(u, v)
			l.values(u, v)
		}
	})
}

// nameForm is what the schema allows as the key of a service, network and so
// on.
var nameForm = lazy(`^[a-zA-Z0-9._-]+$`)

// badName reports the key of an entry of the top level that is no name.
func (l *loading) badName(u *unit, v visit) bool {
	kind, rest, _ := strings.Cut(v.path, ".")
	if v.key == nil || rest != v.name || v.elem == nil || nameForm().MatchString(v.name) || strings.HasPrefix(v.name, "x-") {
		return false
	}
	switch kind {
	case "services", "networks", "volumes", "configs", "secrets", "models", "jobs":
	default:
		return false
	}
	l.suspects = append(l.suspects, u.src.node(Error, v.key, v.path, fmt.Sprintf("%q is not a name for a %s", v.name, strings.TrimSuffix(kind, "s")),
		"use letters, digits, '.', '_' and '-'"))
	return true
}

// unknown reports a key that the schema has not.
func (l *loading) unknown(u *unit, v visit) bool {
	if v.name == "" || v.elem != nil || v.in.open() || strings.HasPrefix(v.name, "x-") {
		return false
	}
	l.suspects = append(l.suspects, u.src.node(Error, v.key, v.path,
		fmt.Sprintf("unknown attribute %q %s", v.name, whereIn(v.path, v.name)), unknownHint(v)))
	return true
}

// whereIn names what holds the attribute at path.
func whereIn(path, name string) string {
	parent := strings.TrimSuffix(strings.TrimSuffix(path, name), ".")
	kind, rest, _ := strings.Cut(parent, ".")
	switch {
	case parent == "":
		return "at the top level"
	case kind == "services" && rest != "" && !strings.Contains(rest, "."):
		return "in service " + rest
	case rest != "" && !strings.Contains(rest, "."):
		return "in " + strings.TrimSuffix(kind, "s") + " " + rest
	}
	return "in " + subject(parent)
}

// otherWords are what people write who think of another tool, alone or
// behind the attribute that holds it.
var otherWords = map[string]string{
	"build path": "write context", "build file": "write dockerfile",
	"env": "write environment", "args": "write command", "volumeMounts": "write volumes",
	"ro": "write read_only", "ip": "write host_ip", "range": "write ip_range", "delay": "write start_period",
}

// movedHints are attributes of old versions, or of other tools, that many
// files still hold.
var movedHints = map[string]string{
	"volume_driver":   "write driver under the volume at the top level",
	"log_driver":      "write logging.driver",
	"log_opt":         "write logging.options",
	"net":             "write network_mode",
	"dockerfile":      "write build.dockerfile",
	"content":         "use configs, which carry content, and mount the config",
	"is_directory":    "a bind makes the folder with bind.create_host_path",
	"exclude_from_hc": "remove it: it is Coolify's own",
}

func unknownHint(v visit) string {
	if strings.ContainsAny(v.name, "\u00a0\ufeff\u200b\u200d\u2060") {
		return "remove the invisible character"
	}
	parent := v.path[:max(0, len(v.path)-len(v.name)-1)]
	if hint := otherWords[parent[strings.LastIndexByte(parent, '.')+1:]+" "+v.name]; hint != "" {
		return hint
	}
	if hint := otherWords[v.name]; hint != "" {
		return hint
	}
	if near := v.in.suggest(v.name); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if v.path == v.name {
		if get(v.value, "image") != nil || get(v.value, "build") != nil {
			return "services stand below services:"
		}
		if v.in.keys["services"].any.keys[v.name] != nil {
			return v.name + " belongs to a service: services.NAME." + v.name
		}
	}
	if strings.HasPrefix(v.path, "secrets.") && v.name == "content" {
		return "give a secret with file or environment"
	}
	if hint, ok := movedHints[v.name]; ok {
		return hint
	}
	if place := v.in.elsewhere(v.name); strings.Contains(place, ".") {
		return fmt.Sprintf("%s belongs below %s", v.name, strings.TrimSuffix(place, "."+v.name))
	}
	return "remove it, or begin its name with x-"
}

// unsupported reports an attribute, or the value of one, that is not
// honoured.
func (l *loading) unsupported(u *unit, v visit) bool {
	a := v.elem.attr
	name := attributeName(v)
	if v.path == "version" {
		l.add(u.src.node(Warning, v.node(), v.path, "version is obsolete and has no effect", "remove the line"))
		return true
	}
	if !a.Honoured {
		if v.in != nil && slices.Contains(honouredDriverOpts[a.Path], v.name) {
			return false
		}
		l.ignored = append(l.ignored, u.src.node(Ignored, v.node(), v.path, name+" is not honoured", a.Hint))
		return true
	}
	if len(a.Values) == 0 {
		return false
	}
	value, ok := u.text(v.value)
	if !ok || resolve(v.value).Tag == "!!null" || slices.Contains(a.Values, value) {
		return false
	}
	l.ignored = append(l.ignored, u.src.node(Ignored, v.node(), v.path, fmt.Sprintf("%s: %s is not honoured", name, value), a.Hint))
	return true
}

// attributeName is the path of an attribute without what the user chose:
// services.web.logging.driver is logging.driver.
func attributeName(v visit) string {
	pattern := strings.Split(v.elem.attr.Path, ".")
	if len(pattern) > 2 && pattern[1] == "*" && pattern[0] == "services" {
		pattern = pattern[2:]
	}
	if last := len(pattern) - 1; pattern[last] == "*" && v.name != "" {
		pattern[last] = v.name
	}
	var out []string
	for _, p := range pattern {
		if p != "*" && p != "[]" {
			out = append(out, p)
		}
	}
	return strings.Join(out, ".")
}

// probe tries the short forms that the loader rejects without a place.
func (l *loading) probe(u *unit, v visit) {
	switch v.elem.attr.Path {
	case "services.*.ports", "services.*.volumes":
	case "services.*.configs", "services.*.secrets":
		l.twiceFiles(u, v)
		return
	default:
		return
	}
	n := resolve(v.value)
	if n.Kind != yaml.SequenceNode {
		return
	}
	targets := map[string]*yaml.Node{}
	ports := 0
	for i, item := range n.Content {
		if strings.HasSuffix(v.path, ".volumes") {
			l.twice(u, fmt.Sprintf("%s.%d", v.path, i), item, targets)
		}
		text, ok := u.text(item)
		if !ok || l.o.NoInterpolate {
			continue
		}
		at := fmt.Sprintf("%s.%d", v.path, i)
		if ports += portCount(text); ports > maxPorts && strings.HasSuffix(v.path, ".ports") {
			l.add(u.src.node(Error, item, at, fmt.Sprintf("more than %d ports are published", maxPorts), "use network_mode: host"))
			return
		}
		if strings.HasSuffix(v.path, ".ports") {
			if _, err := types.ParsePortConfig(text); err != nil {
				l.suspects = append(l.suspects, u.src.node(Error, item, at, portMessage(text, err), "write HOST:CONTAINER, such as 8080:80"))
			}
		} else if _, err := format.ParseVolume(text); err != nil {
			l.suspects = append(l.suspects, u.src.node(Error, item, at, volumeMessage(text, err), "write SOURCE:TARGET, such as data:/var/lib/data"))
		}
	}
}

// twice reports a second mount at one target in one list: the loader keeps
// the last and says nothing.
func (l *loading) twice(u *unit, path string, item *yaml.Node, targets map[string]*yaml.Node) {
	target := ""
	if n := get(item, "target"); n != nil {
		target, _ = u.text(n)
	} else if text, ok := u.text(item); ok {
		if v, err := format.ParseVolume(text); err == nil {
			target = v.Target
		}
	}
	if target == "" {
		return
	}
	l.mountedTwice(u, path, item, cleanTarget(target), targets)
}

func (l *loading) mountedTwice(u *unit, path string, item *yaml.Node, target string, targets map[string]*yaml.Node) {
	if before, ok := targets[target]; ok {
		l.ignored = append(l.ignored, u.src.node(Warning, item, path, fmt.Sprintf("something is mounted at %s already (%s:%d:%d); the last one wins",
			target, u.src.shown, before.Line, u.src.byteCol(before)), "choose another target, or remove one"))
		return
	}
	targets[target] = item
}

func portMessage(text string, err error) string {
	if text == "" {
		return "an empty port"
	}
	reason := strings.ToLower(err.Error())
	switch {
	case strings.Contains(reason, "proto"):
		reason = "the protocol is not tcp, udp or sctp"
	case strings.Contains(reason, "ranges"):
		reason = "the two ranges differ in length"
	case strings.Contains(reason, "hostport"):
		reason = "the host port is not between 0 and 65535"
	case strings.Contains(reason, "containerport"):
		reason = "the container port is not between 1 and 65535"
	case strings.Contains(reason, "no port specified"):
		reason = "it has no container port"
	case strings.Contains(reason, "ip"), strings.Contains(reason, "address"):
		reason = "the address is not an IP address"
	}
	return fmt.Sprintf("port %q cannot be published: %s", text, reason)
}

func volumeMessage(text string, err error) string {
	reason := err.Error()
	if i := strings.LastIndex(reason, ": "); i >= 0 {
		reason = reason[i+2:]
	}
	return fmt.Sprintf("volume %q cannot be mounted: %s", text, reason)
}
