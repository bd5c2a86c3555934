package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// JSON is text, which is valid JSON, without values in its strings. Numbers
// and points in time stay, so that it can be read as what it was.
func (s *Set) JSON(text []byte) []byte {
	if len(find(s, text)) == 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for {
		from := bytes.IndexByte(text, '"')
		if from < 0 {
			return append(out, text...)
		}
		to := from + 1
		for to < len(text) && text[to] != '"' {
			if text[to] == '\\' {
				to++
			}
			to++
		}
		to = min(to+1, len(text))
		out = append(out, text[:from]...)
		out = append(out, s.token(text[from:to])...)
		text = text[to:]
	}
}

// token is one string of JSON without values.
func (s *Set) token(text []byte) []byte {
	var was string
	if json.Unmarshal(text, &was) != nil {
		return s.Bytes(text)
	}
	is := s.Text(was)
	if is == was {
		return text
	}
	if _, err := time.Parse(time.RFC3339Nano, was); err == nil {
		return text
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(is) // a string always encodes
	return bytes.TrimSpace(out.Bytes())
}

// YAML is text, which is valid YAML, without values in its scalars, however
// they are folded, quoted and indented.
func (s *Set) YAML(text []byte) []byte {
	if s.Len() == 0 {
		return text
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil || !s.scalars(&doc) {
		return s.Bytes(text)
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return s.Bytes(text)
	}
	return out.Bytes()
}

// scalars redacts the scalars below n and says whether there was anything.
func (s *Set) scalars(n *yaml.Node) bool {
	found := false
	if n.Kind == yaml.ScalarNode {
		if text := s.Text(n.Value); text != n.Value {
			n.Value, n.Tag, n.Style, found = text, "!!str", 0, true
		}
	}
	for _, c := range n.Content {
		found = s.scalars(c) || found
	}
	return found
}

// Writer redacts what is written to w. Each write has to be whole: a record of
// a log, a line.
func (s *Set) Writer(w io.Writer) io.Writer { return &writer{s, w} }

type writer struct {
	s *Set
	w io.Writer
}

// Write writes p without values.
func (w *writer) Write(p []byte) (int, error) {
	if _, err := w.w.Write(w.s.Bytes(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Guard is deferred first in a goroutine: it ends the process on a panic as Go does,
// with exit code 2, but says what it says without values, nor the arguments of
// the calls. Without a Set it does nothing.
func (s *Set) Guard() {
	if s == nil {
		return
	}
	p := recover()
	if p == nil {
		return
	}
	var text strings.Builder
	fmt.Fprintf(&text, "panic: %v\n\n", p)
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		fmt.Fprintf(&text, "%s(...)\n\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			break
		}
	}
	_, _ = io.WriteString(os.Stderr, s.Text(text.String())) // there is no other way to tell
	os.Exit(2)
}
