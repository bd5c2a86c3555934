package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *Root {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// entry is one entry of a tar made by hand.
type entry struct {
	kind          byte
	name, content string
}

func tarOf(t *testing.T, entries ...entry) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: e.kind, Name: e.name, Mode: 0o755}
		switch e.kind {
		case tar.TypeReg:
			h.Size = int64(len(e.content))
		default:
			h.Linkname = e.content
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if e.kind == tar.TypeReg {
			if _, err := io.WriteString(w, e.content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestPackUnpack_IsTheSameTree(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, from+"/tree/a", "a")
	write(t, from+"/tree/deep/b", strings.Repeat("b", 100_000))
	link(t, "../a", from+"/tree/deep/up")
	if err := os.Link(from+"/tree/a", from+"/tree/hard"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(from+"/tree/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := open(t, from).Pack(&b, "tree", false); err != nil {
		t.Fatal(err)
	}
	r := open(t, to)
	if err := r.Unpack(&b, "/", Options{UID: os.Getuid(), GID: os.Getgid()}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to + "/tree/deep/b")
	if err != nil || len(got) != 100_000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if to, err := os.Readlink(to + "/tree/deep/up"); err != nil || to != "../a" {
		t.Errorf("%q, %v", to, err)
	}
	a, _ := os.Stat(to + "/tree/a")
	hard, _ := os.Stat(to + "/tree/hard")
	was, _ := os.Stat(from + "/tree/a")
	if !os.SameFile(a, hard) || a.Mode() != was.Mode() || !a.ModTime().Equal(was.ModTime()) {
		t.Errorf("%v %v, was %v %v", a.Mode(), a.ModTime(), was.Mode(), was.ModTime())
	}
	if fi, err := os.Lstat(to + "/tree/pipe"); err != nil || fi.Mode()&fs.ModeNamedPipe == 0 {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestPack_LinksLeadNowhereOutside(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	write(t, outside+"/secret", "secret")
	link(t, outside, root+"/out")
	link(t, "../../../../../../.."+outside, root+"/up")
	link(t, "/proc/self/root", root+"/magic")
	r := open(t, root)
	for _, name := range []string{"out/secret", "up/secret", "magic/" + outside + "/secret", "../" + outside + "/secret", outside + "/secret"} {
		var b bytes.Buffer
		if err := r.Pack(&b, name, true); err == nil || strings.Contains(b.String(), "secret\x00") {
			t.Errorf("%s leads outside: %v", name, err)
		}
	}
	// Absolute links mean what they mean to a process in there.
	write(t, root+"/etc/file", "inside")
	link(t, "/etc", root+"/abs")
	if st, err := r.Stat("abs/file", true); err != nil || st.Path != "/etc/file" {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestUnpack_AHostileTar_WritesNothingOutside(t *testing.T) {
	for name, entries := range map[string][]entry{
		"dots":            {{tar.TypeReg, "../../../../evil", "x"}, {tar.TypeReg, "/evil2", "x"}},
		"link then file":  {{tar.TypeSymlink, "l", "OUTSIDE"}, {tar.TypeReg, "l/evil", "x"}},
		"link up":         {{tar.TypeSymlink, "l", "../../../../../.."}, {tar.TypeReg, "l/OUTSIDE/evil", "x"}},
		"link as folder":  {{tar.TypeSymlink, "l", "OUTSIDE"}, {tar.TypeDir, "l", ""}, {tar.TypeReg, "l/evil", "x"}},
		"hard link":       {{tar.TypeLink, "h", "OUTSIDE/victim"}, {tar.TypeReg, "h", "x"}},
		"hard link by ..": {{tar.TypeLink, "h", "../../../../../../../OUTSIDE/victim"}},
		"file over link":  {{tar.TypeSymlink, "l", "OUTSIDE/victim"}, {tar.TypeReg, "l", "x"}},
	} {
		outside, root := t.TempDir(), t.TempDir()
		write(t, outside+"/victim", "whole")
		if err := os.Mkdir(root+"/in", 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range entries {
			entries[i].name = strings.ReplaceAll(entries[i].name, "OUTSIDE", outside)
			entries[i].content = strings.ReplaceAll(entries[i].content, "OUTSIDE", outside)
		}
		err := open(t, root).Unpack(tarOf(t, entries...), "in", Options{UID: os.Getuid(), GID: os.Getgid()})
		list, _ := os.ReadDir(outside)
		text, _ := os.ReadFile(outside + "/victim")
		fi, _ := os.Stat(outside + "/victim")
		if len(list) != 1 || string(text) != "whole" || fi.Sys() == nil {
			t.Errorf("%s: outside has %v, victim %q (%v)", name, list, text, err)
		}
		if err := os.Remove(root + "/evil"); err == nil {
			t.Errorf("%s: it wrote beside the folder", name)
		}
	}
}

func TestUnpack_WhatItRefuses(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/in/dir/file", "x")
	write(t, root+"/in/plain", "x")
	r := open(t, root)
	o := Options{UID: os.Getuid(), GID: os.Getgid()}
	if err := r.Unpack(tarOf(t, entry{tar.TypeChar, "null", ""}), "in", o); !errors.Is(err, ErrKind) {
		t.Errorf("a device: %v", err)
	}
	if err := r.Unpack(tarOf(t, entry{tar.TypeReg, "dir", "x"}), "in", o); err == nil {
		t.Error("a file replaced a folder")
	}
	if err := r.Unpack(tarOf(t, entry{tar.TypeDir, "plain", ""}), "in", o); err == nil {
		t.Error("a folder replaced a file")
	}
	if err := r.Unpack(tarOf(t), "in/plain", o); err == nil {
		t.Error("a file was taken for a folder")
	}
	if err := r.Unpack(strings.NewReader("no tar at all, but long enough to be read as a header of one"), "in", o); err == nil {
		t.Error("nonsense was taken for a tar")
	}
}

func TestRemove_DoesNotFollowLinks(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	write(t, outside+"/victim", "whole")
	write(t, root+"/tree/deep/file", "x")
	link(t, outside, root+"/tree/out")
	r := open(t, root)
	for _, name := range []string{"tree", "tree", "not/there", "tree/out/victim"} {
		if err := r.Remove(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(outside + "/victim"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(root + "/tree"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := r.Remove("/"); err == nil {
		t.Error("the root was removed")
	}
}
