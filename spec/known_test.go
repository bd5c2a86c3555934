package spec_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/spec"
)

func TestLoad_FilesFoundValidBefore_GiveTheSameResult(t *testing.T) {
	cache := t.TempDir()
	dir := t.TempDir()
	text := "services:\n  web:\n    image: ${IMAGE:-nginx}\n    ports: [\"80:80\", {target: 443}]\n    deploy: {replicas: 2}\n    develop: {watch: []}\n"
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	load := func(environ ...string) string {
		t.Helper()
		r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: environ, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Diagnostics.JSON()
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(struct {
			Stack       *spec.Stack
			Diagnostics json.RawMessage
		}{r.Stack, found})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	remembered := func() int {
		data, _ := os.ReadFile(filepath.Join(cache, "valid-stacks"))
		return strings.Count(string(data), "\n")
	}
	first := load()
	if n := remembered(); n != 1 {
		t.Fatalf("%d stacks are remembered, want 1", n)
	}
	if diff := cmp.Diff(first, load()); diff != "" {
		t.Errorf("the second time differs:\n%s", diff)
	}
	if n := remembered(); n != 1 {
		t.Errorf("the second time remembered again: %d", n)
	}
	load("IMAGE=httpd") // another value, another verdict
	if n := remembered(); n != 2 {
		t.Errorf("%d stacks are remembered, want 2", n)
	}
}

func TestLoad_AFileThatIsWrong_IsNotRemembered(t *testing.T) {
	cache, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("services:\n  web:\n    image: 5\n    ports: {a: b}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}, Cache: cache})
		if err != nil || !r.Diagnostics.Errors() {
			t.Fatalf("it was accepted: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(cache, "valid-stacks")); err == nil {
		t.Error("a wrong file was remembered as valid")
	}
}

func TestLoad_ABrokenMemory_IsNone(t *testing.T) {
	cache, dir := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(dir, "compose.yaml"): "services: {web: {image: nginx}}\n", filepath.Join(cache, "valid-stacks"): strings.Repeat("x\x00", 1<<20),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}, Cache: cache})
	if err != nil || r.Stack == nil {
		t.Errorf("%v %v", err, r.Diagnostics)
	}
}
