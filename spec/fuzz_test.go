package spec_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"berth/spec"
)

// FuzzLoad: whatever stands in a Compose file, Load neither panics nor fails,
// and each error has a place.
func FuzzLoad(f *testing.F) {
	bad, err := filepath.Glob("../testdata/bad/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range bad {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
	f.Add(txtar.Parse([]byte(rich)).Files[0].Data)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		// Absolute paths of the fuzzer's making stay unread.
		if strings.Contains(string(data), "/proc") || strings.Contains(string(data), "/dev") {
			t.Skip()
		}
		r, err := spec.Load(t.Context(), spec.Options{
			Dir: dir, Files: []string{"-"}, Stdin: data, Environ: []string{"HOME=/home/user"}, Inspect: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range r.Diagnostics {
			if d.Message == "" || (d.File != "" && d.Line == 0 && d.File == "<stdin>") {
				t.Errorf("no place or no message: %+v", d)
			}
			if strings.Contains(d.Message, "the Compose loader failed") {
				t.Logf("a panic in the loader was caught: %s", d.Message)
			}
		}
		if err := r.Diagnostics.Format(discard{}, true); err != nil {
			t.Error(err)
		}
		if r.Stack == nil {
			return
		}
		for _, s := range r.Stack.Services {
			spec.Hash(&s, spec.Identity{})
		}
		if _, err := r.Config("yaml", nil); err != nil {
			t.Errorf("a loaded stack cannot be printed: %v", err)
		}
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// FuzzDotenv: whatever stands in .env, the stack loads or the error names a
// line of it.
func FuzzDotenv(f *testing.F) {
	for _, s := range []string{"A=1\n", "A='x\n", "export A=1\nB=$A\n", "A=\"\\x\"", "=\n", "A B\n", "\ufeffA=1", "A=${B:?no}", "A:\n", "\x00"} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("services: {a: {image: b}}\n"), 0o644); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		own := t.TempDir()
		if err := os.WriteFile(filepath.Join(own, ".env"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := spec.Load(t.Context(), spec.Options{
			Dir: own, Files: []string{filepath.Join(dir, "compose.yaml")}, ProjectDir: own, Environ: []string{},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range r.Diagnostics.Filter(spec.Error) {
			if d.File == ".env" && d.Line == 0 {
				t.Errorf("no line: %+v", d)
			}
		}
	})
}
