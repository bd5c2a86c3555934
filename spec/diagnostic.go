package spec

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// Position is a place in a user's file. Line and Col count from 1; Col counts
// bytes. Line 0 means the file as a whole, such as one that is missing.
type Position struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
}

// String gives file:line:col, as editors and terminals understand it, or only
// the file when there is no line.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Severity of a Diagnostic.
type Severity int

// Severities. Ignored marks an attribute that is parsed but not honoured.
const (
	Error Severity = iota + 1
	Warning
	Ignored
)

// String is the word that precedes a message.
func (s Severity) String() string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	case Ignored:
		return "ignored"
	}
	return fmt.Sprintf("Severity(%d)", int(s))
}

// Diagnostic is one finding about a Compose file.
type Diagnostic struct {
	Severity Severity `json:"-"`
	Position          // File is relative to the user's folder where it is below it
	// Path is the attribute, such as "services.web.ports.0".
	Path    string `json:"path"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	// Excerpt is up to three source lines around the place; the last one is
	// the marker, without the hint.
	Excerpt string `json:"-"`
}

// Error makes a Diagnostic an error: one line, `file:line:col: message`.
func (d Diagnostic) Error() string {
	if d.File == "" {
		return d.Message
	}
	return d.String() + ": " + d.Message
}

// Diagnostics are sorted by file, line, column.
type Diagnostics []Diagnostic

// Errors reports whether any of ds is an error.
func (ds Diagnostics) Errors() bool { return ds.Has(Error) }

// Has reports whether any of ds has severity s.
func (ds Diagnostics) Has(s Severity) bool {
	return slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Severity == s })
}

// Filter gives those of ds that have severity s, in order.
func (ds Diagnostics) Filter(s Severity) Diagnostics {
	var out Diagnostics
	for _, d := range ds {
		if d.Severity == s {
			out = append(out, d)
		}
	}
	return out
}

// Strict turns what is ignored into errors: `berth lint --strict`.
func (ds Diagnostics) Strict() Diagnostics {
	out := slices.Clone(ds)
	for i := range out {
		if out[i].Severity == Ignored {
			out[i].Severity = Error
		}
	}
	return out
}

// Err joins the errors of ds, one line each; nil if there is none.
func (ds Diagnostics) Err() error {
	var all *multierror.Error
	for _, d := range ds {
		if d.Severity == Error {
			all = multierror.Append(all, d)
		}
	}
	if all == nil {
		return nil
	}
	all.ErrorFormat = func(errs []error) string {
		return strings.TrimSuffix(errors.Join(errs...).Error(), "\n")
	}
	return all
}

const (
	colorReset  = "\x1b[0m"
	colorBold   = "\x1b[1m"
	colorRed    = "\x1b[31m"
	colorYellow = "\x1b[33m"
	colorCyan   = "\x1b[36m"
)

var severityColor = map[Severity]string{Error: colorRed, Warning: colorYellow, Ignored: colorCyan}

// Format writes ds for a person: the line `file:line:col: message`, the
// excerpt, and the hint behind the marker. Warnings and what is ignored carry
// the word before the message; errors are the norm and do not.
func (ds Diagnostics) Format(w io.Writer, color bool) error {
	for _, d := range ds {
		if _, err := io.WriteString(w, d.format(color)); err != nil {
			return fmt.Errorf("write diagnostics: %w", err)
		}
	}
	return nil
}

func (d Diagnostic) format(color bool) string {
	paint := func(code, s string) string {
		if !color || s == "" {
			return s
		}
		return code + s + colorReset
	}
	var b strings.Builder
	if d.File != "" {
		b.WriteString(paint(colorBold, printable(d.String())) + ": ")
	}
	if d.Severity != Error {
		b.WriteString(paint(severityColor[d.Severity], d.Severity.String()) + ": ")
	}
	b.WriteString(printable(d.Message) + "\n")
	hint := printable(d.Hint)
	switch {
	case d.Excerpt == "" && hint != "":
		b.WriteString("hint: " + hint + "\n")
	case d.Excerpt != "":
		source, marker := d.Excerpt, ""
		if i := strings.LastIndexByte(d.Excerpt, '\n'); i >= 0 {
			source, marker = d.Excerpt[:i+1], d.Excerpt[i+1:]
		}
		line := marker
		if hint != "" {
			line += " " + hint
		}
		b.WriteString(source + paint(severityColor[d.Severity], line) + "\n")
	}
	return b.String()
}

// Lines writes one line for each of ds: what `up` prints about attributes
// that are not honoured.
func (ds Diagnostics) Lines(w io.Writer) error {
	for _, d := range ds {
		line := printable(d.Error())
		if d.Hint != "" {
			line += "; " + printable(d.Hint)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return fmt.Errorf("write diagnostics: %w", err)
		}
	}
	return nil
}

// report is the stable form of `berth lint --format json`. Each list is
// present, if empty.
type report struct {
	Errors   Diagnostics `json:"errors"`
	Warnings Diagnostics `json:"warnings"`
	Ignored  Diagnostics `json:"ignored"`
}

// JSON is the form of `berth lint --format json`:
// {"errors":[…],"warnings":[…],"ignored":[…]}, each entry with file, line,
// col, path, message and, where there is one, hint.
func (ds Diagnostics) JSON() ([]byte, error) {
	list := func(s Severity) Diagnostics {
		if out := ds.Filter(s); out != nil {
			return out
		}
		return Diagnostics{}
	}
	b, err := json.MarshalIndent(report{list(Error), list(Warning), list(Ignored)}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode diagnostics: %w", err)
	}
	return append(b, '\n'), nil
}

// sorted orders ds by file, line, column, then severity and text, and drops
// what is said twice about one place.
func (ds Diagnostics) sorted() Diagnostics {
	slices.SortStableFunc(ds, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col),
			cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Message, b.Message),
		)
	})
	return slices.CompactFunc(ds, func(a, b Diagnostic) bool {
		return a.Position == b.Position && a.Severity == b.Severity && a.Message == b.Message
	})
}
