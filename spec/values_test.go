package spec_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"berth/spec"
)

// What stands here is told also of a file with errors, of one that is loaded
// without interpolation, and of a file that another one includes.
func TestSecretValues_OfFilesAndVariables(t *testing.T) {
	t.Setenv("TOKEN", "of a variable")
	const secrets = `
secrets:
  file: {file: "./${NAME:-one}.txt"}
  variable: {environment: TOKEN}
  unset: {environment: NOT_SET}
  missing: {file: missing.txt}
  stored: {external: true}
`
	for name, c := range map[string]struct {
		text   string
		change func(*spec.Options)
		want   []string
	}{
		"a stack":               {"services: {web: {image: i, secrets: [file]}}" + secrets, func(*spec.Options) {}, []string{"of a file", "of a variable"}},
		"a file with errors":    {"services: {web: {image: i, prots: [1]}}\nsecrets: {a: {file: one.txt}, b: {environment: TOKEN}}", func(*spec.Options) {}, []string{"of a file", "of a variable"}},
		"without interpolation": {"services: {web: {image: i}}\nsecrets: {a: {file: ./one.txt}, b: {environment: TOKEN}}", func(o *spec.Options) { o.NoInterpolate = true }, []string{"of a file", "of a variable"}},
		"paths as they are":     {"services: {web: {image: i, secrets: [file]}}" + secrets, func(o *spec.Options) { o.NoPathResolution = true }, []string{"of a file", "of a variable"}},
		"included":              {"include: [sub/more.yaml]\nservices: {web: {image: i}}", func(*spec.Options) {}, []string{"below"}},
		"none":                  {"services: {web: {image: i}}", func(*spec.Options) {}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for path, text := range map[string]string{
				"compose.yaml": c.text, "one.txt": "of a file", "sub/more.yaml": "services: {x: {image: i, secrets: [s]}}\nsecrets: {s: {file: s.txt}}", "sub/s.txt": "below",
			} {
				path = filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			o := spec.Options{Dir: dir, Inspect: true}
			c.change(&o)
			r, err := spec.Load(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				var got []string
				for _, v := range r.SecretValues() {
					got = append(got, string(v))
				}
				slices.Sort(got)
				if !slices.Equal(slices.Compact(got), c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
		})
	}
}
