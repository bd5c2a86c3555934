package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What crun and runc printed, one file a case, and what is made of it. The
// file's name is RUNTIME-CASE.txt; "-- reason: detail" is its last line.
func TestErrText_Golden(t *testing.T) {
	files := glob(t, "testdata/errtext/*.txt")
	if len(files) < 12 {
		t.Fatalf("only %d samples", len(files))
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		said, _, ok := bytes.Cut(b, []byte("\n-- "))
		if !ok {
			said = bytes.TrimRight(b, "\n")
		}
		e := startError("/cmd", string(said))
		flags := fmt.Sprintf("gone=%v started=%v stopped=%v busy=%v",
			saysGone(string(said)), saysStarted(string(said)), saysStopped(string(said)), saysBusy(string(said)))
		golden(t, path, fmt.Appendf(bytes.Clone(said), "\n-- %v: %s\n-- %s\n", e.Reason, e.Detail, flags))
	}
}

// TestErrText_Samples writes the samples anew, with -update, from the runtimes
// that are installed.
func TestErrText_Samples(t *testing.T) {
	if !*update {
		t.Skip("SKIPPED: only with -update")
	}
	eachRuntime(t, func(t *testing.T, b *bench) {
		keep := func(name, text string) {
			text = strings.ReplaceAll(text, filepath.Dir(b.cfg.Run), "/run")
			path := filepath.Join("testdata/errtext", b.oci.name+"-"+name+".txt")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(strings.TrimSpace(text)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		ctx := t.Context()
		runs := b.container("a1", "sleep")
		b.run(runs)
		ended := b.container("a2", "exit", "0")
		b.run(ended)
		b.exit("a2")
		none := &task{id: "zz", bundle: b.bundle("zz"), rec: b.find("a1").rec}
		said := func(id string, args ...string) string {
			task := none
			if id != "zz" {
				task = b.find(id)
			}
			return saidText(b.call(ctx, task, append(args, id)...))
		}
		keep("start-running", said("a1", "start"))
		keep("start-stopped", said("a2", "start"))
		keep("start-missing", said("zz", "start"))
		keep("delete-running", said("a1", "delete"))
		keep("delete-missing", said("zz", "delete"))
		keep("kill-stopped", said("a2", "kill"))
		keep("pause-stopped", said("a2", "pause"))
		for name, c := range map[string]Container{
			"exec-missing":   {Args: []string{"/missing"}},
			"exec-path":      {Args: []string{"missing"}},
			"exec-directory": {Args: []string{"/data"}},
			"exec-mode":      {Args: []string{"/notexec"}},
			"netns-missing":  {Args: []string{"/probe"}, Netns: "/no/netns"},
			"mount-missing":  {Args: []string{"/probe"}, Mounts: []Mount{{Type: "bind", Source: "/no/source", Target: "/x"}}},
		} {
			k := b.container("b1")
			writeRoot(t, k, "notexec", "x", 0o644)
			k.Args, k.Netns, k.Mounts = c.Args, c.Netns, c.Mounts
			err := b.Create(ctx, k)
			var se *StartError
			if !errors.As(err, &se) {
				t.Fatalf("%s: %v", name, err)
			}
			keep(name, se.Detail)
		}
	})
}
