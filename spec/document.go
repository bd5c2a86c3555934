package spec

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// sections of the document, in the order of the reference; a path belongs to
// the longest prefix.
var sections = []struct{ prefix, title, note string }{
	{"", "The file", ""},
	{"include", "include", ""},
	{"services", "Services", "A service stands under `services.NAME`."},
	{"services.*.build", "build", ""},
	{"services.*.deploy", "deploy", "What Docker Compose ignores without Swarm is carried out."},
	{"services.*.develop", "develop", ""},
	{"services.*.healthcheck", "healthcheck", ""},
	{"services.*.networks", "networks of a service", ""},
	{"services.*.volumes", "volumes of a service", ""},
	{"services.*.pre_start", "pre_start", "A step has the attributes of a service, except for those that make no sense for it."},
	{"services.*.post_start", "post_start", ""},
	{"services.*.pre_stop", "pre_stop", ""},
	{"networks", "Networks", ""},
	{"volumes", "Volumes", ""},
	{"configs", "Configs", ""},
	{"secrets", "Secrets", ""},
	{"models", "Models", ""},
	{"jobs", "Jobs", "A job has the attributes of a service, and `triggers`."},
}

const documentHead = `# What Berth does with each attribute

This page is made from the table that ` + "`berth lint`" + ` uses; a test holds the table
to the schema of the Compose specification, so every attribute is on it.

- **yes**: done, as the specification says. [Differences](differences.md) has
  what Berth chose to do otherwise.
- **these values**: done for these; any other is reported with its place.
- **no**: reported with its place, and otherwise without effect. The last column
  says what to do instead.

An attribute that is not here is a mistake, and an error with its place. Keys
that begin with ` + "`x-`" + ` are yours, but for [probes](probes.md),
[rollouts](rollouts.md) and [secrets](secrets.md).
`

// ReadablePath is a pattern of Support as a user would write it: NAME for a key
// that is chosen, nothing for an item of a list.
func ReadablePath(pattern string) string {
	parts := strings.Split(pattern, ".")
	parts = slices.DeleteFunc(parts, func(p string) bool { return p == "[]" })
	for i, p := range parts {
		if p == "*" {
			parts[i] = "NAME"
		}
	}
	if len(parts) > 2 && parts[0] == "services" {
		parts = parts[2:]
	}
	return strings.Join(parts, ".")
}

// SupportDocument is the page of the documentation about Support, in Markdown.
func SupportDocument() []byte {
	rows := map[string][]Attribute{}
	all := Support()
	honoured := 0
	for _, a := range all {
		if a.Honoured {
			honoured++
		}
		best := ""
		for _, s := range sections {
			if within(a.Path, s.prefix) && len(s.prefix) > len(best) {
				best = s.prefix
			}
		}
		rows[best] = append(rows[best], a)
	}
	var b bytes.Buffer
	b.WriteString(documentHead)
	fmt.Fprintf(&b, "\nOf %d attributes and places where they may stand, %d are honoured.\n", len(all), honoured)
	for _, s := range sections {
		if len(rows[s.prefix]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", s.title)
		if s.note != "" {
			b.WriteString(s.note + "\n\n")
		}
		b.WriteString("| Attribute | Honoured | Instead, or more |\n|---|---|---|\n")
		for _, a := range rows[s.prefix] {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", ReadablePath(a.Path), a.honoured(), strings.ReplaceAll(a.Hint, "|", `\|`))
		}
	}
	return b.Bytes()
}

// honoured is the middle column of the document.
func (a Attribute) honoured() string {
	if !a.Honoured {
		return "no"
	}
	var values []string
	for _, v := range a.Values {
		if v != "" {
			values = append(values, "`"+v+"`")
		}
	}
	if len(values) == 0 {
		return "yes"
	}
	return strings.Join(values, ", ")
}
