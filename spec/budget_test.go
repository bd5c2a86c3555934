package spec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/spec"
)

func repeat(n int, f func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(f(i))
	}
	return b.String()
}

// TestLoad_Hostile_OneDiagnosticQuickly gives the loader what would take it
// minutes and gigabytes.
func TestLoad_Hostile_OneDiagnosticQuickly(t *testing.T) {
	laughs := "x-a0: &a0 [l, l, l, l, l, l, l, l, l, l]\n" + repeat(12, func(i int) string {
		item := fmt.Sprintf("*a%d", i)
		return fmt.Sprintf("x-a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(item+", ", 10), ", "))
	}) + "services: {a: {image: b}}\n"
	merges := "x-m0: &m0 {k: v}\n" + repeat(20, func(i int) string {
		return fmt.Sprintf("x-m%d: &m%d {a: *m%d, b: *m%d, c: *m%d}\n", i+1, i+1, i, i, i)
	}) + "services: {a: {image: b, labels: {<<: *m20}}}\n"
	for _, c := range []struct{ name, content, want string }{
		{"billion laughs", laughs, "with its aliases written out the file holds more than 100000 values"},
		{"chain of maps", merges, "with its aliases written out the file holds more than 100000 values"},
		{"deep lists", "x-a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\nservices: {a: {image: b}}\n", "nested deeper than 64 levels"},
		{"deep lists that stay open", "x-a: " + strings.Repeat("[", 100000), "YAML: "},
		{"deep mappings", "x-a:\n" + repeat(80, func(i int) string { return strings.Repeat(" ", i+1) + "a:\n" }) + "services: {a: {image: b}}\n", "nested deeper than 64 levels"},
		{"many values", "x-a: [" + strings.Repeat("1,", 120_000) + "1]\nservices: {a: {image: b}}\n", "the file holds more than 100000 values"},
		{"port range", "services: {a: {image: b, ports: ['1-65535:1-65535']}}\n", "more than 16384 ports are published"},
		{"many variables", "services: {a: {image: b, user: '" + strings.Repeat("$A", 100_000) + "'}}\n", "more than 512 variables in one text"},
		{
			"nested variables", "services: {a: {image: b, user: '" + strings.Repeat("${A:-", 100) + strings.Repeat("}", 100) + "'}}\n",
			"variables nested deeper than 16 levels",
		},
		{"too large", "# " + strings.Repeat("x", 11<<20), "is 11 MiB; the limit is 2 MiB"},
		{"10 MB of values", "x-a: [" + strings.Repeat("1,", 5_200_000) + "1]\n", "is "},
		{"10 MB of empty lines", strings.Repeat("\n", 10<<20), "is "},
		{"10 MB of services", "services:\n" + repeat(400_000, func(i int) string { return fmt.Sprintf("  s%d: {image: b}\n", i) }), "is "},
		{"10 MB in one text", "services: {a: {image: " + strings.Repeat("x", 10<<20-40) + "}}\n", "is "},
		{"2 MB of values", "x-a: [" + strings.Repeat("1,", 1_000_000) + "1]\n", "the file holds more than 100000 values"},
		{"2 MB of empty lines", strings.Repeat("\n", 2<<20), "the file holds more than 100000 values"},
		{"2 MB in one text", "services: {a: {image: " + strings.Repeat("x", 2<<20-40) + "}}\n", "image is longer"},
		{"zero bytes", "services: {a: {image: \"b\x00\"}}\n", "the file is not UTF-8 text here"},
		{"binary", "\x7fELF\x02\x01\x01\xff\xfe", "the file is not UTF-8 text here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			var r *spec.Result
			var err error
			size, objects := allocated(func() {
				r, err = spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}})
			})
			if err != nil {
				t.Fatal(err)
			}
			errs := r.Diagnostics.Filter(spec.Error)
			if len(errs) != 1 || !strings.HasPrefix(errs[0].Message, c.want) {
				t.Errorf("got %v, want %q", errs, c.want)
			}
			if size > maxBadBytes || objects > maxBadObjects {
				t.Errorf("%d bytes in %d objects", size, objects)
			}
			t.Logf("%d KiB in %d objects", size>>10, objects)
		})
	}
}

// TestLoad_FIFO_DoesNotHang: an env_file that nobody writes to would block a
// naive reader for ever.
func TestLoad_FIFO_DoesNotHang(t *testing.T) {
	for name, attr := range map[string]string{
		"env_file": "env_file: pipe", "label_file": "label_file: pipe", "secret": "secrets: [s]", "include": "image: b\ninclude: [pipe]",
	} {
		dir := t.TempDir()
		if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
			t.Skip("no FIFO here:", err)
		}
		content := "services:\n  a:\n    image: b\n    " + attr + "\n"
		if name == "secret" {
			content += "secrets: {s: {file: pipe}}\n"
		}
		if name == "include" {
			content = "include: [pipe]\nservices: {a: {image: b}}\n"
		}
		if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		done := make(chan *spec.Result, 1)
		go func() {
			r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}})
			if err != nil {
				t.Error(err)
			}
			done <- r
		}()
		select {
		case r := <-done:
			if err := r.Diagnostics.Err(); err == nil || !strings.Contains(err.Error(), "pipe is not a regular file") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: Load hangs on a FIFO", name)
		}
	}
}

// TestLoad_ManyMistakes_LittleWork: to find them all the loader is asked again
// and again, but not without end.
func TestLoad_ManyMistakes_LittleWork(t *testing.T) {
	for _, services := range []int{8, 60, 300} {
		dir := write(t, "-- compose.yaml --\nservices:\n"+repeat(services, func(i int) string {
			return fmt.Sprintf("  s%d:\n    image: nginx\n    ports: {a: b}\n    tty: perhaps\n    volumes: [\"./a:/a\", \"./b:/b\"]\n", i)
		}))
		var r *spec.Result
		size, objects := allocated(func() {
			var err error
			if r, err = spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}}); err != nil {
				t.Fatal(err)
			}
		})
		if size > maxBadBytes || objects > maxBadObjects {
			t.Errorf("%d services: %d bytes in %d objects", services, size, objects)
		}
		t.Logf("%d services: %d errors, %d KiB in %d objects", services, len(r.Diagnostics), size>>10, objects)
		if services == 8 && len(r.Diagnostics) != 16 {
			t.Errorf("%d of 16 mistakes: %v", len(r.Diagnostics), r.Diagnostics)
		}
	}
}
