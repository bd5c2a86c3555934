package cli

import (
	"fmt"
	"io"
	"strings"

	"berth/api"
)

// planMarks are what stands before a line of a plan, and its style.
var planMarks = map[string]struct {
	mark  string
	style Style
}{
	api.PlanCreate:    {"+", Good},
	api.PlanReplace:   {"~", Caution},
	api.PlanUpdate:    {"~", Caution},
	api.PlanScale:     {"~", Caution},
	api.PlanRemove:    {"-", Bad},
	api.PlanUnchanged: {"=", Dim},
}

// WritePlan writes what apply would do: a head, a line per service with its
// changes and their places in the file, networks and volumes that change, and
// a sum.
func WritePlan(s Screen, p api.Plan) error {
	var b strings.Builder
	b.WriteString(planHead(p) + "\n")

	columns := 0
	for _, service := range p.Services {
		columns = max(columns, width(Escape(service.Service)))
	}
	for _, r := range append(p.Networks[:len(p.Networks):len(p.Networks)], p.Volumes...) {
		if r.Verb != api.PlanUnchanged {
			columns = max(columns, width(Escape(r.Name)))
		}
	}
	for _, service := range p.Services {
		line := pad(Escape(service.Service), columns) + "  " + planVerb(service)
		writePlanLine(&b, s, service.Verb, line)
		writePlanChanges(&b, s, service.Changes)
	}
	writePlanResources(&b, s, "network", columns, p.Networks)
	writePlanResources(&b, s, "volume", columns, p.Volumes)
	for _, ref := range p.Images {
		b.WriteString("  " + s.Paint(Dim, "↓ "+pad("image", columns)+"  "+Escape(ref)+" is to be pulled") + "\n")
	}
	b.WriteString(planSum(p) + "\n")
	_, err := io.WriteString(s, b.String())
	return err
}

func planHead(p api.Plan) string {
	name := Escape(p.Stack)
	switch {
	case p.Revision == 0:
		return fmt.Sprintf("%s: new, revision %d", name, p.Next)
	case p.Next == p.Revision:
		return fmt.Sprintf("%s: revision %d", name, p.Revision)
	}
	return fmt.Sprintf("%s: revision %d → %d", name, p.Revision, p.Next)
}

func writePlanLine(b *strings.Builder, s Screen, verb, line string) {
	m := planMarks[verb]
	line = strings.TrimRight(m.mark+" "+line, " ")
	b.WriteString("  " + s.Paint(m.style, line) + "\n")
}

// planVerb says in a few words what happens to a service.
func planVerb(s api.PlanService) string {
	reason := Escape(s.Reason)
	switch s.Verb {
	case api.PlanUnchanged:
		return joinReason("unchanged", reason)
	case api.PlanCreate:
		return joinReason(plural(s.Tasks, "task"), reason)
	case api.PlanScale:
		return joinReason(fmt.Sprintf("scaled from %d to %d", s.From, s.To), reason)
	case api.PlanUpdate:
		return joinReason(plural(s.Tasks, "task")+", updated in place", reason)
	case api.PlanRemove:
		if reason == "" {
			reason = "removed"
		}
		return reason
	}
	text := plural(s.Tasks, "task")
	if s.Order != "" {
		text += ", " + s.Order
	}
	if s.From != s.To && s.From != 0 {
		text += fmt.Sprintf(", scaled from %d to %d", s.From, s.To)
	}
	return joinReason(text, reason)
}

func joinReason(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + ": " + reason
}

// writePlanChanges writes one line per changed field, in three columns: what
// kind, what about it, and where in the file.
func writePlanChanges(b *strings.Builder, s Screen, changes []api.PlanChange) {
	kinds, texts := make([]string, len(changes)), make([]string, len(changes))
	kindColumns, textColumns := 0, 0
	for i, c := range changes {
		kinds[i], texts[i] = planChange(c)
		kindColumns, textColumns = max(kindColumns, width(kinds[i])), max(textColumns, width(texts[i]))
	}
	textColumns = min(textColumns, 48) // a long text pushes its own place away, not all of them
	for i, c := range changes {
		line := "      " + pad(kinds[i], kindColumns) + "  " + pad(texts[i], textColumns)
		if c.Position != nil {
			line += "  " + s.Paint(Dim, Escape(c.Position.String()))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// planChange words a change. Values of the environment and contents are not
// shown: they are what secrets are made of.
func planChange(c api.PlanChange) (kind, text string) {
	kind, rest, _ := strings.Cut(c.Path, ".")
	kind, rest = Escape(kind), Escape(rest)
	if kind == "environment" {
		kind = "env"
	}
	hidden := kind == "env" || kind == "configs" || kind == "secrets"
	before, after := Escape(c.Old), Escape(c.New)
	switch {
	case before == "" && after == "":
		text = "changed"
	case before == "" && strings.HasSuffix(c.Path, ".content") && (after == "changed" || strings.HasPrefix(after, "is watched")):
		return strings.TrimSuffix(kind, "s"), strings.TrimSuffix(rest, ".content") + ": content " + after
	case hidden && before == "" && (after == "added" || after == "removed" || after == "changed"):
		text = after // the values are not told
	case before == "" && (hidden || after == ""):
		text = "added"
	case after == "" && hidden:
		text = "removed"
	case hidden:
		text = "changed"
	case before == "":
		text = after + " added"
	case after == "":
		text = before + " removed"
	default:
		text = before + " → " + after
	}
	if rest != "" {
		if hidden {
			text = rest + " " + text
		} else {
			text = rest + ": " + text
		}
	}
	if strings.HasSuffix(kind, "ss") {
		return kind, text
	}
	return strings.TrimSuffix(kind, "s"), text
}

func writePlanResources(b *strings.Builder, s Screen, kind string, columns int, resources []api.PlanResource) {
	for _, r := range resources {
		if r.Verb != api.PlanUnchanged {
			writePlanLine(b, s, r.Verb, pad(Escape(r.Name), columns)+"  "+joinReason(kind, Escape(r.Reason)))
		}
	}
}

// planSum counts tasks by what happens to them.
func planSum(p api.Plan) string {
	if !p.Changed {
		return "Nothing changes."
	}
	counts := map[string]int{}
	for _, s := range p.Services {
		switch s.Verb {
		case api.PlanScale:
			if s.To > s.From {
				counts["created"] += s.To - s.From
			} else {
				counts["removed"] += s.From - s.To
			}
		case api.PlanReplace:
			counts["replaced"] += s.Tasks
		case api.PlanCreate:
			counts["created"] += s.Tasks
		case api.PlanUpdate:
			counts["updated in place"] += s.Tasks
		case api.PlanRemove:
			counts["removed"] += s.Tasks
		}
	}
	var parts []string
	for _, what := range []string{"replaced", "updated in place", "created", "removed"} {
		switch n := counts[what]; {
		case n == 0:
		case len(parts) == 0:
			parts = append(parts, plural(n, "task")+" "+what)
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	if len(parts) == 0 {
		return "No task changes. `berth up` carries it out."
	}
	return strings.Join(parts, ", ") + ". `berth up` carries it out."
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
