package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"
)

// Folders in which a relative target of a config or a secret lies.
const (
	configDir = "/"
	secretDir = "/run/secrets/"
)

// maxID is the largest number of a user or group: what is above is negative to
// some program.
const maxID = 1<<31 - 2

// variableForm is the name of a variable that every shell can read.
var variableForm = lazy(`^[A-Za-z_][A-Za-z0-9_]*$`)

// files checks the configs and secrets of the service: where they lie, whose
// they are, and which are variables too.
func (c serviceCheck) files() {
	taken, variables := map[string]string{}, map[string]string{}
	for i, v := range c.s.Volumes {
		taken[cleanTarget(v.Target)] = c.item("volumes", i, v.Source)
	}
	for i, t := range c.s.Tmpfs {
		target, _, _ := strings.Cut(t, ":")
		taken[cleanTarget(target)] = fmt.Sprintf("%s.tmpfs.%d", c.at, i)
	}
	for name := range c.s.Environment {
		variables[name] = c.at + ".environment." + name
	}
	check := func(attr string, i int, ref types.FileReferenceConfig, top types.FileObjectConfig) {
		at := c.reference(attr, i, ref)
		c.ownership(attr, at, ref)
		target := fileMount(ref, fileDir(attr)).Target
		if other, ok := taken[target]; ok {
			c.failAtUp(at, fmt.Sprintf("something is mounted at %s already (%s)", target, c.l.where(other)), "choose another target, or remove one")
		}
		taken[target] = at
		c.variable(at, ref, top, variables)
	}
	for i, f := range c.s.Configs {
		check("configs", i, types.FileReferenceConfig(f), types.FileObjectConfig(c.l.project.Configs[f.Source]))
	}
	for i, f := range c.s.Secrets {
		check("secrets", i, types.FileReferenceConfig(f), types.FileObjectConfig(c.l.project.Secrets[f.Source]))
	}
}

func fileDir(attr string) string {
	if attr == "secrets" {
		return secretDir
	}
	return configDir
}

// ownership refuses owners and modes that a file can't have.
func (c serviceCheck) ownership(attr, at string, ref types.FileReferenceConfig) {
	if slices.Contains(strings.Split(ref.Target, "/"), "..") {
		c.failAtUp(at, fmt.Sprintf("the target %q of %s goes up with ..", ref.Target, attr), "write the path without ..")
	}
	for _, id := range []struct{ attr, value string }{{"uid", ref.UID}, {"gid", ref.GID}} {
		if n, err := strconv.ParseUint(id.value, 10, 64); id.value != "" && (err != nil || n > maxID) {
			c.failAtUp(at+"."+id.attr, fmt.Sprintf("%s %q is not a number from 0 to %d", id.attr, id.value, maxID),
				"write the number of the user or group in the image: `berth run SERVICE id NAME` shows it")
		}
	}
	if ref.Mode != nil && int64(*ref.Mode)&^0o777 != 0 {
		c.failAtUp(at+".mode", fmt.Sprintf("mode %#o has more than permission bits", int64(*ref.Mode)), "write at most 0777")
	}
}

// variable checks x-env of a reference.
func (c serviceCheck) variable(at string, ref types.FileReferenceConfig, top types.FileObjectConfig, taken map[string]string) {
	if _, ok := ref.Extensions[keyEnv]; !ok {
		return
	}
	at += "." + keyEnv
	name, ok := ref.Extensions[keyEnv].(string)
	if !ok || !variableForm().MatchString(name) {
		c.failValue(at, fmt.Sprintf("%s %q is no name of a variable", keyEnv, fmt.Sprint(ref.Extensions[keyEnv])), "use letters, digits and '_', and no digit first: x-env: DB_PASSWORD")
		return
	}
	if other, ok := taken[name]; ok {
		c.failValue(at, fmt.Sprintf("the variable %s is set already (%s)", name, c.l.where(other)), "remove one of the two")
	}
	taken[name] = at
	change, _ := onChange(ref.Extensions)
	if change == "" {
		change, _ = onChange(top.Extensions)
	}
	if strings.HasPrefix(change, onChangeSignal) {
		c.failValue(at, fmt.Sprintf("%s asks for a signal (%s), and none changes a variable of a process that runs", keyOnChange, c.onChangePlace(at, ref)),
			"write x-on-change: replace here, or remove x-env and let the program read the file")
	}
}

