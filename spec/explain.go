package spec

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// explain turns what the loader said into diagnostics. What our own walk
// found says more, and all of it at once; so the loader's text is only used
// for what the walk did not see.
func (l *loading) explain(err error) {
	before := len(l.diags)
	for _, d := range l.suspects {
		if d.Severity == Error {
			l.add(d)
		}
	}
	var plain *plainError
	if errors.As(err, &plain) {
		l.add(Diagnostic{Severity: Error, Message: plain.message, Hint: plain.hint})
		return
	}
	found := len(l.diags) > before
	for _, text := range splitErrors(err) {
		d, known := l.translate(text)
		if found && (!known || l.said(d) || l.beside(d)) {
			continue
		}
		l.add(d)
	}
}

// beside says that d is about services being empty because they stand beside
// it, which was said.
func (l *loading) beside(d Diagnostic) bool {
	p, ok := l.places["services"]
	return ok && d.Path == "services" && resolve(p.value).Tag == "!!null"
}

// said reports whether the walk found what d says, in better words.
func (l *loading) said(d Diagnostic) bool {
	for _, s := range l.diags {
		if s.Severity == Error && s.File == d.File && (s.Line == d.Line || s.Path == d.Path || strings.HasPrefix(s.Path, d.Path+".")) {
			return true
		}
	}
	return false
}

// splitErrors takes joined interpolation errors apart; any other text stays
// whole.
func splitErrors(err error) []string {
	text := err.Error()
	if !strings.HasPrefix(text, "error while interpolating ") && !strings.HasPrefix(text, "invalid interpolation format") {
		return []string{text}
	}
	var out []string
	for _, line := range strings.Split(text, "\n") {
		if len(out) == 0 || strings.HasPrefix(line, "error while interpolating ") || strings.HasPrefix(line, "invalid interpolation format") {
			out = append(out, line)
		} else {
			out[len(out)-1] += "\n" + line
		}
	}
	return out
}

// rule maps one form of the loader's errors. known is false when the text
// gave no place.
type rule struct {
	pattern func() *regexp.Regexp
	apply   func(l *loading, m []string) (d Diagnostic, known bool)
}

