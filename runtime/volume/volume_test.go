package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/testbed"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { testbed.Main(m) }

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestCreate_Again_ReturnsWhatIsThere(t *testing.T) {
	s := open(t)
	a, err := s.Create("data", map[string]string{"stack": "shop"}, nil)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(a.Mountpoint, "x"), nil, 0o600))
	b, err := s.Create("data", map[string]string{"stack": "other"}, nil)
	must(t, err)
	if b.Labels["stack"] != "shop" || !b.CreatedAt.Equal(a.CreatedAt) || b.Mountpoint != s.Mountpoint("data") {
		t.Errorf("%+v, then %+v", a, b)
	}
	if _, err := s.Create("data", nil, map[string]string{"type": "none", "o": "bind", "device": "/x"}); !errors.Is(err, ErrDiffers) {
		t.Errorf("other options: %v", err)
	}
	if _, err := os.Stat(filepath.Join(a.Mountpoint, "x")); err != nil {
		t.Error(err)
	}
}

func TestCreate_WrongNamesAndOptions(t *testing.T) {
	s := open(t)
	for _, n := range []string{"", ".", "..", "a/b", "-a", "a b", strings.Repeat("a", 201), "a\x00"} {
		if _, err := s.Create(n, nil, nil); !errors.Is(err, ErrName) {
			t.Errorf("%.20q: %v", n, err)
		}
		if err := s.Remove(n); !errors.Is(err, ErrName) {
			t.Errorf("remove %.20q: %v", n, err)
		}
		if _, err := s.Get(n); !errors.Is(err, ErrNotFound) {
			t.Errorf("get %.20q: %v", n, err)
		}
	}
	for _, o := range []map[string]string{{"size": "1"}, {"type": "nfs"}} {
		if _, err := s.Create("v", nil, o); err == nil {
			t.Errorf("options %v were taken", o)
		}
	}
}

func TestList_Remove(t *testing.T) {
	s := open(t)
	for _, n := range []string{"c", "a", "b"} {
		_, err := s.Create(n, map[string]string{"name": n}, nil)
		must(t, err)
	}
	must(t, os.Mkdir(filepath.Join(s.root, "half"), 0o700)) // a Create that was cut off
	all, err := s.List()
	must(t, err)
	if len(all) != 3 || all[0].Name != "a" || all[2].Name != "c" {
		t.Errorf("list %+v", all)
	}
	for range 2 {
		must(t, s.Remove("a"))
	}
	if _, err := s.Get("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	if _, err := os.Stat(s.dir("a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("data left: %v", err)
	}
}

// The next volume of that name must not find half of the data.
func TestRemove_CutOff_LeavesNothingToTheNext(t *testing.T) {
	s := open(t)
	v, err := s.Create("a", nil, nil)
	must(t, err, os.WriteFile(filepath.Join(v.Mountpoint, "old"), nil, 0o600))
	must(t, os.Rename(s.dir("a"), filepath.Join(s.root, removedPrefix+"a")))
	s, err = Open(s.root)
	must(t, err)
	if left, err := os.ReadDir(s.root); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	v, err = s.Create("a", nil, nil)
	must(t, err)
	if found, err := os.ReadDir(v.Mountpoint); err != nil || len(found) > 0 {
		t.Errorf("found: %v, %v", found, err)
	}
}

func TestPrepare_BindVolume_ShowsTheDevice_AndRemoveKeepsIt(t *testing.T) {
	testbed.NeedKernel(t)
	s := open(t)
	device := t.TempDir()
	must(t, os.WriteFile(filepath.Join(device, "precious"), nil, 0o600))
	_, err := s.Create("v", nil, map[string]string{"type": "none", "o": "bind,ro", "device": device})
	must(t, err)
	for range 2 {
		dir, err := s.Prepare(t.Context(), "v")
		must(t, err)
		if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write: %v", err)
		}
	}
	must(t, s.Remove("v"))
	if _, err := os.Stat(filepath.Join(device, "precious")); err != nil {
		t.Errorf("what the volume pointed to is gone: %v", err)
	}
}

func TestPrepare_Tmpfs(t *testing.T) {
	testbed.NeedKernel(t)
	s := open(t)
	_, err := s.Create("v", nil, map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid"})
	must(t, err)
	dir, err := s.Prepare(t.Context(), "v")
	must(t, err)
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if st.Blocks*uint64(st.Bsize) != 1<<20 {
		t.Errorf("size %d", st.Blocks*uint64(st.Bsize))
	}
	must(t, s.Remove("v"))
}

// image makes a tree with one of each kind.
func image(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	d := filepath.Join(root, "var/lib/app")
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	must(t,
		os.MkdirAll(filepath.Join(d, "sub/closed"), 0o755),
		os.WriteFile(filepath.Join(d, "file"), []byte("content"), 0o640),
		os.WriteFile(filepath.Join(d, "sub/closed/tool"), []byte("#!"), 0o755),
		os.Chown(filepath.Join(d, "file"), 70, 71),
		os.Chmod(filepath.Join(d, "sub/closed/tool"), 0o755|fs.ModeSetuid),
		os.Link(filepath.Join(d, "file"), filepath.Join(d, "sub/hard")),
		os.Symlink("/etc/passwd", filepath.Join(d, "link")),
		unix.Mkfifo(filepath.Join(d, "fifo"), 0o622),
		os.Chtimes(filepath.Join(d, "file"), at, at),
		os.Chmod(filepath.Join(d, "sub/closed"), 0o500),
		os.Chtimes(filepath.Join(d, "sub"), at, at),
		os.Chown(d, 70, 71), os.Chmod(d, 0o700),
	)
	return root
}

func TestSeed_CopiesAllThereIs(t *testing.T) {
	testbed.NeedKernel(t)
	root := image(t)
	s := open(t)
	v, err := s.Create("v", nil, nil)
	must(t, err)
	src := filepath.Join(root, "var/lib/app/file")
	if err := unix.Setxattr(src, "user.note", []byte("kept"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	must(t, Seed(t.Context(), v.Mountpoint, root, "/var/lib/app"))
	from := describe(t, filepath.Join(root, "var/lib/app"))
	to := describe(t, v.Mountpoint)
	if from != to {
		t.Errorf("image:\n%s\nvolume:\n%s", from, to)
	}
	if pathThere(filepath.Join(s.dir("v"), "seeding")) {
		t.Error("the mark is left")
	}
}

func pathThere(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}

// describe lists a tree with all that Seed should keep.
func describe(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	inodes := map[uint64]string{}
	must(t, filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = string(b)
			note := make([]byte, 10)
			if n, err := unix.Getxattr(p, "user.note", note); err == nil {
				content += " note=" + string(note[:n])
			}
			if first, ok := inodes[st.Ino]; ok {
				content += " same as " + first
			}
			inodes[st.Ino] = rel
		case unix.S_IFLNK:
			content, _ = os.Readlink(p)
		}
		out.WriteString(strings.Join([]string{
			rel, fs.FileMode(st.Mode).String(), time.Unix(st.Mtim.Unix()).UTC().String(), content,
			time.Duration(st.Uid).String(), time.Duration(st.Gid).String(),
		}, " ") + "\n")
		return nil
	}))
	return out.String()
}

