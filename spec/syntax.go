package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

var (
	inContext  = lazy(`^while (parsing|scanning) (.*?) at (?:line (\d+)(?:, column (\d+))?|<unknown position>): (?:line (\d+)(?:, column (\d+))?: )?(.*)$`)
	lineColumn = lazy(`^line (\d+)(?:, column (\d+))?: (.*)$`)
)

// syntax says in a user's words, and at the right place, what a YAML parser
// found. The parser of the loader gives the place of the construct and of the
// problem; what its grammar finds ("while parsing") is one line low, what its
// scanner finds is not.
func (s *source) syntax(text string) Diagnostic {
	text = strings.ReplaceAll(strings.TrimPrefix(text, "yaml: "), "construct errors:", "")
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	line, col := 0, 0
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	if m := inContext().FindStringSubmatch(text); m != nil {
		low := 0
		if m[1] == "parsing" {
			low = 1
		}
		line, col = number(m[5])+low, number(m[6])
		// What is open is told by where it was opened.
		opened := strings.HasPrefix(m[2], "a flow") || strings.HasPrefix(m[2], "a simple key") ||
			strings.Contains(m[7], "end of stream")
		if m[3] != "" && (opened || m[5] == "") {
			line, col = number(m[3])+low, number(m[4])
		}
		if m[3] == "" && m[5] == "" {
			line, col = s.refusedLine(), 0
		}
		text = m[7]
	} else {
		for m := lineColumn().FindStringSubmatch(text); m != nil; m = lineColumn().FindStringSubmatch(text) {
			line, col, text = number(m[1]), number(m[2]), strings.TrimPrefix(m[3], "yaml: ")
		}
	}
	return s.syntaxAt(line, col, text)
}

// refusedLine is the line of yaml.v3's error, which is one low.
func (s *source) refusedLine() int {
	if i := strings.Index(s.refused, "line "); i >= 0 {
		n, _ := strconv.Atoi(identifierOf(s.refused[i+5:]))
		return n + 1
	}
	return 0
}

func identifierOf(s string) string {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return s
	}
	return s[:end]
}

// malformed finds what the parser takes and the loader does not: a key that
// is written twice, a key that is no text. These are sure to fail wherever
// they stand.
func (s *source) malformed() Diagnostics {
	var out Diagnostics
	var check func(n *yaml.Node)
	check = func(n *yaml.Node) {
		if n.Kind == yaml.MappingNode {
			first := map[string]*yaml.Node{}
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := n.Content[i]
				if k := resolve(key).Kind; k != yaml.ScalarNode {
					out = append(out, s.node(Error, key, "", "a mapping or list stands where a name should",
						"if {{ … }} belongs to another tool's template, fill it first, or put it in quotes"))
					continue
				}
				if before, ok := first[key.Value]; ok {
					out = append(out, s.node(Error, key, "", fmt.Sprintf("%q is written twice (%s:%d:%d)", key.Value, s.shown,
						before.Line, s.byteCol(before)), "keep one of them"))
					continue
				}
				first[key.Value] = key
				if key.Value == "<<" && key.Style == 0 && !mergeable(n.Content[i+1]) {
					out = append(out, s.node(Error, key, "", "<< takes a mapping", "write <<: *ANCHOR"))
				}
			}
		}
		for _, c := range n.Content {
			check(c)
		}
	}
	for _, doc := range s.docs {
		check(doc)
	}
	return out
}

// mergeable says that a merge key can take n: a mapping, or a list of them.
func mergeable(n *yaml.Node) bool {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		return n.Kind == yaml.MappingNode
	}
	return !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return resolve(c).Kind != yaml.MappingNode })
}

// syntaxAt looks for the usual causes near a place before it repeats what the
// parser said.
func (s *source) syntaxAt(line, col int, text string) Diagnostic {
	if bad, badCol := s.invalidText(); bad > 0 {
		return s.at(Error, bad, badCol, 1, "", "the file is not UTF-8 text here", "save it as UTF-8")
	}
	if line, col := s.controlText(); line > 0 {
		return s.at(Error, line, col, 1, "", "a control character stands here", "remove it")
	}
	if d, ok := s.foreign(); ok {
		return d
	}
	if tab := s.tabIndent(line); tab > 0 {
		return s.at(Error, tab, 1+strings.IndexByte(s.lines[tab-1], '\t'), 1, "", "a tab stands where YAML wants spaces",
			"indent with spaces")
	}
	if strings.Contains(text, "mapping values are not allowed") && s.lacksColon(line-1) {
		return s.lineAt(line-1, "YAML: a \":\" is missing", "write NAME: value")
	}
	if strings.Contains(text, "unknown anchor") {
		col-- // the parser is behind the star
	}
	hint := syntaxHint(text)
	if line < 1 || line > len(s.lines) || col < 1 {
		return s.lineAt(line, "YAML: "+plainSyntax(text), hint)
	}
	col = s.byteCol(&yaml.Node{Line: line, Column: col})
	return s.at(Error, line, min(col, len(s.lines[line-1])+1), 1, "", "YAML: "+plainSyntax(text), hint)
}

