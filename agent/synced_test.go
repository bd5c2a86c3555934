package agent

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/api"
)

// syncTar is a tar with one file.
func syncTar(name, content string) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(content)), Mode: 0o644})
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	return &b
}

// rooted makes a root file system with the files of an image and brings in what
// was synced to t.
func (b *bench) rooted(task string) string {
	b.t.Helper()
	dir, err := os.MkdirTemp(b.cfg.Root, "rootfs")
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "old"), []byte("image"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := b.applySynced(b.w.task(b.id(task)), dir); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

func TestSynced_IsBroughtToTheTasksThatFollow_UntilTheImageChanges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("files are made root's")
	}
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("web", "web:1"))
		b.up(st)
		task := b.w.task(b.id("web/1.1"))
		for _, f := range []struct{ name, content string }{{"app/main", "one"}, {"app/main", "two"}, {"../../../../escape", "x"}} {
			if err := b.keepSynced(task, syncTar(f.name, f.content)); err != nil {
				b.t.Fatal(err)
			}
		}
		if err := b.keepRemoved(task, "/old"); err != nil {
			b.t.Fatal(err)
		}
		b.action("shop", api.ActionRequest{Action: api.ActionRestart})
		dir := b.rooted("web/1.2")
		if got, _ := os.ReadFile(dir + "/app/main"); string(got) != "two" {
			t.Errorf("main is %q", got)
		}
		if _, err := os.Stat(dir + "/old"); err == nil {
			t.Error("what was removed is back")
		}
		if _, err := os.Stat(dir + "/escape"); err != nil {
			t.Error("a name with .. did not stay inside")
		}
		// What is written again is not removed any more.
		if err := b.keepSynced(task, syncTar("old", "synced")); err != nil {
			b.t.Fatal(err)
		}
		if got, _ := os.ReadFile(b.rooted("web/1.2") + "/old"); string(got) != "synced" {
			t.Errorf("old is %q", got)
		}
		again := stackOf("shop", service("web", "db:1"))
		b.up(again)
		if _, err := os.Stat(b.rooted("web/1.3") + "/app"); err == nil {
			t.Error("another image has what was synced to the first one")
		}
		if _, err := b.down(b.t.Context(), "shop", &api.DownRequest{}, func(api.Progress) {}); err != nil {
			b.t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(b.cfg.Root, "synced", "*")); len(left) > 0 {
			t.Errorf("left: %s", strings.Join(left, " "))
		}
	})
}
