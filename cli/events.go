package cli

import (
	"fmt"
	"io"
	"strings"

	"berth/api"
)

// WriteEvent writes an event as `docker compose events` does: time, type,
// action, then what it is about.
func WriteEvent(w io.Writer, e api.Event) error {
	about := e.Name
	for _, other := range []string{e.Task, e.Service, e.Stack} {
		if about == "" {
			about = other
		}
	}
	line := fmt.Sprintf("%s %s %s %s", e.Time.Local().Format("2006-01-02 15:04:05.000000"), Escape(e.Type), Escape(e.Action), Escape(about))
	if attrs := joinMap(e.Attrs); attrs != "" {
		line += " (" + strings.ReplaceAll(Escape(attrs), ",", ", ") + ")"
	}
	if e.Message != "" {
		line += ": " + Escape(e.Message)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}