// rules are tried in order. The texts are those of compose-go v2.16;
// testdata/spec holds a sample of each, so that an update that changes one is
// seen.
var rules = []rule{
	{lazy(`(?s)^validating (.*?):  ?additional properties (.*) not allowed$`), ruleTopLevel},
	{lazy(`(?s)^validating (.*?): (\S.*)$`), ruleSchema},
	{lazy(`(?s)^failed to parse (.*?): (.*)$`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.syntax(l.sourceOf(m[1]), m[2]), true
	}},
	{lazy(`(?s)^(yaml: .*)$`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.syntax(nil, m[1]), true
	}},
	{lazy(`(?s)^error while interpolating (\S+): (.*)$`), ruleInterpolate},
	{lazy(`(?s)^invalid interpolation format for (\S+?)\.\n.*\n(.*)$`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.placedValue(Error, dotted(m[1]), "a ${ in this text makes no variable", "write ${NAME}, or $$ for a dollar sign"), true
	}},
	{lazy(`^non-string key (?:in (\S+)|at top level): (.*)$`), func(l *loading, m []string) (Diagnostic, bool) {
		key := strings.Trim(m[2], `"`)
		return l.placed(Error, join(dotted(m[1]), key), fmt.Sprintf("the key %s is not text", key), `put it in quotes: "`+key+`"`), true
	}},
	{lazy("^`include` must be a list"), func(l *loading, _ []string) (Diagnostic, bool) {
		return l.typeError("include", "array"), true
	}},
	{lazy(`^extends\.(\S+)\.service is required$`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.placed(Error, "services."+m[1]+".extends", "extends of service "+m[1]+" names no service", "add service:"), true
	}},
	{lazy(`^cannot override (\S+)$`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.placed(Error, dotted(m[1]), subject(dotted(m[1]))+" has another form than in the file before", "write both in the same form"), true
	}},
	{lazy(`^include cycle detected:`), func(l *loading, _ []string) (Diagnostic, bool) {
		return l.placed(Error, "include", "the file includes itself, directly or through others", "remove one of the includes"), true
	}},
	{lazy(`(?s)^Circular reference:\n(.*)$`), ruleExtendsCycle},
	{lazy(`^cannot extend service "([^"]+)" in .*?: (.*)$`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.placedValue(Error, "services."+m[1]+".extends", "service "+m[1]+" cannot be extended: "+l.shortPaths(m[2]), "name a service that is in the file"), true
	}},
	{lazy(`^open (.*): (no such file or directory|permission denied|.*)$`), ruleOpen},
	{lazy(`^service volume (\S+) is missing a mount target$`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.placed(Error, dotted(m[1]), "the mount has no target", "write target: /path/in/the/container"), true
	}},
	{lazy(`^service ports (\S+) is missing a target port$`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.placed(Error, dotted(m[1]), "the port has no container port", "write HOST:CONTAINER, such as 8080:80"), true
	}},
	{lazy(`^'([^']+)' (.*)$`), ruleDecode},
	{lazy(`(?s)^decoding failed due to the following error\(s\):\s+'([^']*)' ([^\n]*)`), ruleDecode},
	{lazy(`^((?:services|jobs|volumes|networks|configs|secrets)\S*): (.*)$`), rulePath},
	{lazy(`^((?:services|jobs|volumes|networks|configs|secrets)\S*) must be a (.*)$`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.typeError(dotted(m[1]), m[2]), true
	}},
	{lazy(`^invalid mount config for type "(\w+)": field (\w+) must not be empty$`), ruleMount},
	{lazy(`^empty compose file$`), func(l *loading, _ []string) (Diagnostic, bool) {
		return l.main[0].at(Error, 1, 1, 1, "", "the file is empty", "write services: and below it a service"), true
	}},
	{lazy(`^project name must not be empty$`), func(l *loading, _ []string) (Diagnostic, bool) {
		return l.main[0].at(Error, 1, 1, 1, "name", "the folder's name gives no name for the stack", "write name: at the top, or use -p"), true
	}},
	{lazy(`^top-level object must be a mapping$`), func(l *loading, _ []string) (Diagnostic, bool) {
		return l.rootNode("the file must be a mapping", "begin with services:"), true
	}},
	{lazy(`(?i)maximum node visit limit`), func(l *loading, _ []string) (Diagnostic, bool) {
		return l.rootNode(fmt.Sprintf("the file holds more than %d values", maxNodes), "split it, or move data into files"), true
	}},
	{lazy(`^invalid project name "(.*)":`), func(l *loading, m []string) (Diagnostic, bool) {
		return l.placed(Error, "name", fmt.Sprintf("%q is not a name for a stack", m[1]), nameHint), true
	}},
}

func (l *loading) translate(text string) (Diagnostic, bool) {
	for _, r := range rules {
		if m := r.pattern().FindStringSubmatch(text); m != nil {
			return r.apply(l, m)
		}
	}
	first, _, _ := strings.Cut(text, "\n")
	if path := l.anyPath(text); path != "" {
		return l.placed(Error, path, l.shortPaths(first), ""), true
	}
	return l.placed(Error, "", l.shortPaths(first), ""), false
}

// anyPath finds the longest attribute path that is mentioned in a text.
func (l *loading) anyPath(text string) string {
	best := ""
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" '\"`:,\n", r) }) {
		word = dotted(word)
		if strings.Contains(word, ".") && len(word) > len(best) && l.wrote(word) {
			best = word
		}
	}
	return best
}

// shortPaths shows files as the user does.
func (l *loading) shortPaths(text string) string {
	return strings.ReplaceAll(text, l.dir+"/", "")
}

func (l *loading) rootNode(message, hint string) Diagnostic {
	for _, s := range l.main {
		for _, doc := range s.docs {
			if len(doc.Content) > 0 {
				return s.node(Error, doc.Content[0], "", message, hint)
			}
		}
	}
	return l.main[0].at(Error, 1, 1, 1, "", message, hint)
}

var (
	bracketItem = lazy(`\.?\[(\d+)\]`)
	bracketKey  = lazy(`\[([^\]]+)\]`)
)

// dotted brings the loader's several forms of a path into ours:
// services[web].ports.[0] is services.web.ports.0. A list item without a
// number becomes its list.
func dotted(path string) string {
	path = bracketItem().ReplaceAllString(path, ".$1")
	path = bracketKey().ReplaceAllString(path, ".$1")
	path = strings.ReplaceAll(path, "👻", ".")
	if i := strings.Index(path, ".[]"); i >= 0 {
		path = path[:i]
	}
	return strings.Trim(path, ".")
}

