package spec_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/tools/txtar"

	"berth/spec"
	"berth/testbed/corpus"
)

var asLoaded = cmp.Options{
	cmp.Exporter(func(reflect.Type) bool { return true }),
	// The loader makes this list from a map, in any order.
	cmpopts.SortSlices(func(a, b types.SSHKey) bool { return a.ID < b.ID }),
}

// compared holds what the stages make of files against what the loader makes
// of them. It tells whether each took them.
func compared(t *testing.T, name string, o spec.Options) (stages, loader bool) {
	t.Helper()
	own, ownErr := spec.Stages(t.Context(), o)
	want, err := spec.Loader(t.Context(), o)
	switch {
	case ownErr != nil:
	case err != nil:
		t.Errorf("%s: the stages take what the loader refuses: %v", name, err)
	default:
		if diff := cmp.Diff(want, own, asLoaded); diff != "" {
			t.Errorf("%s: differs from the loader: %s", name, diff)
		}
	}
	return ownErr == nil, err == nil
}

// TestStages_Corpus_AsTheLoader: what the stages accept is what the loader
// makes of the same files, and few files need the loader.
func TestStages_Corpus_AsTheLoader(t *testing.T) {
	staged, accepted := 0, 0
	for _, c := range corpus.Cases(t) {
		own, loader := compared(t, c.Name, c.Options())
		if own {
			staged++
		}
		if loader {
			accepted++
		}
	}
	t.Logf("%d of the %d stacks that the loader accepts need no more than the stages", staged, accepted)
	if staged*10 < accepted*9 {
		t.Errorf("only %d of %d stacks need no more than the stages", staged, accepted)
	}
}

// TestStages_EveryAttribute_AsTheLoader: there is a script for each attribute,
// and a file for each mistake.
func TestStages_EveryAttribute_AsTheLoader(t *testing.T) {
	scripts, err := filepath.Glob("../testdata/*/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	staged := 0
	for _, script := range scripts {
		archive, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		dir := write(t, string(archive))
		for _, f := range txtar.Parse(archive).Files {
			if ext := filepath.Ext(f.Name); ext != ".yaml" && ext != ".yml" {
				continue
			}
			own, _ := compared(t, script+" "+f.Name, spec.Options{Dir: dir, Files: []string{f.Name}, Environ: []string{"HOME=/home/user"}})
			if own {
				staged++
			}
		}
	}
	t.Logf("%d files need no more than the stages", staged)
	if staged < 100 {
		t.Errorf("only %d files need no more than the stages", staged)
	}
}
