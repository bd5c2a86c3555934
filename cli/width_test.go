package cli

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestWidth_WideAndCombiningCharacters(t *testing.T) {
	for text, want := range map[string]int{"abc": 3, "größe": 5, "漢字": 4, "🙂": 2, "e\u0301": 1, "… → ✓": 5, "": 0} {
		if got := width(text); got != want {
			t.Errorf("width(%q) = %d, want %d", text, got, want)
		}
	}
}

func TestCut_NeverWiderThanAsked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.SampledFrom([]rune("abc漢字🙂é\u0301…"))).Draw(t, "text")
		columns := rapid.IntRange(0, 20).Draw(t, "columns")
		got := cut(text, columns)
		switch {
		case width(got) > columns:
			t.Fatalf("cut(%q, %d) = %q is %d wide", text, columns, got, width(got))
		case width(text) <= columns && got != text:
			t.Fatalf("cut(%q, %d) = %q, though it fits", text, columns, got)
		case width(text) > columns && columns > 0 && !strings.HasSuffix(got, "…"):
			t.Fatalf("cut(%q, %d) = %q does not say that it is cut", text, columns, got)
		}
		if w := width(pad(got, columns)); w != columns {
			t.Fatalf("pad(%q, %d) is %d wide", got, columns, w)
		}
	})
}

func TestTable_ColumnsAligned_CellsEscaped_NoBlanksAtTheEnd(t *testing.T) {
	table := Table{Head: []string{"NAME", "IMAGE", "PORTS"}}
	table.Add("web", "漢字:1", "")
	table.Add("database-1", "x\x1b[2J", "80/tcp")
	var b strings.Builder
	if err := table.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `NAME         IMAGE      PORTS
web          漢字:1
database-1   x\x1b[2J   80/tcp
`
	if b.String() != want {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
}
