package spec

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// syntaxAt improves what a YAML parser says: parsers notice a mistake later
// than where it is, and say it in their own terms.
func (s *source) syntaxAt(line, col int, text string) Diagnostic {
	if m := alreadyKey.FindStringSubmatch(text); m != nil {
		d := s.lineAt(line, fmt.Sprintf("%s is written twice: first in line %s", m[1], m[2]), "keep one of them")
		return d
	}
	if bad, badCol := s.invalidText(); bad > 0 {
		return s.at(Error, bad, badCol, 1, "", "the file is not UTF-8 text here", "save it as UTF-8")
	}
	if tab := s.tabIndent(line); tab > 0 {
		return s.at(Error, tab, 1+strings.IndexByte(s.lines[tab-1], '\t'), 1, "", "a tab stands where YAML wants spaces",
			"indent with spaces")
	}
	if line < 1 || line > len(s.lines) {
		line = s.lastLine()
	}
	hint := syntaxHint(text)
	if col > 0 {
		return s.at(Error, line, min(col, len(s.lines[line-1])+1), 1, "", "YAML: "+plainSyntax(text), hint)
	}
	return s.lineAt(line, "YAML: "+plainSyntax(text), hint)
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

// syntaxWords are the parser's phrases, what they mean to a person who writes
// Compose files, and what to do.
var syntaxWords = []struct{ phrase, plain, hint string }{
	{"mapping values are not allowed", "a second \": \" stands in this line", "put the value in quotes, or begin a new line"},
	{"did not find expected key", "this line does not fit the ones above it", "check its indentation, and quotes and brackets above"},
	{"did not find expected '-'", "this line should begin with - like the ones above it", "check its indentation"},
	{"did not find expected ',' or", "a bracket is not closed", "close it with ] or }"},
	{"could not find expected ':'", "a \":\" is missing", "write NAME: value"},
	{"found unexpected end of stream", "a quote is not closed", "close it"},
	{"cannot start any token", "a character stands where none can", "put the value in quotes"},
	{"found undefined tag", "an unknown tag", "remove the word that begins with !"},
	{"unknown anchor", "an alias without an anchor", "write &NAME where the value stands"},
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
