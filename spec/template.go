package spec

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
)

// Template is the text of a config or a secret that is filled in for each task
// (x-berth: {template: true}, or template_driver: golang). What it may do is
// bounded: it defines no templates of its own, its loops turn a limited number
// of times, and what its functions are given and give is limited as well.
type Template struct {
	parsed *template.Template
	secret bool
	nodes  int
	uses   []TemplateUse
	labels bool
}

// TemplateUse is one mention of a content or a variable.
type TemplateUse struct {
	Kind string // "config", "secret" or "env"
	Name string
	Line int // in the template
}

// TemplateValues are what a Template may name.
type TemplateValues struct {
	Service struct {
		ID, Name string
		Labels   map[string]string // deploy.labels
	}
	Task  struct{ ID, Name, Slot string }
	Node  TemplateNode
	Stack struct{ Name string }
}

// TemplateNode is the machine.
type TemplateNode struct {
	ID, Hostname string
	Platform     struct{ Architecture, OS string }
}

// templateFields is what a wrong field is told.
const templateFields = "there are .Service.Name, .Service.ID, .Service.Labels, .Task.ID, .Task.Name, .Task.Slot, .Node.ID, .Node.Hostname, " +
	".Node.Platform.Architecture, .Node.Platform.OS and .Stack.Name"

// TemplateError is a mistake in a template, or a value that it misses.
type TemplateError struct {
	Line    int // 0: none in particular
	Message string
	Hint    string
}

func (e *TemplateError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d of the template: %s", e.Line, e.Message)
}

// Bounds of one expansion.
const (
	maxTurns    = 10_000    // of all loops
	maxSteps    = 1_000_000 // turns, times the size of the template
	leastTurns  = 100
	maxHandled  = 16 << 20 // bytes that functions are given and give
	maxTemplate = maxConfig
)

// templateFunctions are those that a template may call. The builtin ones that
// make long texts out of short ones are left out.
var templateFunctions = strings.Fields("and config env eq html index join js len ne not or secret urlquery")

// ParseTemplate reads the text of a config, or of a secret: then an error
// quotes nothing of it. Errors are *TemplateError.
func ParseTemplate(text []byte, secret bool) (*Template, error) {
	t := &Template{secret: secret}
	if len(text) > maxTemplate {
		return nil, &TemplateError{Message: "it is larger than " + size(maxTemplate)}
	}
	parsed, err := template.New("t").Option("missingkey=error").Funcs((&expansion{}).functions()).Parse(string(text))
	if err != nil {
		return nil, t.explain(err)
	}
	t.parsed = parsed
	if len(parsed.Templates()) > 1 {
		return nil, &TemplateError{Message: "it defines a template of its own", Hint: "write its text where it is used"}
	}
	if parsed.Tree == nil || parsed.Root == nil { // an empty text
		return t, nil
	}
	w := &templateWalk{t: t, line: 1}
	w.list(parsed.Root)
	if w.err != nil {
		return nil, w.err
	}
	return t, nil
}

// Uses are the contents and variables that the template names, in its order.
func (t *Template) Uses() []TemplateUse { return slices.Clone(t.uses) }

// NamesLabels says that the labels of the service may show in what is made of
// the template.
func (t *Template) NamesLabels() bool { return t.labels }

// Expand fills the template in: at most limit bytes. get gives the value of a
// use; its error is told with the line. Errors are *TemplateError.
func (t *Template) Expand(v TemplateValues, get func(kind, name string) (string, error), limit int) ([]byte, error) {
	if t.parsed.Tree == nil {
		return []byte{}, nil
	}
	tmpl, err := t.parsed.Clone()
	if err != nil {
		return nil, t.explain(err)
	}
	turns := max(leastTurns, min(maxTurns, maxSteps/max(1, t.nodes)))
	x := &expansion{get: get, limit: limit, turns: turns + t.nodes, secret: t.secret, out: []byte{}}
	if err := tmpl.Funcs(x.functions()).Execute(x, v); err != nil {
		return nil, t.explain(err)
	}
	return x.out, nil
}

// templateWalk looks through the nodes of a template for what it may not hold,
// and notes what it uses.
type templateWalk struct {
	t    *Template
	line int
	err  *TemplateError
}

func (w *templateWalk) refuse(message, hint string) {
	if w.err == nil {
		w.err = &TemplateError{Line: w.line, Message: message, Hint: hint}
	}
}

func (w *templateWalk) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		w.node(n)
	}
}