// onChangePlace is where the x-on-change of a reference stands.
func (c serviceCheck) onChangePlace(at string, ref types.FileReferenceConfig) string {
	own := strings.TrimSuffix(at, keyEnv) + keyOnChange
	if ref.Extensions[keyOnChange] != nil {
		return c.l.where(own)
	}
	kind, _, _ := strings.Cut(strings.TrimPrefix(at, c.at+"."), ".")
	return c.l.where(kind + "." + ref.Source + "." + keyOnChange)
}

// reference is the path of entry i of configs or secrets as the file has it.
// The loader leaves out entries of one target, so the place is looked for by
// what it says.
func (c serviceCheck) reference(attr string, i int, ref types.FileReferenceConfig) string {
	found := ""
	for k := 0; ; k++ {
		at := fmt.Sprintf("%s.%s.%d", c.at, attr, k)
		p, ok := c.l.places[at]
		if !ok {
			break
		}
		if p.value == nil {
			continue
		}
		n := resolve(p.value)
		source, target := n.Value, ""
		if n.Kind == yaml.MappingNode {
			source, target = scalar(get(n, "source")), scalar(get(n, "target"))
		}
		if source == ref.Source && target == ref.Target {
			found = at // of several the last counts
		}
	}
	if found != "" {
		return found
	}
	return c.item(attr, i, ref.Source)
}

func scalar(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	return resolve(n).Value
}

// twiceFiles is twice for all of a service's configs or secrets.
func (l *loading) twiceFiles(u *unit, v visit) {
	list := resolve(v.value)
	if list.Kind != yaml.SequenceNode {
		return
	}
	targets := map[string]*yaml.Node{}
	for i, item := range list.Content {
		l.twiceFile(u, v.name, fmt.Sprintf("%s.%d", v.path, i), item, targets)
	}
}

// twiceFile goes by what the loader does: it keeps the last of several entries
// whose targets are written alike.
func (l *loading) twiceFile(u *unit, attr, at string, item *yaml.Node, targets map[string]*yaml.Node) {
	n := resolve(item)
	target := get(n, "target")
	if target != nil {
		if text, ok := u.text(target); ok && text != "" {
			l.mountedTwice(u, at, item, text, targets)
		}
		return
	}
	if n.Kind == yaml.MappingNode {
		n = get(n, "source")
	}
	if n == nil {
		return
	}
	if source, ok := u.text(n); ok && source != "" {
		l.mountedTwice(u, at, item, fileDir(attr)+source, targets)
	}
}

// templateDriver is Docker Swarm's word for templates.
const templateDriver = "golang"

// checkFile checks what a config or a secret of the top level says of itself.
func (l *loading) checkFile(at string, c types.FileObjectConfig) {
	l.checkOnChange(at, c.Extensions, keyBerth)
	v, ok := c.Extensions[keyBerth]
	if !ok {
		return
	}
	at += "." + keyBerth
	m, ok := v.(map[string]any)
	if !ok {
		l.add(l.placedValue(Error, at, keyBerth+" is no mapping", "write x-berth: {template: true}"))
		return
	}
	for _, key := range sortedKeys(m) {
		switch {
		case key != "template":
			hint := "there is: template"
			if editDistance(strings.ToLower(key), "template") <= 2 {
				hint = `did you mean "template"?`
			}
			l.add(l.placed(Error, at+"."+key, fmt.Sprintf("unknown attribute %q in %s", key, keyBerth), hint))
		case fmt.Sprint(m[key]) != "true" && fmt.Sprint(m[key]) != "false":
			l.add(l.placedValue(Error, at+"."+key, fmt.Sprintf("template is %v", m[key]), "write true or false"))
		case fmt.Sprint(m[key]) == "false" && c.TemplateDriver == templateDriver:
			l.add(l.placedValue(Error, at+"."+key, "template is false, and template_driver is "+templateDriver, "keep one of them"))
		}
	}
}

// isTemplate says that the content is to be filled in for each task.
func isTemplate(c types.FileObjectConfig) bool {
	m, _ := c.Extensions[keyBerth].(map[string]any)
	return c.TemplateDriver == templateDriver || fmt.Sprint(m["template"]) == "true"
}
