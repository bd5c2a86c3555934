package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"
	"unicode"
)

// Rows is a list that is printed as a table, as JSON (one object a line) or by
// a Go template, as Docker's --format has them. T is a struct; its fields'
// names are those of the JSON and of the template.
type Rows[T any] struct {
	Columns []string // fields of the table, in order
	rows    []T
}

// Add adds a row.
func (r *Rows[T]) Add(row T) { r.rows = append(r.rows, row) }

// IsTemplate says that a --format is a template: "{{.Name}}", or
// "table {{.Name}}\t{{.State}}", which has a head.
func IsTemplate(format string) bool { return strings.Contains(format, "{{") }

// Write writes the rows. A format that is neither table nor json nor a
// template is an error, as is a template that names what a row has not.
func (r *Rows[T]) Write(w io.Writer, format string) error {
	switch {
	case format == "json":
		for _, row := range r.rows {
			if err := WriteJSONLine(w, row); err != nil {
				return err
			}
		}
		return nil
	case IsTemplate(format):
		return writeTemplate(w, format, r.rows)
	case format != "table":
		return fmt.Errorf("--format %q: want table, json or a template such as '{{.%s}}'", format, r.Columns[0])
	}
	t := Table{}
	for _, c := range r.Columns {
		t.Head = append(t.Head, heading(c))
	}
	for _, row := range r.rows {
		var cells []string
		for _, c := range r.Columns {
			cells = append(cells, fmt.Sprint(reflect.ValueOf(row).FieldByName(c)))
		}
		t.Add(cells...)
	}
	return t.Write(w)
}

// heading is a field's name as the head of a column: "DesiredState" is
// "DESIRED STATE".
func heading(field string) string {
	var b strings.Builder
	before := ' '
	for _, c := range field {
		if unicode.IsUpper(c) && unicode.IsLower(before) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToUpper(c))
		before = c
	}
	return b.String()
}

// templateFunctions are those that Docker's templates have. None of them
// reaches beyond its arguments.
var templateFunctions = template.FuncMap{
	"json": func(v any) (string, error) {
		text, err := json.Marshal(v)
		return string(text), err
	},
	"split": strings.Split,
	"join":  strings.Join,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"title": func(s string) string {
		if s == "" {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"pad": func(s string, before, after int) string {
		return strings.Repeat(" ", bounded(before)) + s + strings.Repeat(" ", bounded(after))
	},
	"truncate": func(s string, n int) string { return string([]rune(s)[:min(len([]rune(s)), bounded(n))]) },
}

// bounded keeps a template from asking for gigabytes of blanks.
func bounded(n int) int { return max(0, min(n, 1000)) }

// writeTemplate prints each row by a template and ends its line. \t and \n in
// the format are what they say; with "table " before it, the rows are aligned
// at tabs, below a head.
func writeTemplate[T any](w io.Writer, format string, rows []T) error {
	text, table := strings.CutPrefix(format, "table ")
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	tmpl, err := template.New("format").Funcs(templateFunctions).Parse(text)
	if err != nil {
		return fmt.Errorf("--format: %s", strings.TrimPrefix(err.Error(), "template: "))
	}
	execute := func(v any) (string, error) {
		var b strings.Builder
		if err := tmpl.Execute(&b, v); err != nil {
			_, reason, found := strings.Cut(err.Error(), ">: ")
			if !found {
				reason = err.Error()
			}
			return "", fmt.Errorf("--format: %s", reason)
		}
		return b.String(), nil
	}
	var lines []string
	for _, row := range rows {
		line, err := execute(row)
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	if !table {
		for _, line := range lines {
			if _, err := fmt.Fprintln(w, escapeLines(line)); err != nil {
				return err
			}
		}
		return nil
	}
	head := map[string]string{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		head[f.Name] = heading(f.Name)
	}
	first, err := execute(head)
	if err != nil {
		return err
	}
	t := Table{Head: strings.Split(first, "\t")}
	for _, line := range lines {
		cells := strings.Split(line, "\t")
		for len(cells) < len(t.Head) {
			cells = append(cells, "")
		}
		t.Add(cells[:len(t.Head)]...)
	}
	return t.Write(w)
}

// escapeLines is Escape that leaves the lines and tabs of a template alone.
func escapeLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		for j := range cells {
			cells[j] = Escape(cells[j])
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return strings.Join(lines, "\n")
}
