package spec_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"berth/spec"
)

var update = flag.Bool("update", false, "write the golden files")

// TestLoad_BadFiles_SayWhatAndWhere holds the exact lines for wrong and
// doubtful files: each txtar in testdata/bad has the files and, as want, what
// is printed.
func TestLoad_BadFiles_SayWhatAndWhere(t *testing.T) {
	files, err := filepath.Glob("../testdata/bad/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 60 {
		t.Fatalf("only %d cases in testdata/bad", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "shop")
			want := ""
			for _, f := range a.Files {
				if f.Name == "want" {
					want = string(f.Data)
					continue
				}
				path := filepath.Join(dir, f.Name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{"HOME=/home/user"}})
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := r.Diagnostics.Format(&out, false); err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(out.String(), dir, "DIR")
			if *update {
				a.Files[len(a.Files)-1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if strings.Contains(got, "\x1b") {
				t.Error("a terminal command in the output")
			}
			if r.Diagnostics.Errors() != (r.Stack == nil) {
				t.Errorf("errors: %v, but a stack: %v", r.Diagnostics.Errors(), r.Stack != nil)
			}
		})
	}
}
