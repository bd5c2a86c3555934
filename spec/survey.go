package spec

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

// unit is one file as it takes part in the stack.
type unit struct {
	src *source
	env lookup
	// dir is where relative paths in the file start.
	dir string
	// only, when not empty, is the one service of the file that is used: as
	// extends it.
	only, as string
}

// stackPath is the path that an attribute of the file has in the stack; ok is
// false for what takes no part.
func (u *unit) stackPath(path string) (string, bool) {
	if u.only == "" {
		return path, true
	}
	rest, ok := strings.CutPrefix(path, "services."+u.only)
	if !ok || (rest != "" && rest[0] != '.') {
		return "", false
	}
	return "services." + u.as + rest, true
}

// survey walks the files before the loader does: it finds the places, what
// is unknown or not honoured, and the variables. It follows include and
// extends as far as they can be followed.
func (l *loading) survey(ctx context.Context) {
	s := surveyor{loading: l, ctx: ctx, seen: map[string]bool{}, lengths: map[string]int{}}
	l.places = index{}
	env := func(name string) (string, bool) { v, ok := l.in.environ[name]; return v, ok }
	for _, src := range l.main {
		s.file(&unit{src: src, env: env, dir: l.in.projectDir})
		if l.diags.Errors() {
			return
		}
	}
}

type surveyor struct {
	*loading
	ctx  context.Context //nolint:containedctx // lives as long as one walk
	seen map[string]bool
	// lengths are those of the lists in places.
	lengths map[string]int
}

// maxUnits caps how many files one stack may draw in.
const maxUnits = 512

// file surveys one file. A file that yaml.v3 cannot parse is left to the
// loader, whose error says where.
func (s *surveyor) file(u *unit) {
	if s.ctx.Err() != nil || len(s.units) > maxUnits {
		return
	}
	if u.src.huge > 0 {
		s.add(u.src.at(Error, u.src.huge, 1, 1, "", fmt.Sprintf("the file holds more than %d values", maxNodes), "split it, or move data into files"))
		return
	}
	if u.src.docs == nil && u.src.parse() != nil {
		s.units = append(s.units, u)
		return
	}
	if len(u.src.docs) > 0 && u.src.wide() {
		s.add(u.src.at(Error, 1, 1, 1, "", "the file is UTF-16 text", "save it as UTF-8"))
		return
	}
	if d := u.src.budget(); d != nil {
		s.add(*d)
		return
	}
	if u.src.places == nil {
		u.src.places = index{}
		u.src.walk(func(v visit) { u.src.places[v.path] = v.place })
		s.suspects = append(s.suspects, u.src.malformed()...)
	}
	s.units = append(s.units, u)
	s.includes(u)
	if u.only == "" {
		s.places.merge(u.src.places, s.lengths)
	}
	s.extends(u)
	s.variables(u)
	s.lint(u)
}

// text is the interpolated value of a scalar; ok is false for what is none.
func (u *unit) text(n *yaml.Node) (string, bool) {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode {
		return "", false
	}
	out, err := substitute(n.Value, func(name string) (string, bool) { return u.env(name) })
	return out, err == nil
}

// texts are the values of a scalar or a list of them.
func (u *unit) texts(n *yaml.Node) []string {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		n = &yaml.Node{Content: []*yaml.Node{n}}
	}
	var out []string
	for _, c := range n.Content {
		if t, ok := u.text(c); ok {
			out = append(out, t)
		}
	}
	return out
}

// get finds a key of a mapping.
func get(n *yaml.Node, key string) *yaml.Node {
	if n = resolve(n); n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return resolve(n.Content[i+1])
		}
	}
	return nil
}

func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func (s *surveyor) includes(u *unit) {
	for _, doc := range u.src.docs {
		if len(doc.Content) == 0 {
			continue
		}
		list := get(doc.Content[0], "include")
		if list == nil || list.Kind != yaml.SequenceNode {
			continue
		}
		for _, item := range list.Content {
			s.include(u, resolve(item))
		}
	}
}

func (s *surveyor) include(u *unit, item *yaml.Node) {
	pathNode := item
	if item.Kind == yaml.MappingNode {
		if pathNode = get(item, "path"); pathNode == nil {
			return
		}
	}
	var dir string
	env := u.env
	for i, p := range u.texts(pathNode) {
		at := pathNode
		if pathNode.Kind == yaml.SequenceNode && i < len(pathNode.Content) {
			at = pathNode.Content[i]
		}
		path, ok := s.local(u, at, p, "include")
		if !ok {
			continue
		}
		if i == 0 {
			dir = filepath.Dir(path)
			if n := get(item, "project_directory"); n != nil {
				if t, ok := u.text(n); ok {
					dir = below(u.dir, t)
				}
			}
			env = s.includeEnv(u, item, dir)
		}
		if src := s.open(u, at, path, "include"); src != nil {
			s.file(&unit{src: src, env: env, dir: dir})
		}
	}
}