func (w *templateWalk) node(n parse.Node) {
	w.t.nodes++
	switch n := n.(type) {
	case *parse.ActionNode:
		w.line = n.Line
		w.pipe(n.Pipe)
	case *parse.IfNode:
		w.branch(&n.BranchNode)
	case *parse.WithNode:
		w.branch(&n.BranchNode)
	case *parse.RangeNode:
		w.branch(&n.BranchNode)
		// An empty text at the beginning is written once for each turn.
		n.List.Nodes = append([]parse.Node{&parse.TextNode{NodeType: parse.NodeText}}, n.List.Nodes...)
	case *parse.TemplateNode:
		w.line = n.Line
		w.refuse("it calls a template", "write its text here")
	}
}

func (w *templateWalk) branch(b *parse.BranchNode) {
	w.line = b.Line
	w.pipe(b.Pipe)
	w.list(b.List)
	w.list(b.ElseList)
}

func (w *templateWalk) pipe(p *parse.PipeNode) {
	if p == nil {
		return
	}
	w.line = max(w.line, p.Line)
	for _, c := range p.Cmds {
		for i, arg := range c.Args {
			w.t.nodes++
			w.argument(c, i, arg)
		}
	}
}

func (w *templateWalk) argument(c *parse.CommandNode, i int, arg parse.Node) {
	switch arg := arg.(type) {
	case *parse.PipeNode:
		w.pipe(arg)
	case *parse.ChainNode:
		w.fields(arg.Field)
		w.argument(c, i, arg.Node)
	case *parse.FieldNode:
		w.fields(arg.Ident)
	case *parse.VariableNode:
		w.fields(arg.Ident)
	case *parse.DotNode:
		w.fields([]string{"$"}) // perhaps
	case *parse.IdentifierNode:
		w.function(c, i, arg.Ident)
	}
}

// fields notes a chain of fields: it ends at a label, or at what holds them.
func (w *templateWalk) fields(names []string) {
	last := names[len(names)-1]
	w.t.labels = w.t.labels || slices.Contains(names, "Labels") || last == "Service" || last == "$"
}

func (w *templateWalk) function(c *parse.CommandNode, i int, name string) {
	if !slices.Contains(templateFunctions, name) {
		w.refuse("there is no function "+name, "there are: "+strings.Join(templateFunctions, ", "))
		return
	}
	if name != "env" && name != "secret" && name != "config" {
		return
	}
	if i == 0 && len(c.Args) == 2 {
		if text, ok := c.Args[1].(*parse.StringNode); ok {
			w.t.uses = append(w.t.uses, TemplateUse{Kind: name, Name: text.Text, Line: w.line})
			return
		}
	}
	w.refuse(name+" needs a name in quotes", fmt.Sprintf(`write {{%s "NAME"}}`, name))
}

// expansion is the writer and the functions of one execution. It fails when
// too much is written or handled.
type expansion struct {
	get     func(kind, name string) (string, error)
	limit   int
	turns   int
	handled int
	secret  bool
	out     []byte
}

func (x *expansion) Write(p []byte) (int, error) {
	if len(p) == 0 {
		if x.turns--; x.turns < 0 {
			return 0, &TemplateError{Message: "its loops turn too often"}
		}
	}
	if len(x.out)+len(p) > x.limit {
		return 0, &TemplateError{Message: "filled in it is larger than " + size(int64(x.limit))}
	}
	x.out = append(x.out, p...)
	return len(p), nil
}

var _ io.Writer = (*expansion)(nil)

// handle counts bytes.
func (x *expansion) handle(n int) error {
	if x.handled += n + 1; x.handled > maxHandled {
		return &TemplateError{Message: "it handles more than " + size(maxHandled)}
	}
	return nil
}

func (x *expansion) functions() template.FuncMap {
	use := func(kind string) func(string) (string, error) {
		return func(name string) (string, error) {
			value, err := x.get(kind, name)
			var own *TemplateError
			if err != nil && !errors.As(err, &own) {
				own = &TemplateError{Message: err.Error()}
			}
			if err != nil {
				return "", own
			}
			return value, x.handle(len(value))
		}
	}
	escape := func(f func(...any) string) func(string) (string, error) {
		return func(s string) (string, error) {
			if err := x.handle(6 * len(s)); err != nil { // the most that it becomes
				return "", err
			}
			return f(s), nil
		}
	}
	return template.FuncMap{
		"env": use("env"), "secret": use("secret"), "config": use("config"),
		"html": escape(template.HTMLEscaper), "js": escape(template.JSEscaper), "urlquery": escape(template.URLQueryEscaper),
		"join":  x.join,
		"index": x.index,
		"eq":    x.equal,
		"ne": func(a, b any) (bool, error) {
			same, err := x.equal(a, b)
			return !same, err
		},
	}
}

