package cli

import (
	"io"
	"strings"

	"berth/api"
)

// WriteExplanation writes why a service is as it is: a line that sums it up,
// a line per task, then what stands in the way.
func WriteExplanation(s Screen, e api.Explanation) error {
	var b strings.Builder
	b.WriteString(s.Paint(Bold, Escape(e.Service)+": "+Escape(e.Summary)) + "\n")
	columns := 0
	for _, list := range [][]api.Cause{e.Tasks, e.Causes} {
		for _, c := range list {
			columns = max(columns, width(Escape(c.Subject)))
		}
	}
	for _, c := range e.Tasks {
		style := Bad
		if c.Well {
			style = Good
		}
		writeCause(&b, s, c, columns, style)
	}
	for _, c := range e.Causes {
		writeCause(&b, s, c, columns, Caution)
	}
	_, err := io.WriteString(s, b.String())
	return err
}

func writeCause(b *strings.Builder, s Screen, c api.Cause, columns int, style Style) {
	place := ""
	if c.Position != nil {
		place = "  " + s.Paint(Dim, Escape(c.Position.String()))
	}
	b.WriteString("  " + s.Paint(style, pad(Escape(c.Subject), columns)) + "  " + Escape(c.Text) + place + "\n")
	below := func(text string) { b.WriteString("  " + pad("", columns) + "  " + text + "\n") }
	for _, d := range c.Details {
		below(Escape(d))
	}
	switch len(c.Log) {
	case 0:
	case 1:
		below(`last log line: "` + Escape(c.Log[0]) + `"`)
	default:
		below("last log lines:")
		for _, line := range c.Log {
			below("  " + Escape(line))
		}
	}
	if c.Hint != "" {
		below(s.Paint(Dim, "hint: "+Escape(c.Hint)))
	}
}
