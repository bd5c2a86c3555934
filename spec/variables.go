package spec

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// Variable is one mention of a variable in a Compose file.
type Variable struct {
	Name string
	// Default and Alternate are the operands of ${NAME:-default} and
	// ${NAME:+alternate}.
	Default   string
	Alternate string
	// Required says ${NAME:?message} or ${NAME?message}.
	Required bool
	Position Position
}

// Variables lists the variables that the files mention, each once, in the
// order of the files.
func (r *Result) Variables() []Variable { return r.references }

// reference is one ${…} or $NAME of a text.
type reference struct {
	name    string
	op      string // "", ":-", "-", ":?", "?", ":+", "+"
	operand string
}

// references takes a text apart by the rules of the Compose interpolation;
// $$ is an escaped dollar sign. ok is false for a ${ that makes no variable.
func references(text string) (refs []reference, ok bool) {
	ok = true
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			continue
		}
		switch text[i+1] {
		case '$':
			i++
		case '{':
			body, length := braced(text[i+2:])
			if length < 0 {
				return refs, false
			}
			name := identifier(body)
			r := reference{name: name}
			rest := body[len(name):]
			for _, op := range []string{":-", ":?", ":+", "-", "?", "+"} {
				if strings.HasPrefix(rest, op) {
					r.op, r.operand = op, rest[len(op):]
					break
				}
			}
			if name == "" || (rest != "" && r.op == "") {
				return refs, false
			}
			refs = append(refs, r)
			i += 1 + length
		default:
			if name := identifier(text[i+1:]); name != "" {
				refs = append(refs, reference{name: name})
				i += len(name)
			}
		}
	}
	return refs, ok
}

// braced gives what stands before the brace that closes an open one, and the
// length with that brace; -1 if there is none.
func braced(s string) (string, int) {
	depth := 1
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return s[:i], i + 1
			}
		}
	}
	return "", -1
}

func identifier(s string) string {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
		if !letter && (i == 0 || c < '0' || c > '9') {
			return s[:i]
		}
	}
	return s
}

// lookup finds the value of a variable.
type lookup func(name string) (string, bool)

// problem is a reference that cannot be, or silently is not, filled.
type problem struct {
	reference
	required bool // else it is unset and becomes empty
}

// problems lists the references of text that have no value, also inside
// defaults that are used.
func problems(text string, env lookup) []problem {
	refs, _ := references(text)
	var out []problem
	for _, r := range refs {
		value, set := env(r.name)
		colon := strings.HasPrefix(r.op, ":")
		missing := !set || (colon && value == "")
		switch strings.TrimPrefix(r.op, ":") {
		case "":
			if !set {
				out = append(out, problem{r, false})
			}
		case "-":
			if missing {
				out = append(out, problems(r.operand, env)...)
			}
		case "+":
			if !missing {
				out = append(out, problems(r.operand, env)...)
			}
		case "?":
			if missing {
				out = append(out, problem{r, true})
			}
		}
	}
	return out
}

// variables finds the variables of a file: those that are required and
// missing, what is no variable at all, and those that are unset.
func (l *loading) variables(u *unit) {
	paths := u.src.paths()
	for _, doc := range u.src.docs {
		scalars(doc, func(n *yaml.Node) {
			if !strings.Contains(n.Value, "$") {
				return
			}
			path, ok := u.stackPath(paths[n])
			// The loader interpolates what is not used, too.
			if reason := tooManyVariables(n.Value); reason != "" {
				l.add(u.src.node(Error, n, path, reason, "write it to a file, and mount the file"))
				return
			}
			if !ok {
				return
			}
			l.note(u, n)
			if !l.o.NoInterpolate {
				l.unfilled(u, n, path)
			}
		})
	}
}

func (l *loading) unfilled(u *unit, n *yaml.Node, path string) {
	if _, ok := references(n.Value); !ok {
		l.suspects = append(l.suspects, u.src.node(Error, n, path, "a ${ in this text makes no variable",
			"write ${NAME}, or $$ for a dollar sign"))
	}
	said := map[string]bool{}
	for _, p := range problems(n.Value, u.env) {
		if said[p.name] {
			continue
		}
		said[p.name] = true
		line, col := u.src.find(n, p.name)
		if !p.required {
			l.unset = append(l.unset, u.src.at(Warning, line, col, len(p.name), path, "the variable "+p.name+" is not set; it becomes empty",
				"set it, or give a default: ${"+p.name+":-value}"))
			continue
		}
		message := "the variable " + p.name + " is required but not set"
		if p.operand != "" {
			message += ": " + p.operand
		}
		l.suspects = append(l.suspects, u.src.at(Error, line, col, len(p.name), path, message,
			"set "+p.name+" in the environment or in .env"))
	}
}

// warnUnset reports each unset variable once, where it is used first in what
// is part of the stack.
func (l *loading) warnUnset() {
	said := map[string]bool{}
	for _, d := range l.stillThere(l.unset) {
		if !said[d.Message] {
			said[d.Message] = true
			l.add(d)
		}
	}
}

// paths finds the path of a value.
func (s *source) paths() map[*yaml.Node]string {
	out := make(map[*yaml.Node]string, len(s.places))
	for path, p := range s.places {
		if have, ok := out[p.value]; !ok || path < have {
			out[p.value] = path
		}
	}
	return out
}

// within says that path is parent or below it.
func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+".")
}

// note keeps the variables for `config --variables`.
func (l *loading) note(u *unit, n *yaml.Node) {
	var add func(text string)
	add = func(text string) {
		refs, _ := references(text)
		for _, r := range refs {
			line, col := u.src.find(n, r.name)
			v := Variable{Name: r.name, Position: Position{u.src.shown, line, col}}
			switch strings.TrimPrefix(r.op, ":") {
			case "-":
				v.Default = r.operand
			case "+":
				v.Alternate = r.operand
			case "?":
				v.Required = true
			}
			l.mention(v)
			add(r.operand)
		}
	}
	add(n.Value)
}

func (l *loading) mention(v Variable) {
	for i, have := range l.references {
		if have.Name != v.Name {
			continue
		}
		if have.Default == "" {
			l.references[i].Default = v.Default
		}
		l.references[i].Required = have.Required || v.Required
		return
	}
	l.references = append(l.references, v)
}

// scalars calls f for each text that is a value; aliases are not followed, so
// each is seen once.
func scalars(n *yaml.Node, f func(*yaml.Node)) {
	switch n.Kind {
	case yaml.ScalarNode:
		f(n)
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			scalars(n.Content[i], f)
		}
	case yaml.DocumentNode, yaml.SequenceNode:
		for _, c := range n.Content {
			scalars(c, f)
		}
	}
}

// find gives the place of the first mention of a variable in the text of n:
// of the name, behind the dollar sign.
func (s *source) find(n *yaml.Node, name string) (line, col int) {
	from := s.byteCol(n) - 1
	for i := n.Line; i >= 1 && i <= len(s.lines); i++ {
		text := s.lines[i-1]
		if at := mention(text, from, name); at >= 0 {
			return i, at + 1
		}
		from = 0
		if i > n.Line+strings.Count(n.Value, "\n")+1 {
			break
		}
	}
	return n.Line, s.byteCol(n)
}

func mention(text string, from int, name string) int {
	for from < len(text) {
		i := strings.Index(text[from:], name)
		if i < 0 {
			return -1
		}
		i += from
		before := strings.TrimSuffix(text[:i], "{")
		after := text[i+len(name):]
		if strings.HasSuffix(before, "$") && identifier("_"+after) == "_" {
			return i
		}
		from = i + 1
	}
	return -1
}