// sourceOf finds a file by the name that the loader gives it.
func (l *loading) sourceOf(name string) *source {
	for _, u := range l.units {
		if u.src.path == name {
			return u.src
		}
	}
	for _, u := range l.units {
		if strings.HasSuffix(u.src.path, "/"+strings.TrimPrefix(name, "./")) {
			return u.src
		}
	}
	return nil
}

func ruleTopLevel(l *loading, m []string) (Diagnostic, bool) {
	key, _, _ := strings.Cut(strings.Trim(m[2], "'"), "'")
	return l.placed(Error, key, fmt.Sprintf("unknown attribute %q at the top level", key), ""), true
}

var (
	additional = lazy(`^(.*?) additional properties '([^']*)'`)
	falseness  = lazy(`^(.*) false schema$`)
	mustBe     = lazy(`^(\S+) must be an? (.*)$`)
	oneOf      = lazy(`^(\S+) value must be (?:one of )?(.*)$`)
	missing    = lazy(`^(\S+) missing propert(?:y|ies) (.*)$`)
	sentence   = lazy(`(?s)^(\S+) (.*)$`)
)

// ruleSchema reads the text of a schema error.
func ruleSchema(l *loading, m []string) (Diagnostic, bool) {
	file, text := m[1], m[2]
	// The file in which the loader noticed is searched first: with several
	// files the same path may stand in each.
	places := l.places
	if s := l.sourceOf(file); s != nil && s.places != nil {
		own := maps.Clone(l.places)
		maps.Copy(own, s.places)
		l.places = own
		defer func() { l.places = places }()
	}
	if m := additional().FindStringSubmatch(text); m != nil {
		path := dotted(m[1])
		return l.unknownAt(join(path, m[2]), m[2]), l.wrote(join(path, m[2]))
	}
	if m := falseness().FindStringSubmatch(text); m != nil {
		path := dotted(m[1])
		return l.unknownAt(path, path[strings.LastIndexByte(path, '.')+1:]), l.wrote(path)
	}
	if m := mustBe().FindStringSubmatch(text); m != nil {
		return l.typeError(dotted(m[1]), m[2]), true
	}
	if m := oneOf().FindStringSubmatch(text); m != nil {
		path := dotted(m[1])
		return l.placedValue(Error, path, subject(path)+" is not one of "+m[2], "write one of them"), true
	}
	if m := missing().FindStringSubmatch(text); m != nil {
		path := dotted(m[1])
		return l.placed(Error, path, subject(path)+" has no "+strings.Trim(m[2], "'"), "add "+strings.Trim(m[2], "'")+":"), true
	}
	if m := sentence().FindStringSubmatch(text); m != nil {
		path := dotted(m[1])
		return l.valueError(path, m[2]), l.wrote(path)
	}
	return l.placed(Error, "", text, ""), false
}

// valueWords are what the loader and its libraries say of a value that has
// the wrong form.
var valueWords = []struct {
	pattern func() *regexp.Regexp
	plain   string // after the value
	hint    string
}{
	{lazy(`^'(.*)' does not match pattern '\^\(always\|never`), "is no pull policy", "write always, missing, never or every_12h"},
	{lazy(`^'(.*)' does not match pattern`), "has the wrong form", ""},
	{lazy(`time: .*in duration "(.*)"`), "is not a duration", "write 30s, 1m30s or 2h"},
	{lazy(`invalid duration "?([^"]*)"?`), "is not a duration", "write 30s, 1m30s or 2h"},
	{lazy(`'(.*)' is not valid duration`), "is not a duration", "write 30s, 1m30s or 2h"},
	{lazy(`invalid size: '(.*)'`), "is not a size", "write 64m or 2g"},
	{lazy(`invalid suffix: '(.*)'`), "is not a unit of size", "write 64m or 2g"},
	{lazy(`strconv\.\w+: parsing "(.*)": invalid syntax`), "is not a number", "write digits"},
	{lazy(`strconv\.\w+: parsing "(.*)": value out of range`), "is too large", "write a smaller number"},
	{lazy(`invalid ip address: (.*)`), "is not an IP address", "write it as 127.0.0.1"},
	{lazy(`invalid additional host, missing IP: (.*)`), "has no address", "write NAME=ADDRESS"},
	{lazy(`: (-\S+) overflows uint$`), "is below zero", "write 0 or more"},
}

