package spec_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"berth/spec"
)

// TestLoad_RemoteFiles_AreFetchedOnceAndNamedAsWritten covers -f, include and
// extends.
func TestLoad_RemoteFiles_AreFetchedOnceAndNamedAsWritten(t *testing.T) {
	far := write(t, `
-- one/compose.yaml --
services: {db: {image: postgres, env_file: db.env}}
-- one/db.env --
K=v
-- two/compose.yaml --
services: {base: {image: base, user: "7"}}
-- wrong/compose.yaml --
services: {x: {image: x, prots: []}}
`)
	dir := write(t, `
-- compose.yaml --
include: ["oci://host/one:v1"]
services: {web: {extends: {file: "https://host/two.git", service: base}, image: web}}
`)
	asked := map[string]int{}
	o := spec.Options{
		Dir: dir, Environ: []string{},
		Remote: func(p string) bool { return strings.Contains(p, "://host/") },
		Fetch: func(_ context.Context, ref string) (string, error) {
			asked[ref]++
			for part, folder := range map[string]string{"one": "one", "two": "two", "wrong": "wrong"} {
				if strings.Contains(ref, part) {
					return filepath.Join(far, folder, "compose.yaml"), nil
				}
			}
			return "", errors.New("host does not answer")
		},
	}
	r := load(t, o)
	if db := r.Stack.Services["db"]; db.Image != "postgres" || db.Environment["K"] != "v" {
		t.Errorf("%+v", db)
	}
	if web := r.Stack.Services["web"]; web.Image != "web" || web.User != "7" {
		t.Errorf("%+v", web)
	}
	for ref, n := range asked {
		if n != 1 {
			t.Errorf("%s was asked for %d times", ref, n)
		}
	}

	o.Files = []string{"https://host/one.git#main"}
	if r := load(t, o); r.Stack.Name != "one" {
		t.Errorf("the stack is called %s", r.Stack.Name)
	}
	for file, want := range map[string]string{
		"https://host/wrong.git": `https://host/wrong.git:1:26: unknown attribute "prots" in service x`,
		"https://host/lost.git":  "host does not answer",
		"https://other/page":     "https://other/page: only local files, Git repositories",
	} {
		o.Files = []string{file}
		r, err := spec.Load(t.Context(), o)
		if err != nil || len(r.Diagnostics.Filter(spec.Error)) != 1 || !strings.HasPrefix(r.Diagnostics.Err().Error(), want) {
			t.Errorf("%s: %v, %v", file, r.Diagnostics, err)
		}
	}
}
