package cli

import (
	"io"
	"strings"
	"time"

	"berth/api"
)

// LogStyle says how log lines are shown.
type LogStyle struct {
	NoPrefix   bool
	Timestamps bool
}

// LogPrinter prints the lines of many tasks as `docker compose logs` does:
// "web-1  | text", each service in a colour of its own.
type LogPrinter struct {
	screen  Screen
	style   LogStyle
	columns int // of the widest name so far
	colours map[string]Style
}

// serviceStyles are given to services in the order they first speak.
var serviceStyles = []Style{"36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1"}

// NewLogPrinter prints on s. The names are those expected, so that their
// lines are aligned from the first one.
func NewLogPrinter(s Screen, style LogStyle, names ...string) *LogPrinter {
	p := &LogPrinter{screen: s, style: style, colours: map[string]Style{}}
	for _, name := range names {
		p.columns = max(p.columns, width(Escape(name)))
	}
	return p
}

// LogName is what a task is called in logs: its name without the stack's.
func LogName(stack, task string) string { return strings.TrimPrefix(task, stack+"-") }

// Print writes one line that name, a task of service, said. On a terminal
// what could move the cursor is escaped and colours are kept; a pipe gets the
// text as it is.
func (p *LogPrinter) Print(name string, e api.LogEntry) error {
	text := strings.TrimRight(e.Text, "\n")
	if p.screen.Terminal {
		text = EscapeLog(strings.TrimRight(text, "\r"))
	}
	var b strings.Builder
	if !p.style.NoPrefix {
		name = Escape(name)
		p.columns = max(p.columns, width(name))
		b.WriteString(p.screen.Paint(p.colour(e.Service), pad(name, p.columns)+"  | "))
	}
	if p.style.Timestamps {
		b.WriteString(e.Time.UTC().Format(time.RFC3339Nano) + " ")
	}
	b.WriteString(text)
	b.WriteByte('\n')
	_, err := io.WriteString(p.screen, b.String())
	return err
}

func (p *LogPrinter) colour(service string) Style {
	style, ok := p.colours[service]
	if !ok {
		style = serviceStyles[len(p.colours)%len(serviceStyles)]
		p.colours[service] = style
	}
	return style
}
