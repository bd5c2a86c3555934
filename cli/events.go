package cli

import (
	"fmt"
	"io"
	"strings"

	"berth/api"
)

// composeEvent is an event with what programs expect that read those of `docker
// compose events --json`: a task is a container there, with its id, and its
// attributes name it. Ours stand beside them.
type composeEvent struct {
	api.Event
	Type  string            `json:"type"`
	ID    string            `json:"id,omitempty"`
	Attrs map[string]string `json:"attributes,omitempty"`
}

// WriteEventJSON writes an event as one line of JSON.
func WriteEventJSON(w io.Writer, e api.Event) error {
	out := composeEvent{Event: e, Type: e.Type, Attrs: e.Attrs}
	if e.Type == "task" {
		out.Type, out.ID = "container", e.Task
		out.Attrs = map[string]string{"name": e.Name}
		for key, value := range e.Attrs {
			out.Attrs[key] = value
		}
	}
	return WriteJSONLine(w, out)
}

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
