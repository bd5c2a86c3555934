package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"berth/api"
)

// lsRow is a stack as `docker compose ls --format json` prints it; Revision
// is ours.
type lsRow struct {
	Name        string
	Status      string
	ConfigFiles string
	Revision    uint64
}

// WriteLS writes stacks as a table.
func WriteLS(w io.Writer, stacks []api.StackSummary) error {
	t := Table{Head: []string{"NAME", "STATUS", "REVISION", "CONFIG FILES"}}
	for _, s := range stacks {
		t.Add(s.Name, StackState(s), strconv.FormatUint(s.Revision, 10), strings.Join(s.Files, ","))
	}
	return t.Write(w)
}

// WriteLSJSON writes stacks as one JSON array.
func WriteLSJSON(w io.Writer, stacks []api.StackSummary) error {
	rows := make([]lsRow, 0, len(stacks))
	for _, s := range stacks {
		rows = append(rows, lsRow{Name: s.Name, Status: StackState(s), ConfigFiles: strings.Join(s.Files, ","), Revision: s.Revision})
	}
	return WriteJSONLine(w, rows)
}

// StackState counts a stack's tasks by state: "running(2), exited(1)".
func StackState(s api.StackSummary) string {
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(s.States)) {
		if n := s.States[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s(%d)", state, n))
		}
	}
	if s.Removing {
		parts = append(parts, "being removed")
	}
	return strings.Join(parts, ", ")
}