// join puts a separator between texts, as in Docker Swarm.
func (x *expansion) join(separator string, texts ...string) (string, error) {
	n := len(separator) * len(texts)
	for _, t := range texts {
		n += len(t)
	}
	if err := x.handle(n); err != nil {
		return "", err
	}
	return strings.Join(texts, separator), nil
}

// index gives an entry that must be there; the builtin one gives "" else.
func (x *expansion) index(m map[string]string, key string) (string, error) {
	v, ok := m[key]
	if !ok {
		if x.secret {
			key = "…"
		}
		return "", &TemplateError{Message: fmt.Sprintf("there is no label %q", key), Hint: labelHint(m)}
	}
	return v, x.handle(len(v))
}

func labelHint(m map[string]string) string {
	if len(m) == 0 {
		return "write it in deploy.labels of the service"
	}
	return "deploy.labels has: " + strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

// equal says whether a is one of others. Unlike the builtin it takes texts,
// numbers and truth values only.
func (x *expansion) equal(a any, others ...any) (bool, error) {
	if len(others) == 0 {
		return false, &TemplateError{Message: "eq and ne compare two values"}
	}
	for _, b := range others {
		switch a := a.(type) {
		case string:
			s, ok := b.(string)
			if !ok {
				return false, &TemplateError{Message: "a text is compared with what is none", Hint: `write the other in quotes: "1"`}
			}
			if err := x.handle(len(a)); err != nil {
				return false, err
			}
			if a == s {
				return true, nil
			}
		case int, bool, float64:
			if a == b {
				return true, nil
			}
		default:
			return false, &TemplateError{Message: "eq and ne compare texts, numbers and truth values"}
		}
	}
	return false, nil
}

var (
	templatePlace   = lazy(`(?s)^template: t:(\d+)(?::\d+)?: (?:executing "t" at <.*?>: )?(.*)$`)
	templateQuoted  = lazy(`"(\\.|[^"\\])*"?|<[^>]*>?|'[^']*'?`)
	templateNoField = lazy(`can't evaluate field (\S+) in type`)
	templateStarted = lazy(` started at t:(\d+)`)
	templateNoKey   = lazy(`map has no entry for key "(.*)"`)
)

// explain turns an error of text/template into one with a line.
func (t *Template) explain(err error) *TemplateError {
	out := &TemplateError{Message: err.Error()}
	if m := templatePlace().FindStringSubmatch(err.Error()); m != nil {
		out.Line, _ = strconv.Atoi(m[1])
		out.Message = m[2]
	}
	if m := templateStarted().FindStringSubmatch(out.Message); m != nil {
		out.Line, _ = strconv.Atoi(m[1])
		out.Message = strings.Replace(out.Message, m[0], "", 1)
	}
	var own *TemplateError
	field, key := templateNoField().FindStringSubmatch(out.Message), templateNoKey().FindStringSubmatch(out.Message)
	switch {
	case errors.As(err, &own):
		out.Message, out.Hint = own.Message, own.Hint
	case field != nil && !t.secret:
		out.Message, out.Hint = "there is no field "+field[1], templateFields
	case field != nil:
		out.Message, out.Hint = "it names a field that there is not", templateFields
	case key != nil && !t.secret:
		out.Message, out.Hint = fmt.Sprintf("there is no label %q", key[1]), "write it in deploy.labels of the service"
	case t.secret:
		out.Message = templateQuoted().ReplaceAllString(out.Message, "…")
	}
	return out
}

// FileNamed gives the config or secret of s that a template calls name: the
// one with that target, or else that source. A relative target counts from
// where contents of that kind lie.
func (s *Service) FileNamed(kind, name string) (FileMount, bool) {
	mounts, dir := s.Configs, configDir
	if kind == "secret" {
		mounts, dir = s.Secrets, secretDir
	}
	for _, m := range mounts {
		if m.Target == name || m.Target == dir+name {
			return m, true
		}
	}
	for _, m := range mounts {
		if m.Source == name {
			return m, true
		}
	}
	return FileMount{}, false
}