func TestSeed_VolumeWithContent_IsLeftAlone(t *testing.T) {
	testbed.NeedKernel(t)
	root := image(t)
	s := open(t)
	v, err := s.Create("v", nil, nil)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(v.Mountpoint, "mine"), []byte("x"), 0o600))
	must(t, Seed(t.Context(), v.Mountpoint, root, "/var/lib/app"))
	entries, err := os.ReadDir(v.Mountpoint)
	if err != nil || len(entries) != 1 {
		t.Errorf("entries %v, %v", entries, err)
	}
}

func TestSeed_PathNotInTheImage_IsNothing(t *testing.T) {
	s := open(t)
	v, err := s.Create("v", nil, nil)
	must(t, err)
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	for _, p := range []string{"/missing", "/file", "/file/below"} {
		must(t, Seed(t.Context(), v.Mountpoint, root, p))
	}
	if pathThere(filepath.Join(s.dir("v"), "seeding")) {
		t.Error("a mark was left")
	}
}

// A crash while seeding: the next Seed begins anew, and does not take the half
// for the application's data.
func TestSeed_CutOff_IsBegunAnew(t *testing.T) {
	testbed.NeedKernel(t)
	root := image(t)
	s := open(t)
	v, err := s.Create("v", nil, nil)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Seed(ctx, v.Mountpoint, root, "/var/lib/app"); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	must(t, os.WriteFile(filepath.Join(v.Mountpoint, "file"), []byte("con"), 0o600)) // half a file
	must(t, Seed(t.Context(), v.Mountpoint, root, "/var/lib/app"))
	if from, to := describe(t, filepath.Join(root, "var/lib/app")), describe(t, v.Mountpoint); from != to {
		t.Errorf("image:\n%s\nvolume:\n%s", from, to)
	}
}

func TestSeed_LinksOfTheImage_StayInside(t *testing.T) {
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "host-secret"), nil, 0o600))
	root := t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(root, "abs")), os.Symlink("../../../../../../.."+outside, filepath.Join(root, "rel")))
	s := open(t)
	v, err := s.Create("v", nil, nil)
	must(t, err)
	for _, p := range []string{"/abs", "/rel", "/../../.." + outside} {
		must(t, Seed(t.Context(), v.Mountpoint, root, p))
	}
	if entries, err := os.ReadDir(v.Mountpoint); err != nil || len(entries) != 0 {
		t.Errorf("copied from the host: %v, %v", entries, err)
	}
}

func TestSubpath_StaysInsideAndStaysPut(t *testing.T) {
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "host"), []byte("host"), 0o600))
	dir := t.TempDir()
	must(t,
		os.MkdirAll(filepath.Join(dir, "a/b"), 0o755),
		os.WriteFile(filepath.Join(dir, "a/b/f"), []byte("inside"), 0o600),
		os.Symlink("/a/b", filepath.Join(dir, "in")),
		os.Symlink(outside, filepath.Join(dir, "out")),
		os.Symlink("../../../../../.."+outside, filepath.Join(dir, "up")),
	)
	for _, sub := range []string{"a/b", "in", "a/../a/b", "../a/b"} {
		p, release, err := Subpath(dir, sub)
		must(t, err)
		if b, err := os.ReadFile(filepath.Join(p, "f")); err != nil || string(b) != "inside" {
			t.Errorf("%s: %q, %v", sub, b, err)
		}
		release()
	}
	for _, sub := range []string{"out", "up", "missing", "/a/b", "out/host", "a\x00"} {
		if p, release, err := Subpath(dir, sub); !errors.Is(err, ErrSubpath) {
			t.Errorf("%s: %s, %v", sub, p, err)
			if err == nil {
				release()
			}
		}
	}
	// A container that swaps the folder for a link meanwhile changes nothing.
	p, release, err := Subpath(dir, "a/b")
	must(t, err)
	defer release()
	must(t, os.Rename(filepath.Join(dir, "a/b"), filepath.Join(dir, "a/c")), os.Symlink(outside, filepath.Join(dir, "a/b")))
	if b, err := os.ReadFile(filepath.Join(p, "f")); err != nil || string(b) != "inside" {
		t.Errorf("after the swap: %q, %v", b, err)
	}
}
