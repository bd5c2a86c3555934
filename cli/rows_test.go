package cli

import (
	"strings"
	"testing"
)

type pet struct{ Name, LegCount string }

func TestRows_Formats(t *testing.T) {
	rows := Rows[pet]{Columns: []string{"Name", "LegCount"}}
	rows.Add(pet{"cat", "4"})
	rows.Add(pet{"hen\x1b[31m", "2"})
	for format, want := range map[string]string{
		"table":                            "NAME          LEG COUNT\ncat           4\nhen\\x1b[31m   2\n",
		"json":                             "{\"Name\":\"cat\",\"LegCount\":\"4\"}\n{\"Name\":\"hen\\u001b[31m\",\"LegCount\":\"2\"}\n",
		`{{.Name | upper}}\t{{.LegCount}}`: "CAT\t4\nHEN\\x1b[31M\t2\n",
		`table {{.LegCount}}\t{{.Name}}`:   "LEG COUNT   NAME\n4           cat\n2           hen\\x1b[31m\n",
		"{{json .Name}}":                   "\"cat\"\n\"hen\\u001b[31m\"\n",
		`{{truncate .Name 2}}`:             "ca\nhe\n",
	} {
		var b strings.Builder
		if err := rows.Write(&b, format); err != nil || b.String() != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", format, err, b.String(), want)
		}
	}
}

func TestRows_BadFormats_AreOneLine(t *testing.T) {
	rows := Rows[pet]{Columns: []string{"Name"}}
	rows.Add(pet{"cat", "4"})
	for format, want := range map[string]string{
		"yaml":           `--format "yaml": want table, json or a template such as '{{.Name}}'`,
		"{{.Nothing}}":   "--format: can't evaluate field Nothing in type cli.pet",
		"{{.Name":        "--format: format:1: unclosed action",
		"{{exec .Name}}": `--format: format:1: function "exec" not defined`,
	} {
		err := rows.Write(&strings.Builder{}, format)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", format, err, want)
		}
	}
	var b strings.Builder
	if err := rows.Write(&b, "{{pad .Name 1000000000 0}}"); err != nil || b.Len() > 2000 {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}