// includeEnv adds the variables of the included project: its env_file, else
// its .env; those of the including one win.
func (s *surveyor) includeEnv(u *unit, item *yaml.Node, dir string) lookup {
	var files []string
	if n := get(item, "env_file"); n != nil {
		for _, f := range u.texts(n) {
			if f == os.DevNull {
				continue
			}
			path := below(u.dir, f)
			if info, err := os.Stat(path); err != nil || info.IsDir() {
				s.suspects = append(s.suspects, u.src.node(Error, n, "include", "env_file "+f+" does not exist",
					"make the file, or correct the path"))
				continue
			}
			files = append(files, path)
		}
	} else if path := filepath.Join(dir, ".env"); statOK(path) {
		files = []string{path}
	}
	vars := map[string]string{}
	env := func(name string) (string, bool) {
		if v, ok := u.env(name); ok {
			return v, true
		}
		v, ok := vars[name]
		return v, ok
	}
	for _, f := range files {
		data, err := readRegular(f, maxFile)
		if err != nil {
			s.add(u.src.node(Error, item, "include", "env_file: "+s.relative(err), "correct the path"))
			continue
		}
		// A mistake in it is the loader's to report, with this file's name.
		more, err := parseDotenv(data, env)
		if err != nil {
			s.suspects = append(s.suspects, dotenvDiagnostic(newSource(f, s.show(f), data), err))
		}
		for k, v := range more {
			vars[k] = v
		}
	}
	return env
}

// local is the path of a file that another one names; a remote one is
// fetched. false: it cannot be, which is reported.
func (s *surveyor) local(u *unit, at *yaml.Node, written, what string) (string, bool) {
	if !s.remote(written) {
		return below(u.dir, written), true
	}
	path, err := s.fetch(written)
	if err != nil {
		s.add(u.src.node(Error, at, what, what+": "+err.Error(), "check the address, and that you may read it"))
		return "", false
	}
	return path, true
}

// open reads a file that another one names, once. What is in progress is not
// read again: the loader reports the cycle.
func (s *surveyor) open(u *unit, at *yaml.Node, path, what string) *source {
	key := what + " " + u.only + " " + path
	if s.seen[key] {
		return nil
	}
	s.seen[key] = true
	if src, ok := s.bySource[path]; ok {
		return src
	}
	src, err := readSource(path, s.show(path))
	if err != nil {
		d := u.src.node(Error, at, what, what+": "+s.relative(err), "make the file, or correct the path")
		if statOK(path) {
			// The loader would read it all the same, and could wait for ever
			// for a FIFO or fill the memory.
			s.add(d)
		} else {
			s.suspects = append(s.suspects, d)
		}
		return nil
	}
	s.bySource[path] = src
	return src
}

// extends gives services the places that they inherit, and surveys the files
// they inherit from.
func (s *surveyor) extends(u *unit) {
	for _, doc := range u.src.docs {
		if len(doc.Content) == 0 {
			continue
		}
		services := get(doc.Content[0], "services")
		if services == nil || services.Kind != yaml.MappingNode {
			continue
		}
		for i := 0; i+1 < len(services.Content); i += 2 {
			name := services.Content[i].Value
			if u.only != "" && u.only != name {
				continue
			}
			if ext := get(services.Content[i+1], "extends"); ext != nil {
				s.extend(u, name, ext)
			}
		}
	}
}

func (s *surveyor) extend(u *unit, name string, ext *yaml.Node) {
	base, file := ext, get(ext, "file")
	if ext.Kind == yaml.SequenceNode {
		s.suspects = append(s.suspects, u.src.node(Error, ext, "services."+name+".extends", "extends of service "+name+" is a list",
			"write {file: …, service: …}; one service can be extended"))
		return
	}
	if ext.Kind == yaml.MappingNode {
		if base = get(ext, "service"); base == nil {
			return
		}
	}
	ref, ok := u.text(base)
	if !ok {
		return
	}
	as := name
	if u.only != "" {
		as = u.as
	}
	from := u.src
	if file != nil {
		written, ok := u.text(file)
		if !ok {
			return
		}
		path, ok := s.local(u, file, written, "extends")
		if !ok {
			return
		}
		if src := s.open(&unit{src: u.src, only: as + " " + ref}, file, path, "extends"); src != nil {
			s.file(&unit{src: src, env: u.env, dir: filepath.Dir(path), only: ref, as: as})
			from = src
		} else if from = s.bySource[path]; from == nil {
			return
		}
	}
	if from.places != nil {
		s.places.fallback(from.places, "services."+ref, "services."+as)
	}
}
