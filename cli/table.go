package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Table is rows below a head, columns aligned and three blanks apart, as
// `docker compose ps` prints them. Cells are escaped.
type Table struct {
	Head []string
	Rows [][]string
}

// Add adds a row; it has as many cells as the head.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Write writes the table. The last column is not padded, so that no line ends
// in blanks.
func (t *Table) Write(w io.Writer) error {
	rows := make([][]string, 0, len(t.Rows)+1)
	rows = append(rows, t.Head)
	for _, row := range t.Rows {
		escaped := make([]string, len(row))
		for i, cell := range row {
			escaped[i] = Escape(cell)
		}
		rows = append(rows, escaped)
	}
	widths := make([]int, len(t.Head))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			if i > 0 {
				line += "   "
			}
			line += pad(cell, widths[i])
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes v as indented JSON. Characters that HTML gives a meaning
// stay as they are.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// WriteJSONLine writes v as one line of NDJSON.
func WriteJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
