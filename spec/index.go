package spec

import (
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// place is where an attribute stands: its key and its value. An item of a
// list has no key.
type place struct {
	src        *source
	key, value *yaml.Node
	depth      int
}

// node is what a diagnostic about the attribute itself points at.
func (p place) node() *yaml.Node {
	if p.key != nil {
		return p.key
	}
	return p.value
}

// position of the attribute: of its key where it has one.
func (p place) position() Position {
	n := p.node()
	return Position{File: p.src.shown, Line: n.Line, Col: p.src.byteCol(n)}
}

// index finds the place of a path such as "services.web.ports.0". An item of
// a list that could also be written as a map, such as `environment`, is found
// under its key too.
type index map[string]place

// nearest finds path or the closest attribute around it.
func (ix index) nearest(path string) (place, string, bool) {
	for {
		if p, ok := ix[path]; ok {
			return p, path, true
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return place{}, "", false
		}
		path = path[:i]
	}
}

// merge lays the places of a later file over ix. Where both have a list, the
// loader appends; so do the places. lengths keeps how long each list is by
// now.
func (ix index) merge(other index, lengths map[string]int) {
	shift := map[string]int{}
	for path, p := range other {
		if p.value == nil || resolve(p.value).Kind != yaml.SequenceNode {
			continue
		}
		n := len(resolve(p.value).Content)
		if _, both := ix[path]; both && !replaced(path) && p.value.Tag != "!override" {
			shift[path] = lengths[path]
			n += lengths[path]
		}
		lengths[path] = n
	}
	for path, p := range other {
		ix[shifted(path, shift)] = p
	}
}

// replaced are the lists that a later file replaces as a whole.
func replaced(path string) bool {
	return strings.HasSuffix(path, ".command") || strings.HasSuffix(path, ".entrypoint") || strings.HasSuffix(path, ".healthcheck.test")
}

// shifted moves the number of a list item by what stands before its list.
func shifted(path string, shift map[string]int) string {
	for list, by := range shift {
		rest, ok := strings.CutPrefix(path, list+".")
		if !ok || by == 0 {
			continue
		}
		number, tail, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(number); err == nil {
			return strings.TrimSuffix(list+"."+strconv.Itoa(n+by)+"."+tail, ".")
		}
	}
	return path
}

// fallback adds those places of other that ix has not, with the prefix from
// replaced by to: what a service inherits through extends.
func (ix index) fallback(other index, from, to string) {
	for path, p := range other {
		rest, ok := strings.CutPrefix(path, from)
		if !ok || (rest != "" && rest[0] != '.' && from != "") {
			continue
		}
		if _, taken := ix[to+rest]; !taken {
			ix[to+rest] = p
		}
	}
}

// visit is one attribute during a walk.
type visit struct {
	place
	path  string
	name  string   // the key as written; "" for an item of a list
	elem  *element // nil: not in the schema
	in    *element // of the mapping or list that holds it; nil: anything goes
	reset bool
}

// walker goes through a document as the loader will see it: aliases and merge
// keys are followed. The budget was checked before, so it ends.
type walker struct {
	src *source
	f   func(v visit)
}

func (s *source) walk(f func(v visit)) {
	w := walker{s, f}
	for _, doc := range s.docs {
		if len(doc.Content) > 0 {
			w.value(doc.Content[0], "", schemaTree(), 0)
		}
	}
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

func (w walker) value(n *yaml.Node, path string, e *element, depth int) {
	n = resolve(n)
	switch n.Kind {
	case yaml.MappingNode:
		w.mapping(n, path, e, depth, map[string]bool{})
	case yaml.SequenceNode:
		var item *element
		if e != nil {
			item = e.item
		}
		for i, c := range n.Content {
			at := join(path, strconv.Itoa(i))
			p := place{w.src, nil, c, depth + 1}
			w.f(visit{place: p, path: at, elem: item, reset: c.Tag == "!reset"})
			// The map form of a list: KEY=VALUE, or a bare name.
			if v := resolve(c); e != nil && e.any != nil && v.Kind == yaml.ScalarNode {
				key, _, _ := strings.Cut(v.Value, "=")
				w.f(visit{place: p, path: join(path, key), elem: e.any})
			}
			w.value(c, at, item, depth+1)
		}
	}
}

func (w walker) mapping(n *yaml.Node, path string, e *element, depth int, seen map[string]bool) {
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" || (key.Value == "<<" && key.Style == 0) {
			merges = append(merges, value)
			continue
		}
		name := resolve(key).Value
		if seen[name] {
			continue
		}
		seen[name] = true
		at := join(path, name)
		child := e.child(name)
		if strings.HasPrefix(name, "x-") && (e == nil || e.any == nil) {
			child = nil
		}
		w.f(visit{
			place: place{w.src, key, value, depth + 1}, path: at, name: name,
			elem: child, in: e, reset: value.Tag == "!reset",
		})
		if value.Tag != "!reset" {
			w.value(value, at, child, depth+1)
		}
	}
	for _, m := range merges {
		m = resolve(m)
		list := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			list = m.Content
		}
		for _, c := range list {
			if c = resolve(c); c.Kind == yaml.MappingNode {
				w.mapping(c, path, e, depth, seen)
			}
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// wrote says that the user's files hold path.
func (l *loading) wrote(path string) bool {
	_, ok := l.places[path]
	return ok
}

// placed makes a diagnostic at path, or at the closest place around it; with
// none it names the first file.
func (l *loading) placed(sev Severity, path, message, hint string) Diagnostic {
	p, found, ok := l.places.nearest(path)
	if !ok || (found == "services" && path != found) {
		if p, ok := l.extendedPlace(path); ok {
			return p.src.node(sev, p.node(), path, message, hint)
		}
	}
	if !ok {
		if len(l.main) == 0 {
			return Diagnostic{Severity: sev, Path: path, Message: message, Hint: hint}
		}
		return l.main[0].at(sev, 1, 1, 1, path, message, hint)
	}
	return p.src.node(sev, p.node(), path, message, hint)
}

// extendedPlace finds a path in the files that services are extended from,
// which have it under the name of another service.
func (l *loading) extendedPlace(path string) (place, bool) {
	for _, u := range l.units {
		if u.only != "" && within(path, "services."+u.only) {
			if p, found, ok := u.src.places.nearest(path); ok && found != "services" {
				return p, true
			}
		}
	}
	return place{}, false
}

// placedValue is placed, pointing at the value where path has one on the line
// of its key.
func (l *loading) placedValue(sev Severity, path, message, hint string) Diagnostic {
	p, found, ok := l.places.nearest(path)
	if !ok || found != path || p.value == nil || p.value.Line == 0 || p.value.Line != p.node().Line {
		return l.placed(sev, path, message, hint)
	}
	return p.src.node(sev, p.value, path, message, hint)
}

// maxPositionDepth is how deep Stack.Positions reaches:
// services.NAME.environment.KEY.
const maxPositionDepth = 4

// positions are the places of what is in the stack.
func (l *loading) positions() map[string]Position {
	out := make(map[string]Position, len(l.places))
	for path, p := range l.places {
		if p.depth > maxPositionDepth {
			continue
		}
		if rest, ok := strings.CutPrefix(path, "services."); ok && !l.inStack(rest) {
			continue
		}
		if strings.HasPrefix(path, "x-") || strings.HasPrefix(path, "include") {
			continue
		}
		out[path] = p.position()
	}
	return out
}

// inStack says whether the path below services belongs to a service of the
// stack. Names may hold dots, so every prefix is tried.
func (l *loading) inStack(rest string) bool {
	return l.serviceOf(rest) != ""
}

func (l *loading) serviceOf(rest string) string {
	if l.project == nil {
		return ""
	}
	for i := 0; i <= len(rest); i++ {
		if i == len(rest) || rest[i] == '.' {
			if _, ok := l.project.Services[rest[:i]]; ok {
				return rest[:i]
			}
		}
	}
	return ""
}
