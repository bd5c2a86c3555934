package secrets

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRewrite_ABoundFile_HasTheNewContent has a file bound as a container has
// it: by itself, read-only.
func TestRewrite_ABoundFile_HasTheNewContent(t *testing.T) {
	s := newStore(t)
	files := []File{
		{Digest: put(t, s, "first"), Name: "0", UID: 33, GID: 34, Mode: 0o440},
		{Digest: put(t, s, "stays"), Name: "1", Mode: 0o444},
	}
	dir, err := s.Deliver("task1", files)
	if err != nil {
		t.Fatal(err)
	}
	bound := filepath.Join(t.TempDir(), "bound")
	if err := os.WriteFile(bound, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join(dir, "0"), bound, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(bound, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Mount("", bound, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"longer than the first", "short", "", strings.Repeat("x", MaxSize), "short"} {
		for range 2 { // again, as after a crash
			if err := s.Rewrite("task1", []File{{Digest: put(t, s, content), Name: "0", UID: 33, GID: 34, Mode: 0o440}}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(bound); err != nil || string(got) != content {
			t.Errorf("%.10q: the container sees %.20q, %v", content, got, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "1")); err != nil || string(got) != "stays" {
		t.Errorf("the other file: %q, %v", got, err)
	}
	info, err := os.Stat(bound)
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 33 || st.Gid != 34 || info.Mode() != 0o440 {
		t.Errorf("owner and mode: %+v", info)
	}
	if err := os.WriteFile(filepath.Join(dir, "1"), []byte("x"), 0o600); err == nil {
		t.Error("the delivery is writable")
	}
	if options := mountOptions(t, dir); !strings.Contains(options, "ro") || !strings.Contains(options, "nosuid") || !strings.Contains(options, "noexec") {
		t.Errorf("mount options %s", options)
	}
}

func TestRewrite_WhatWasNotDelivered_Fails(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	if err := s.Rewrite("nobody", []File{{Digest: d, Name: "0"}}); err == nil {
		t.Error("of a task without a delivery")
	}
	dir, err := s.Deliver("task1", []File{{Digest: d, Name: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []File{{Digest: d, Name: "other"}, {Digest: strings.Repeat("0", 64), Name: "0"}, {Digest: d, Name: "../0"}} {
		if err := s.Rewrite("task1", []File{f}); err == nil {
			t.Errorf("%+v", f)
		}
	}
	if err := s.Rewrite("../task1", nil); err == nil {
		t.Error("of what is no task")
	}
	if got, err := os.ReadFile(filepath.Join(dir, "0")); err != nil || string(got) != "x" {
		t.Errorf("after failures: %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "0"), []byte("y"), 0o600); err == nil {
		t.Error("the delivery is writable after failures")
	}
}