func (l *loading) valueError(path, text string) Diagnostic {
	switch {
	case strings.Contains(text, "unexpected type map"), strings.Contains(text, "invalid type map"), strings.Contains(text, "invalid type []"):
		return l.placedValue(Error, path, subject(path)+" has the wrong form", "write it as text, or as its long form in the reference")
	case strings.HasSuffix(text, "are equal") && strings.HasPrefix(text, "items at "):
		return l.placedValue(Error, path, subject(path)+" holds one entry twice", "remove one of them")
	}
	for _, w := range valueWords {
		if m := w.pattern().FindStringSubmatch(text); m != nil {
			return l.placedValue(Error, path, fmt.Sprintf("%s: %q %s", subject(path), m[1], w.plain), w.hint)
		}
	}
	return l.placedValue(Error, path, subject(path)+": "+l.shortPaths(text), "")
}

func (l *loading) unknownAt(path, key string) Diagnostic {
	parent := strings.TrimSuffix(strings.TrimSuffix(path, key), ".")
	if kinds := "services networks volumes configs secrets models jobs"; parent != "" && strings.Contains(" "+kinds+" ", " "+parent+" ") {
		return l.placed(Error, path, fmt.Sprintf("%q is not a name for a %s", key, strings.TrimSuffix(parent, "s")),
			"use letters, digits, '.', '_' and '-'")
	}
	return l.placed(Error, path, fmt.Sprintf("unknown attribute %q %s", key, whereIn(path, key)), "remove it, or begin its name with x-")
}

// subject names an attribute in a sentence: "ports of service web".
func subject(path string) string {
	parts := strings.SplitN(path, ".", 3)
	kind := strings.TrimSuffix(parts[0], "s")
	switch len(parts) {
	case 1:
		return parts[0]
	case 2:
		return kind + " " + parts[1]
	}
	return parts[2] + " of " + kind + " " + parts[1]
}

// kinds are the words of the schema for types, in words of YAML, with a
// sample of how to write one.
var kinds = map[string][2]string{
	"array":                           {"a list", "write the entries as lines that begin with -"},
	"mapping":                         {"a mapping", "write NAME: value"},
	"string":                          {"text", "put the value in quotes"},
	"integer":                         {"a whole number", "write digits without quotes"},
	"number":                          {"a number", "write digits"},
	"boolean":                         {"true or false", "write true or false"},
	"integer or string":               {"a whole number", "write digits"},
	"boolean or string":               {"true or false", "write true or false"},
	"number or string":                {"a number", "write digits"},
	"array or string":                 {"text or a list of texts", "put the value in quotes"},
	"array, null or string":           {"text or a list of texts", "put the value in quotes"},
	"mapping or null":                 {"a mapping", "write NAME: value"},
	"null":                            {"text or a list of texts", "write it as one text, or as lines that begin with -"},
	"boolean, null, number or string": {"one value, not a list or mapping", "write NAME: value"},
}

var (
	durations = lazy(`\.(interval|timeout|start_period|start_interval|stop_grace_period|delay|monitor|window)$`)
	noSpace   = lazy(`^(-|[A-Za-z_]+:)\S`)
)

func (l *loading) typeError(path, want string) Diagnostic {
	if p, found, ok := l.places.nearest(path); ok && found == path && p.value != nil {
		switch v := resolve(p.value); {
		case v.Tag == "!!null":
			return l.placed(Error, path, subject(path)+" has no value", "write one, or remove it")
		case durations().MatchString(path) && v.Kind == yaml.ScalarNode:
			return l.placedValue(Error, path, fmt.Sprintf("%s: %q is not a duration", subject(path), v.Value), "write 30s, 1m30s or 2h")
		case v.Kind == yaml.ScalarNode && v.Style == 0 && noSpace().MatchString(v.Value) && (want == "mapping" || want == "array"):
			return p.src.node(Error, v, path, subject(path)+" is a text, not "+kinds[want][0], `write a space behind the ":" or "-"`)
		}
	}
	if want == "string" && strings.HasSuffix(path, ".oom_score_adj") {
		// The schema takes any text, or a number within bounds.
		return l.placedValue(Error, path, subject(path)+" must be a number from -1000 to 1000", "write -1000 to 1000")
	}
	words, ok := kinds[want]
	if !ok {
		words = [2]string{"a value of type " + want, ""}
	}
	return l.placedValue(Error, path, subject(path)+" must be "+words[0], words[1])
}

var castError = lazy(`parsing "(.*)": (.*)$`)

