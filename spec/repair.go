package spec

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The loader stops at its first mistake. A user has more than one, and wants
// to know them all: so what was found to be wrong is cut out of the files, and
// the loader asked again, until it has nothing to say or says what cannot be
// placed. A file that was cut is never run; only what is said about it is used.

const (
	// maxRepairs bounds how often the loader is asked again.
	maxRepairs = 24
	// maxRepaired is how many bytes it may read again in all: each time costs
	// a load, 4 ms for a kilobyte.
	maxRepaired = 48 << 10
)

// cut is an attribute that was taken out.
type cut struct {
	path string
	list bool // it was an item of a list; those behind it have moved up
}

// repairs is the state of looking for more mistakes.
type repairs struct {
	*loading
	cuts    []cut
	handled int // how many of diags were cut out
}

// more finds mistakes beside those that were reported.
func (l *loading) more(ctx context.Context) {
	total := 0
	for _, s := range l.main {
		total += len(s.data)
	}
	if total == 0 || total > maxRepaired || l.o.NoInterpolate {
		return
	}
	r := repairs{loading: l}
	for range min(maxRepairs, maxRepaired/total) {
		if !r.cutAll() {
			return
		}
		err := l.compose(ctx)
		if err == nil {
			r.consistency()
			return
		}
		before := len(l.diags)
		for _, text := range splitErrors(err) {
			if d, known := l.translate(text); known {
				r.found(d)
			}
		}
		if len(l.diags) == before {
			return
		}
	}
}

// found reports d unless it follows from what was cut out.
func (r *repairs) found(d Diagnostic) {
	if d.Path == "" {
		return
	}
	if r.beside(d) {
		return
	}
	for _, c := range r.cuts {
		if !c.list && (within(c.path, d.Path) || within(d.Path, c.path)) {
			return
		}
	}
	d.Path = r.original(d.Path)
	for _, have := range r.diags {
		if have.Position == d.Position && have.Severity == d.Severity {
			return
		}
	}
	r.add(d)
}

// original undoes for a path what the cuts did to the numbers of list items.
func (r *repairs) original(path string) string {
	for _, c := range slices.Backward(r.cuts) {
		if list, n := item(c.path); c.list {
			path = renumber(path, list, func(i int) int {
				if i >= n {
					return i + 1
				}
				return i
			})
		}
	}
	return path
}

// moved is the path that an attribute has after the cuts.
func (r *repairs) moved(path string) string {
	for _, c := range r.cuts {
		if list, n := item(c.path); c.list {
			path = renumber(path, list, func(i int) int {
				if i > n {
					return i - 1
				}
				return i
			})
		}
	}
	return path
}

// item takes the path of a list item apart.
func item(path string) (list string, n int) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return path, -1
	}
	n, err := strconv.Atoi(path[i+1:])
	if err != nil {
		return path, -1
	}
	return path[:i], n
}

// renumber changes the number of the item of list that path is, or is below.
func renumber(path, list string, f func(int) int) string {
	rest, ok := strings.CutPrefix(path, list+".")
	if !ok {
		return path
	}
	number, tail, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(number)
	if err != nil {
		return path
	}
	return strings.TrimSuffix(list+"."+strconv.Itoa(f(n))+"."+tail, ".")
}

// cutAll takes out what was reported since the last time. false: something
// cannot be taken out.
func (r *repairs) cutAll() bool {
	for ; r.handled < len(r.diags); r.handled++ {
		d := r.diags[r.handled]
		if d.Severity == Error && !r.cutOut(r.moved(d.Path)) {
			return false
		}
	}
	for _, s := range r.main {
		if !s.encode() {
			return false
		}
	}
	return true
}

// cutOut removes the attribute at path, or the item of a list that holds it:
// what is left of the item could be wrong for that alone.
func (r *repairs) cutOut(path string) bool {
	parts := strings.Split(path, ".")
	if len(parts) < 2 && path == "" {
		return false
	}
	for i := 2; i < len(parts); i++ {
		if _, err := strconv.Atoi(parts[i]); err == nil {
			if p, ok := r.places[strings.Join(parts[:i+1], ".")]; ok && p.key == nil {
				path = strings.Join(parts[:i+1], ".")
				break
			}
		}
	}
	for _, c := range r.cuts {
		if !c.list && within(path, c.path) {
			return true // gone already
		}
	}
	p, ok := r.places[path]
	if !ok || !slices.Contains(r.main, p.src) {
		return false
	}
	gone := slices.ContainsFunc(p.src.docs, func(doc *yaml.Node) bool { return without(doc, p) })
	if !gone {
		return false
	}
	c := cut{path: path, list: p.key == nil}
	r.cuts = append(r.cuts, c)
	if list, n := item(path); c.list && n >= 0 {
		moved := make(index, len(r.places))
		for at, p := range r.places {
			if within(at, path) {
				continue
			}
			moved[renumber(at, list, func(i int) int {
				if i > n {
					return i - 1
				}
				return i
			})] = p
		}
		r.places = moved
	}
	return true
}

// without removes what stands at p from the tree n; false: it is not there.
func without(n *yaml.Node, p place) bool {
	step := 1
	if n.Kind == yaml.MappingNode {
		step = 2
	}
	for i := 0; i < len(n.Content); i += step {
		if (p.key != nil && n.Content[i] == p.key) || (p.key == nil && n.Content[i] == p.value) {
			n.Content = slices.Delete(slices.Clone(n.Content), i, i+step)
			return true
		}
	}
	return slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return without(c, p) })
}

// encode writes the tree of s, as it is by now, for the loader.
func (s *source) encode() (ok bool) {
	defer func() { ok = recover() == nil && ok }()
	var out []byte
	for _, doc := range s.docs {
		spellNull(doc)
		text, err := yaml.Marshal(doc)
		if err != nil {
			return false
		}
		out = append(append(out, "---\n"...), text...)
	}
	s.repaired = out
	return true
}

// spellNull writes nulls out: an empty one in braces would become text.
func spellNull(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == "" {
		n.Value = "null"
	}
	for _, c := range n.Content {
		spellNull(c)
	}
}

// consistency checks what is left, as if it were the whole. It is not, so
// what may follow from a cut is not said.
func (r *repairs) consistency() {
	for _, c := range r.cuts {
		if strings.Count(c.path, ".") < 2 {
			return // a whole service, network …: others may refer to it
		}
	}
	own := *r.loading
	own.diags, own.o.Inspect = nil, true
	own.check()
	for _, d := range own.diags {
		if d.Severity == Error {
			r.found(d)
		}
	}
	r.project = nil
}
