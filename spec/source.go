package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFile is the size up to which an env file or label file is read, maxYAML
// that of a Compose file: its parser needs ten times as much memory.
const (
	maxFile = 10 << 20
	maxYAML = 2 << 20
)

// source is one YAML file as it was read, once: what is shown, indexed and
// loaded are the same bytes.
type source struct {
	path  string // absolute, or "-"
	shown string // as diagnostics name it
	data  []byte
	lines []string
	docs  []*yaml.Node
	// huge is the line up to which the file holds more than can be parsed in
	// reasonable memory; 0: it does not.
	huge int
	// repaired, when not nil, is what the loader reads instead of data; see
	// repairs.
	repaired []byte
	// refused is yaml.v3's error when it cannot parse the file.
	refused string
	// places is the index of this file alone; see index.
	places index
}

// readSource reads a Compose file, of at most maxYAML bytes. The error is for
// the caller to place: it starts with what is wrong, in words for a user.
func readSource(path, shown string) (*source, error) {
	data, err := readRegular(path, maxYAML)
	if err != nil {
		return nil, err
	}
	return newSource(path, shown, data), nil
}

func newSource(path, shown string, data []byte) *source {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	s := &source{path: path, shown: shown, data: data}
	if s.huge = overfull(data); s.huge > 0 {
		return s // nothing more is asked of it
	}
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	s.lines = strings.Split(text, "\n")
	return s
}

// loaded is what the loader reads.
func (s *source) loaded() []byte {
	if s.repaired != nil {
		return s.repaired
	}
	return s.data
}

// parse fills docs. Its error is yaml.v3's; the loader's own is more exact
// and is preferred by the caller.
func (s *source) parse() error {
	dec := yaml.NewDecoder(bytes.NewReader(s.data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			s.docs, s.refused = nil, err.Error()
			return fmt.Errorf("parse %s: %w", s.shown, err)
		}
		s.docs = append(s.docs, &doc)
	}
}

// wide says that the file is UTF-16: the parser takes it, but no place in it
// could be shown.
func (s *source) wide() bool {
	return bytes.HasPrefix(s.data, []byte("\xff\xfe")) || bytes.HasPrefix(s.data, []byte("\xfe\xff"))
}

// at makes a diagnostic about width bytes at a place of s.
func (s *source) at(sev Severity, line, col, width int, path, message, hint string) Diagnostic {
	return Diagnostic{
		Severity: sev,
		Position: Position{File: s.shown, Line: line, Col: col},
		Path:     path,
		Message:  message,
		Hint:     hint,
		Excerpt:  excerpt(s.lines, line, col, width),
	}
}

// node makes a diagnostic about a YAML node of s.
func (s *source) node(sev Severity, n *yaml.Node, path, message, hint string) Diagnostic {
	width := len(n.Value)
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		width = 1
	} else if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		width += 2
	}
	if n.Kind == yaml.AliasNode {
		width = len(n.Value) + 1
	}
	if n.Line <= len(s.lines) && n.Line > 0 {
		if rest := len(s.lines[n.Line-1]) - n.Column + 1; width > rest {
			width = max(1, rest)
		}
	}
	return s.at(sev, n.Line, s.byteCol(n), width, path, message, hint)
}

// byteCol turns yaml.v3's column, which counts characters, into bytes.
func (s *source) byteCol(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(s.lines) {
		return n.Column
	}
	chars := 1
	for i := range s.lines[n.Line-1] {
		if chars == n.Column {
			return i + 1
		}
		chars++
	}
	return n.Column
}

// showPath is how diagnostics name a file: relative to dir where it is below
// it, else absolute.
func showPath(dir, path string) string {
	if path == "-" {
		return "<stdin>"
	}
	rel, err := filepath.Rel(dir, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return path
	}
	return rel
}

// readRegular reads a file of at most limit bytes and refuses what could
// block or never end: FIFOs, devices, folders.
func readRegular(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fileProblem(path, err)
	}
	if info.IsDir() {
		return nil, &fileError{path, "is a directory, not a file"}
	}
	if !info.Mode().IsRegular() {
		return nil, &fileError{path, "is not a regular file"}
	}
	if info.Size() > limit {
		return nil, &fileError{path, fmt.Sprintf("is %s; the limit is %s", size(info.Size()), size(limit))}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fileProblem(path, err)
	}
	defer f.Close()
	var buf bytes.Buffer
	buf.Grow(int(info.Size()) + bytes.MinRead)
	if _, err := buf.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, fileProblem(path, err)
	}
	data := buf.Bytes()
	if int64(len(data)) > limit {
		return nil, &fileError{path, fmt.Sprintf("is larger than the limit of %s", size(limit))}
	}
	return data, nil
}

// fileError says in a user's words why a file cannot be used.
type fileError struct {
	path   string
	reason string
}

func (e *fileError) Error() string { return e.path + " " + e.reason }

func fileProblem(path string, err error) error {
	switch {
	case os.IsNotExist(err):
		return &fileError{path, "does not exist"}
	case os.IsPermission(err):
		return &fileError{path, "cannot be read: permission denied"}
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		return &fileError{path, "cannot be read: " + pe.Err.Error()}
	}
	return &fileError{path, "cannot be read: " + err.Error()}
}

func size(n int64) string {
	const unit = 1 << 10
	switch {
	case n >= unit*unit:
		return fmt.Sprintf("%.4g MiB", float64(n)/unit/unit)
	case n >= unit:
		return fmt.Sprintf("%.4g KiB", math.Ceil(float64(n)/unit*10)/10) // up: it is never the limit that it is above
	}
	return fmt.Sprintf("%d bytes", n)
}
