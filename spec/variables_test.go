package spec

import (
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/template"
	"pgregory.net/rapid"
)

func TestReferences_Forms(t *testing.T) {
	for text, want := range map[string][]reference{
		"":                     nil,
		"plain":                nil,
		"$A":                   {{name: "A"}},
		"$A_1-b":               {{name: "A_1"}},
		"${A}":                 {{name: "A"}},
		"$$A $A":               {{name: "A"}},
		"a${A:-b}c${B-}":       {{"A", ":-", "b"}, {"B", "-", ""}},
		"${A:?why not}":        {{"A", ":?", "why not"}},
		"${A:-${B:-${C}}}":     {{"A", ":-", "${B:-${C}}"}},
		"${A:+x}":              {{"A", ":+", "x"}},
		"costs 5$":             nil,
		"$1 $-":                nil,
		"${A:-{\"k\": \"v\"}}": {{"A", ":-", "{\"k\": \"v\"}"}},
	} {
		got, ok := references(text)
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%q: %v (%v), want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"${", "${A", "${}", "${A B}", "${1A}", "x ${A:=b}"} {
		if _, ok := references(text); ok {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestProblems_AgreesWithTheLoader: a text has a required variable missing
// exactly when the loader's interpolation fails.
func TestProblems_AgreesWithTheLoader(t *testing.T) {
	name := rapid.SampledFrom([]string{"SET", "EMPTY", "UNSET"})
	env := map[string]string{"SET": "x", "EMPTY": ""}
	get := func(n string) (string, bool) { v, ok := env[n]; return v, ok }
	text := rapid.Custom(func(t *rapid.T) string {
		var b strings.Builder
		for range rapid.IntRange(0, 3).Draw(t, "parts") {
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				b.WriteString(rapid.SampledFrom([]string{"a", " ", "$$", "b:c"}).Draw(t, "text"))
			case 1:
				b.WriteString("${" + name.Draw(t, "name") + "} ")
			default:
				op := rapid.SampledFrom([]string{":-", "-", ":?", "?", ":+", "+"}).Draw(t, "op")
				inner := ""
				if rapid.Bool().Draw(t, "nested") {
					inner = "${" + name.Draw(t, "inner") + rapid.SampledFrom([]string{":-", ":?"}).Draw(t, "innerop") + "z}"
				}
				b.WriteString("${" + name.Draw(t, "name") + op + inner + "}")
			}
		}
		return b.String()
	})
	rapid.Check(t, func(t *rapid.T) {
		s := text.Draw(t, "text")
		_, err := template.SubstituteWithOptions(s, get, template.WithoutLogging)
		required := slices.ContainsFunc(problems(s, get), func(p problem) bool { return p.required })
		if (err != nil) != required && !strings.Contains(s, "?${") {
			t.Fatalf("%q: the loader says %v, we say required missing: %v", s, err, required)
		}
	})
}

func TestMention_WholeNames(t *testing.T) {
	for _, c := range []struct {
		text, name string
		want       int
	}{{"a $AB $A", "A", 7}, {"${AB}${A}", "A", 7}, {"A", "A", -1}, {"$A", "A", 1}, {"x", "A", -1}} {
		if got := mention(c.text, 0, c.name); got != c.want {
			t.Errorf("%q in %q: %d, want %d", c.name, c.text, got, c.want)
		}
	}
}
