package cli

import (
	"fmt"
	"strings"

	"berth/api"
)

// findingMarks are what stands before a finding, and its style.
var findingMarks = map[string]struct {
	mark  string
	style Style
}{
	api.FindingOK:      {"✓", Good},
	api.FindingWarning: {"!", Caution},
	api.FindingBroken:  {"✗", Bad},
}

// WriteFindings writes what the doctor found, a line each, with what to do
// below, and says whether something is broken.
func WriteFindings(s Screen, findings []api.Finding) (broken bool, err error) {
	columns, warnings, faults := 0, 0, 0
	for _, f := range findings {
		columns = max(columns, width(Escape(f.Check)))
	}
	var b strings.Builder
	for _, f := range findings {
		m, known := findingMarks[f.Status]
		if !known {
			m.mark = "?"
		}
		fmt.Fprintf(&b, "%s %s  %s\n", s.Paint(m.style, m.mark), pad(Escape(f.Check), columns), Escape(f.Detail))
		if f.Hint != "" {
			fmt.Fprintf(&b, "  %s  → %s\n", pad("", columns), Escape(f.Hint))
		}
		switch f.Status {
		case api.FindingWarning:
			warnings++
		case api.FindingBroken:
			faults++
		}
	}
	switch {
	case faults > 0:
		fmt.Fprintf(&b, "%d broken, %s\n", faults, plural(warnings, "warning"))
	case warnings > 0:
		fmt.Fprintf(&b, "nothing is broken, %s\n", plural(warnings, "warning"))
	default:
		b.WriteString("nothing is broken\n")
	}
	_, err = fmt.Fprint(s, b.String())
	return faults > 0, err
}