func ruleInterpolate(l *loading, m []string) (Diagnostic, bool) {
	path, text := dotted(m[1]), m[2]
	if rest, ok := strings.CutPrefix(text, "required variable "); ok {
		name, reason, _ := strings.Cut(rest, " is missing a value")
		return l.placedValue(Error, path, "the variable "+name+" is required but not set"+reason,
			"set "+name+" in the environment or in .env"), true
	}
	if rest, ok := strings.CutPrefix(text, "failed to cast to expected type: "); ok {
		if m := castError().FindStringSubmatch(rest); m != nil {
			return l.placedValue(Error, path, fmt.Sprintf("%s: %q is not a number", subject(path), m[1]), "write digits"), true
		}
		if value, ok := strings.CutPrefix(rest, "invalid boolean: "); ok {
			return l.placedValue(Error, path, fmt.Sprintf("%s: %q is not true or false", subject(path), value), "write true or false"), true
		}
		text = rest
	}
	return l.valueError(path, text), true
}

func ruleExtendsCycle(l *loading, m []string) (Diagnostic, bool) {
	var names []string
	for _, line := range strings.Split(m[1], "\n") {
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "extends "), " in ")
		names = append(names, name)
	}
	// The loader begins anywhere in the circle; begin at the first name.
	ring := names[:max(1, len(names)-1)]
	for range ring {
		if ring[0] == slices.Min(ring) {
			break
		}
		ring = append(ring[1:], ring[0])
	}
	names = append(slices.Clone(ring), ring[0])
	return l.placed(Error, "services."+names[0]+".extends", "extends goes in a circle: "+strings.Join(names, " → "),
		"remove one of the extends"), true
}

func ruleOpen(l *loading, m []string) (Diagnostic, bool) {
	message := l.show(m[1]) + " does not exist"
	if !strings.HasPrefix(m[2], "no such file") {
		message = l.show(m[1]) + " cannot be read: " + m[2]
	}
	if _, ok := l.places["include"]; ok {
		return l.placed(Error, "include", "include: "+message, "make the file, or correct the path"), true
	}
	return l.placed(Error, "", message, "make the file, or correct the path"), false
}

func ruleDecode(l *loading, m []string) (Diagnostic, bool) {
	path := dotted(m[1])
	return l.valueError(path, m[2]), true
}

func rulePath(l *loading, m []string) (Diagnostic, bool) {
	path := dotted(m[1])
	message, hint := m[2], ""
	switch {
	case strings.HasPrefix(message, "one of "):
		keys := strings.Split(strings.TrimSuffix(strings.TrimPrefix(message, "one of "), " must be set"), "|")
		message, hint = subject(path)+" has no content", "give it with "+strings.Join(keys, ", ")+" or say external: true"
	case strings.Contains(message, "attributes are mutually exclusive"):
		keys, _, _ := strings.Cut(message, " attributes")
		message, hint = subject(path)+" has more than one of "+strings.ReplaceAll(keys, "|", ", "), "keep one"
	case strings.HasPrefix(message, "conflicting parameters"):
		key := strings.TrimSuffix(message[strings.LastIndex(message, ` and "`)+6:], `" specified`)
		message, hint = fmt.Sprintf("%s is external, so %s has no effect", subject(path), key), "remove one of the two"
	case strings.HasPrefix(message, "invalid type "):
		return l.valueError(path, message), true
	default:
		message = subject(path) + ": " + message
	}
	return l.placed(Error, path, message, hint), true
}

func ruleMount(l *loading, m []string) (Diagnostic, bool) {
	key := strings.ToLower(m[2])
	for _, path := range sortedKeys(l.places) {
		p := l.places[path]
		if !strings.HasPrefix(path, "services.") || !strings.Contains(path, ".volumes.") || p.value == nil {
			continue
		}
		if t := get(p.value, "type"); t != nil && t.Value == m[1] {
			if v := get(p.value, key); v == nil || v.Value == "" {
				return l.placed(Error, path, "the "+m[1]+" has no "+key, "write "+key+":"), true
			}
		}
	}
	return l.placed(Error, "services", "a "+m[1]+" has no "+key, "write "+key+":"), false
}

// syntax places an error of the YAML parser.
func (l *loading) syntax(s *source, text string) Diagnostic {
	if s == nil {
		for _, u := range l.units {
			if u.src.docs == nil {
				s = u.src
				break
			}
		}
	}
	if s == nil {
		s = l.main[0]
	}
	return s.syntax(text)
}