// lacksColon says that a line is a bare word, so that what is below it cannot
// belong to it.
func (s *source) lacksColon(line int) bool {
	if line < 1 || line > len(s.lines) {
		return false
	}
	text := strings.TrimSpace(s.lines[line-1])
	return text != "" && !strings.ContainsAny(text, ":#\"' ") && !strings.HasPrefix(text, "-")
}

// lineAt marks all of a line but its indentation.
func (s *source) lineAt(line int, message, hint string) Diagnostic {
	if line < 1 || line > len(s.lines) {
		line = s.lastLine()
	}
	text := s.lines[line-1]
	indent := len(text) - len(strings.TrimLeft(text, " \t"))
	return s.at(Error, line, indent+1, max(1, len(strings.TrimSpace(text))), "", message, hint)
}

func (s *source) lastLine() int {
	n := len(s.lines)
	for n > 1 && strings.TrimSpace(s.lines[n-1]) == "" {
		n--
	}
	return n
}

// tabIndent finds a tab in the indentation of line or of one near it.
func (s *source) tabIndent(line int) int {
	for _, n := range []int{line, line + 1, line - 1} {
		if n < 1 || n > len(s.lines) {
			continue
		}
		text := s.lines[n-1]
		if strings.Contains(text[:len(text)-len(strings.TrimLeft(text, " \t"))], "\t") {
			return n
		}
	}
	return 0
}

func (s *source) invalidText() (line, col int) {
	for i, text := range s.lines {
		if utf8.ValidString(text) && !strings.ContainsRune(text, 0) {
			continue
		}
		for j, r := range text {
			if r == 0 || r == utf8.RuneError {
				return i + 1, j + 1
			}
		}
	}
	return 0, 0
}

// controlText finds a character that YAML does not take.
func (s *source) controlText() (line, col int) {
	for i, text := range s.lines {
		for j := range len(text) {
			if c := text[j]; (c < ' ' && c != '\t' && c != '\r') || c == 0x7f {
				return i + 1, j + 1
			}
		}
	}
	return 0, 0
}

// foreign finds lines that come from a tool and belong in no YAML file.
func (s *source) foreign() (Diagnostic, bool) {
	for i, text := range s.lines {
		trimmed := strings.TrimSpace(text)
		switch {
		case strings.HasPrefix(text, "<<<<<<< "), strings.HasPrefix(text, ">>>>>>> "):
			return s.lineAt(i+1, "the mark of a merge conflict", "choose one of the two sides and remove the marks"), true
		case strings.HasPrefix(trimmed, "{{"), strings.HasPrefix(trimmed, "{%"):
			return s.lineAt(i+1, "a line of another tool's template", "fill the template first"), true
		case i == 0 && strings.HasPrefix(trimmed, "<"):
			return s.lineAt(1, "this is a web page or XML, not a Compose file", "download the file itself"), true
		}
	}
	return Diagnostic{}, false
}

// syntaxWords are the parser's phrases, what they mean to a person who writes
// Compose files, and what to do.
var syntaxWords = []struct{ phrase, plain, hint string }{
	{"mapping values are not allowed", "a second \": \" stands in this line", "put the value in quotes, or begin a new line"},
	{"did not find expected key", "this line does not fit the ones above it", "check its indentation, and quotes and brackets above"},
	{"did not find expected '-'", "this line should begin with - like the ones above it", "check its indentation"},
	{"unknown directive", "a line cannot begin with %", "put it in quotes"},
	{"unknown escape character", "an unknown escape behind a backslash", "use single quotes, which keep backslashes"},
	{"map merge requires", "<< takes a mapping", "write <<: *ANCHOR"},
	{"invalid base64", "!!binary takes base64", "remove !!binary"},
	{"did not find expected ',' or", "a bracket is not closed", "close it with ] or }"},
	{"could not find expected ':'", "a \":\" is missing", "write NAME: value"},
	{"found unexpected end of stream", "a quote is not closed", "close it"},
	{"cannot start any token", "a character stands where none can", "put the value in quotes"},
	{"found undefined tag", "an unknown tag", "remove the word that begins with !"},
	{"unknown anchor", "an alias without an anchor", "write &NAME where the value stands; put text that begins with * in quotes"},
	{"excessive aliasing", "its aliases would fill the memory", "use fewer aliases inside anchors"},
	{"block sequence entries are not allowed", "a list cannot begin here", "begin it on its own line"},
	{"did not find expected node content", "a value is missing", "check brackets and commas"},
}

func plainSyntax(text string) string {
	for _, w := range syntaxWords {
		if strings.Contains(text, w.phrase) {
			return w.plain
		}
	}
	return text
}

func syntaxHint(text string) string {
	for _, w := range syntaxWords {
		if strings.Contains(text, w.phrase) {
			return w.hint
		}
	}
	return ""
}
