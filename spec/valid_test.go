package spec_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"go.yaml.in/yaml/v4"
	"golang.org/x/tools/txtar"

	"berth/spec"
	"berth/testbed/corpus"
)

func TestValid_ReadsTheWholeSchema(t *testing.T) {
	if !spec.KnowsSchema(schema.Schema) {
		t.Error("the Compose schema has words that are not known: each file costs the compilation of the schema")
	}
	if spec.KnowsSchema(`{"$schema": "https://json-schema.org/draft/2020-12/schema", "not": {}}`) {
		t.Error("an unknown word is passed over")
	}
}

// TestValid_SameVerdictAsTheLoader holds real files, and files with one value
// replaced, against both readings of the schema.
func TestValid_SameVerdictAsTheLoader(t *testing.T) {
	var texts [][]byte
	scripts, err := filepath.Glob("../testdata/*/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, script := range scripts {
		archive, err := txtar.ParseFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			texts = append(texts, f.Data)
		}
	}
	if _, err := os.Stat("../../shared/corpus"); err == nil || os.Getenv("BERTH_CORPUS") != "" {
		for _, c := range corpus.Cases(t) {
			for _, f := range c.Files {
				text, err := os.ReadFile(filepath.Join(c.Dir, c.Workdir, f))
				if err == nil {
					texts = append(texts, text)
				}
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	right, wrong := 0, 0
	for _, text := range texts {
		for round := range 6 {
			var model map[string]any
			if yaml.Unmarshal(text, &model) != nil || model == nil {
				break
			}
			if round > 0 {
				replaceOne(r, model)
			}
			own, want := spec.Valid(model), schema.Validate(model)
			if (own == nil) != (want == nil) {
				shown, _ := yaml.Marshal(model)
				t.Fatalf("valid: %v; the loader: %v\n%s", own, want, shown)
			}
			if own == nil {
				right++
			} else {
				wrong++
			}
		}
	}
	t.Logf("%d right and %d wrong models of %d files", right, wrong, len(texts))
	if right < 100 || wrong < 100 {
		t.Errorf("only %d right and %d wrong models", right, wrong)
	}
}

// replaceOne puts another value somewhere below v.
func replaceOne(r *rand.Rand, v any) {
	other := []any{nil, "x", "z", "", 5, -1, 1.5, 2.0, true, []any{}, []any{"a", "a"}, []any{"a", 1}, map[string]any{}, map[string]any{"k": "v"}}
	value := other[r.IntN(len(other))]
	deeper := func(e any) bool {
		switch e := e.(type) {
		case map[string]any:
			return len(e) > 0 && r.IntN(5) > 0
		case []any:
			return len(e) > 0 && r.IntN(3) > 0
		}
		return false
	}
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		if i := r.IntN(len(keys) + 1); i < len(keys) {
			if e := v[keys[i]]; deeper(e) {
				replaceOne(r, e)
			} else {
				v[keys[i]] = value
			}
			return
		}
		v["x y"] = value
	case []any:
		i := r.IntN(len(v))
		if deeper(v[i]) {
			replaceOne(r, v[i])
		} else {
			v[i] = value
		}
	}
}
