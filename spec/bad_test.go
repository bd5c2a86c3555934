package spec_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
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
	if len(files) < 300 {
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
			if *update && a.Files[len(a.Files)-1].Name != "want" {
				a.Files = append(a.Files, txtar.File{Name: "want"})
			}
			want := unpack(t, a, dir)
			r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{"HOME=/home/user"}})
			if err != nil {
				t.Fatal(err)
			}
			found := r.Diagnostics
			if !strings.HasPrefix(filepath.Base(file), "ignored-") && !strings.Contains(want, ": ignored: ") {
				// What is honoured changes; most cases are about mistakes.
				found = append(found.Filter(spec.Error), found.Filter(spec.Warning)...)
			}
			var out bytes.Buffer
			if err := found.Format(&out, false); err != nil {
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
			if got == "" && !strings.HasPrefix(file, "../testdata/bad/ignored-") {
				t.Error("silence")
			}
			for _, d := range r.Diagnostics.Filter(spec.Error) {
				if d.Line == 0 || d.Col == 0 {
					t.Errorf("no line and column: %s", d.Error())
				}
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

// unquote reads a file whose lines are quoted as in Go: for what an editor
// does not show.
func unquote(t *testing.T, data []byte) []byte {
	t.Helper()
	var out []byte
	for line := range strings.Lines(string(data)) {
		text, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, text...)
	}
	return out
}

// unpack writes the files of a case to dir and gives what it wants.
func unpack(t *testing.T, a *txtar.Archive, dir string) (want string) {
	t.Helper()
	for _, f := range a.Files {
		if f.Name == "want" {
			want = string(f.Data)
			continue
		}
		if name, ok := strings.CutSuffix(f.Name, ".quoted"); ok {
			f.Name, f.Data = name, unquote(t, f.Data)
		}
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return want
}

// maxBadBytes and maxBadObjects are what a Load of a bad file may allocate, all
// in all. They are the 64 MB and, by work done rather than by the clock of a
// busy machine, the 200 ms: this many small objects take some 100 ms.
const (
	maxBadBytes   = 64 << 20
	maxBadObjects = 600_000
)

// allocated gives what f allocates, whether or not it is freed meanwhile.
func allocated(f func()) (size, objects uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, after.Mallocs - before.Mallocs
}

// TestLoad_BadFiles_LittleWork bounds what a bad file can cost.
func TestLoad_BadFiles_LittleWork(t *testing.T) {
	files, err := filepath.Glob("../testdata/bad/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var most uint64
	worst := ""
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "shop")
		unpack(t, a, dir)
		size, objects := allocated(func() {
			if _, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}}); err != nil {
				t.Error(err)
			}
		})
		if size > most {
			most, worst = size, file
		}
		if size > maxBadBytes || objects > maxBadObjects {
			t.Errorf("%s: %d bytes in %d objects", file, size, objects)
		}
	}
	t.Logf("%d files; the costliest, %s, allocates %d KiB", len(files), worst, most>>10)
}
