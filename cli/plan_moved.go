package cli

import (
	"fmt"
	"io"
	"strings"

	"berth/api"
)

// planItem is what a plan says about one thing, in one line.
type planItem struct{ name, text string }

// WriteMoved writes what is not any more as a plan said: per thing, what was
// planned and what would be done now. It writes nothing if both are alike.
func WriteMoved(w io.Writer, planned, now api.Plan) error {
	before, after := planItems(planned), planItems(now)
	columns := 0
	for _, items := range [][]planItem{before, after} {
		for _, item := range items {
			columns = max(columns, width(item.name))
		}
	}
	var b strings.Builder
	moved := func(name, was, is string) {
		if was == is {
			return
		}
		fmt.Fprintf(&b, "  %s  planned  %s\n  %s  now      %s\n", pad(name, columns), was, pad("", columns), is)
	}
	find := func(items []planItem, name string) string {
		for _, item := range items {
			if item.name == name {
				return item.text
			}
		}
		return "nothing"
	}
	known := map[string]bool{}
	for _, item := range before {
		known[item.name] = true
		moved(item.name, item.text, find(after, item.name))
	}
	for _, item := range after {
		if !known[item.name] {
			moved(item.name, "nothing", item.text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func planItems(p api.Plan) []planItem {
	items := []planItem{{Escape(p.Stack), strings.TrimPrefix(planHead(p), Escape(p.Stack)+": ")}}
	for _, service := range p.Services {
		parts := []string{planVerb(service)}
		for _, c := range service.Changes {
			kind, text := planChange(c)
			parts = append(parts, kind+" "+text)
		}
		items = append(items, planItem{Escape(service.Service), strings.Join(parts, "; ")})
	}
	for _, r := range p.Networks {
		items = append(items, planItem{"network " + Escape(r.Name), joinReason(Escape(r.Verb), Escape(r.Reason))})
	}
	for _, r := range p.Volumes {
		items = append(items, planItem{"volume " + Escape(r.Name), joinReason(Escape(r.Verb), Escape(r.Reason))})
	}
	for _, ref := range p.Images {
		items = append(items, planItem{"image " + Escape(ref), "to be pulled"})
	}
	return items
}
