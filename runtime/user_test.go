package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func lookup(t *testing.T, dir, user string, add ...string) (identity, error) {
	t.Helper()
	r, err := openRootfs(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	return lookupUser(r, user, add)
}

func TestUser_Resolves(t *testing.T) {
	dir := paperRoot(t)
	for text, want := range map[string]identity{
		"":          {uid: 0, gid: 0, groups: []uint32{0}, home: "/root"},
		"root":      {uid: 0, gid: 0, groups: []uint32{0}, home: "/root"},
		"app":       {uid: 1000, gid: 1000, groups: []uint32{10, 1000}, home: "/home/app"},
		"1000":      {uid: 1000, gid: 1000, groups: []uint32{10, 1000}, home: "/home/app"},
		"app:root":  {uid: 1000, gid: 0, groups: []uint32{0}, home: "/home/app"},
		"app:":      {uid: 1000, gid: 1000, groups: []uint32{10, 1000}, home: "/home/app"},
		"4242":      {uid: 4242, gid: 0, groups: []uint32{0}, home: "/"},
		"4242:4343": {uid: 4242, gid: 4343, groups: []uint32{4343}, home: "/"},
		":wheel":    {uid: 0, gid: 10, groups: []uint32{10}, home: "/root"},
	} {
		got, err := lookup(t, dir, text)
		if err != nil || got.uid != want.uid || got.gid != want.gid || got.home != want.home || !slices.Equal(got.groups, want.groups) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

// E23: no text makes a user root that did not ask for it.
func TestUser_Hostile_IsRefused(t *testing.T) {
	dir := paperRoot(t)
	for _, text := range []string{
		"4294967296", "2147483647", "4294967295", "18446744073709551616", "-1", "0x0", "+0", "0 ", " 0", "nobody",
		"0:0x", "root:nogroup", "root:4294967296", "root:-1", strings.Repeat("9", 70000), "app:1000:0", "\n",
	} {
		got, err := lookup(t, dir, text)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%.30q: %+v, %v", text, got, err)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%.30q: a message of %d bytes", text, len(err.Error()))
		}
	}
}

// A line of the image's passwd with such numbers is no way to root either.
func TestUser_HostileDatabase_IsRefused(t *testing.T) {
	for _, line := range []string{
		"app:x:4294967296:1000::/:/bin/sh\n", "app:x:-1:0::/:\n", "app:x::0::/:\n", "app:x:1000:99999999999::/:\n",
	} {
		dir := t.TempDir()
		writeRoot(t, Container{Rootfs: dir}, "etc/passwd", line, 0o644)
		if got, err := lookup(t, dir, "app"); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
}

// E24, E25: what stands for passwd in an image never leads outside, never
// blocks, and is never read whole when it is huge.
func TestUser_DatabaseIsNoFile_RefusedAtOnce(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(secret, []byte("evil:x:0:0::/:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(string) error{
		"fifo":              func(p string) error { return unix.Mkfifo(p, 0o644) },
		"folder":            func(p string) error { return os.Mkdir(p, 0o755) },
		"link to the host":  func(p string) error { return os.Symlink(secret, p) },
		"climbing link":     func(p string) error { return os.Symlink("../../../../../../.."+secret, p) },
		"link through proc": func(p string) error { return os.Symlink("/proc/self/root"+secret, p) },
		"loop":              func(p string) error { return os.Symlink("passwd", p) },
		"huge": func(p string) error {
			if err := os.WriteFile(p, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(p, 2<<30)
		},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := put(filepath.Join(dir, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if got, err := lookup(t, dir, "evil"); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

func TestUser_LinkWithinTheImage_IsFollowed(t *testing.T) {
	dir := t.TempDir()
	c := Container{Rootfs: dir}
	writeRoot(t, c, "nix/passwd", "app:x:7:8::/:\n", 0o644)
	writeRoot(t, c, "etc/x", "", 0o644)
	if err := os.Symlink("/nix/passwd", filepath.Join(dir, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if got, err := lookup(t, dir, "app"); err != nil || got.uid != 7 || got.gid != 8 {
		t.Errorf("%+v, %v", got, err)
	}
}
