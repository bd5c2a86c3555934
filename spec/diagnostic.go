package spec

import "fmt"

// Position is a place in a user's file. Line and Col count from 1; Col counts
// bytes.
type Position struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
}

// String gives file:line:col.
func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// Severity of a Diagnostic.
type Severity int

// Severities. Ignored marks an attribute that is parsed but not honoured.
const (
	Error Severity = iota + 1
	Warning
	Ignored
)

// Diagnostic is one finding about a Compose file.
type Diagnostic struct {
	Severity Severity `json:"-"`
	Position          // File is relative to the user's folder where it is below it
	// Path is the attribute, such as "services.web.ports.0".
	Path    string `json:"path"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	// Excerpt is up to three source lines around the place, with a marker.
	Excerpt string `json:"-"`
}

// Diagnostics are sorted by file, line, column.
type Diagnostics []Diagnostic
