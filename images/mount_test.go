package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"berth/testbed"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// capNetBind is cap_net_bind_service=ep as the kernel stores it.
const capNetBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func richLayers(t testing.TB) []v1.Layer {
	return []v1.Layer{
		layerOf(t,
			dir("bin"), file("bin/su", "#!").owned(0, 0, 0o4755), file("bin/ping", "p").xattr("security.capability", capNetBind),
			dir("data").owned(5, 6, 0o2770), file("data/a", "low"), file("data/b", "low"),
			dir("old"), file("old/x", "1"), dir("old/deep"), file("old/deep/y", "2"),
			link(tar.TypeLink, "bin/su2", "bin/su"), link(tar.TypeSymlink, "lib", "usr/lib"),
			entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o620}}),
		layerOf(t,
			dir("data").owned(5, 6, 0o2770), file("data/b", "high"), file("data/.wh.a", ""),
			dir("old"), file("old/.wh..wh..opq", ""), file("old/new", "3")),
		layerOf(t, dir("etc"), file("etc/hosts", "h").owned(1, 2, 0o600)),
	}
}

func mounted(t testing.TB, s *Store, digest string, m Mount) {
	t.Helper()
	if err := s.Mount(t.Context(), digest, m); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(m.Target); err != nil {
			t.Error(err)
		}
	})
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

func TestMount_Writable_ShowsMergedLayers(t *testing.T) {
	testbed.NeedKernel(t)
	for _, api := range []string{"new", "old"} {
		t.Run(api, func(t *testing.T) {
			reg := newRegistry(t)
			reg.push(t, "library/rich:v1", imageOf(t, richLayers(t)...))
			s := newStore(t, reg)
			s.oldAPI.Store(api == "old")
			img := pull(t, s, "rich:v1")
			d := t.TempDir()
			m := Mount{Target: filepath.Join(d, "root"), Upper: filepath.Join(d, "up:per,1"), Work: filepath.Join(d, "work")}
			mounted(t, s, img.Digest, m)
			if diff := cmp.Diff([]string{"b"}, names(t, m.Target+"/data")); diff != "" {
				t.Error("whiteout:", diff)
			}
			if diff := cmp.Diff([]string{"new"}, names(t, m.Target+"/old")); diff != "" {
				t.Error("opaque directory:", diff)
			}
			if b, _ := os.ReadFile(m.Target + "/data/b"); string(b) != "high" {
				t.Errorf("data/b is %q", b)
			}
			for name, want := range map[string]string{"bin/su": "0 4755", "bin/su2": "0 4755", "data": "5 2770", "pipe": "0 620", "etc/hosts": "1 600"} {
				if got := ownerAndMode(t, filepath.Join(m.Target, name)); got != want {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
			}
			if x := xattrsOf(m.Target + "/bin/ping"); !strings.Contains(x, "security.capability") {
				t.Errorf("file capability is lost: %q", x)
			}
			if err := os.WriteFile(m.Target+"/data/b", []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := readLayerFile(t, s, img, 1, "data/b"); got != "high" {
				t.Error("a write reached the layer")
			}
			if b, err := os.ReadFile(m.Upper + "/data/b"); err != nil || string(b) != "mine" {
				t.Errorf("upper: %q, %v", b, err)
			}
			if err := Preflight(m.Target); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMount_Setuid_TakesEffect(t *testing.T) {
	testbed.NeedKernel(t)
	id, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Skip("SKIPPED: needs /usr/bin/id to run with a setuid bit")
	}
	reg := newRegistry(t)
	reg.push(t, "library/suid:v1", imageOf(t, layerOf(t, file("id", string(id)).owned(0, 0, 0o4755))))
	s := newStore(t, reg)
	img := pull(t, s, "suid:v1")
	// Not below TempDir: its parents are closed to other users.
	target, err := os.MkdirTemp("/run", "berth-images-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(target)
	mounted(t, s, img.Digest, Mount{Target: target})
	if err := os.Chmod(target, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
		t.Fatal(err)
	}
	cmd := exec.Command(target + "/id")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "euid=0(root)") {
		t.Errorf("%s, %v; want euid 0", out, err)
	}
}

func TestMount_ReadOnly_RefusesWrites(t *testing.T) {
	testbed.NeedKernel(t)
	reg := newRegistry(t)
	s := newStore(t, reg)
	for n, layers := range map[int][]v1.Layer{1: richLayers(t)[:1], 3: richLayers(t)} {
		reg.push(t, fmt.Sprintf("library/ro:%d", n), imageOf(t, layers...))
		img := pull(t, s, fmt.Sprintf("ro:%d", n))
		target := filepath.Join(t.TempDir(), "made", "here")
		mounted(t, s, img.Digest, Mount{Target: target})
		if err := os.WriteFile(target+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("%d layers: write: %v, want EROFS", n, err)
		}
		if _, err := os.Stat(target + "/bin/su"); err != nil {
			t.Error(err)
		}
	}
}

func TestMount_130Layers(t *testing.T) {
	testbed.NeedKernel(t)
	reg := newRegistry(t)
	s := newStore(t, reg)
	var layers []v1.Layer
	for i := range 130 {
		layers = append(layers, layerOf(t, file(fmt.Sprintf("f%03d", i), "x"), file("top", fmt.Sprint(i))))
	}
	// One layer twice: overlayfs would refuse it.
	layers = append(layers, layers[3])
	reg.push(t, "library/deep:v1", imageOf(t, layers...))
	img := pull(t, s, "deep:v1")
	for _, old := range []bool{false, true} {
		s.oldAPI.Store(old)
		d := t.TempDir()
		m := Mount{Target: d + "/root", Upper: d + "/upper", Work: d + "/work"}
		mounted(t, s, img.Digest, m)
		if n := len(names(t, m.Target)); n != 131 {
			t.Errorf("%d files, want 131 (old interface: %v)", n, old)
		}
		if b, _ := os.ReadFile(m.Target + "/top"); string(b) != "3" {
			t.Errorf("top is of layer %s", b)
		}
	}
}

func TestMount_PathsLongerThanFsconfigTakes(t *testing.T) {
	testbed.NeedKernel(t)
	reg := newRegistry(t)
	reg.push(t, "library/rich:v1", imageOf(t, richLayers(t)...))
	long := filepath.Join(t.TempDir(), strings.Repeat("long/", 60))
	for _, root := range []string{t.TempDir(), long + "/root"} {
		s := openStore(t, root, reg)
		img := pull(t, s, "rich:v1")
		d := filepath.Join(long, filepath.Base(root)+"-mount")
		m := Mount{Target: d + "/root", Upper: d + "/upper", Work: d + "/work"}
		mounted(t, s, img.Digest, m)
		if diff := cmp.Diff([]string{"b"}, names(t, m.Target+"/data")); diff != "" {
			t.Error(diff)
		}
		if s.oldAPI.Load() {
			t.Error("the long path was taken for an old kernel")
		}
	}
}

func TestMount_ScratchImage_IsEmptyAndWritable(t *testing.T) {
	testbed.NeedKernel(t)
	reg := newRegistry(t)
	s := newStore(t, reg)
	reg.push(t, "library/scratch:v1", imageOf(t))
	img := pull(t, s, "scratch:v1")
	d := t.TempDir()
	mounted(t, s, img.Digest, Mount{Target: d + "/rw", Upper: d + "/u", Work: d + "/w"})
	mounted(t, s, img.Digest, Mount{Target: d + "/ro"})
	if err := os.WriteFile(d+"/rw/x", nil, 0o600); err != nil {
		t.Error(err)
	}
	if n := names(t, d+"/ro"); len(n) != 0 {
		t.Errorf("holds %v", n)
	}
}

func TestMount_Twice_IsOneMount_UnmountTwice_IsFine(t *testing.T) {
	testbed.NeedKernel(t)
	reg := newRegistry(t)
	s := newStore(t, reg)
	reg.push(t, "library/rich:v1", imageOf(t, richLayers(t)...))
	img := pull(t, s, "rich:v1")
	d := t.TempDir()
	m := Mount{Target: d + "/root", Upper: d + "/upper", Work: d + "/work"}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Mount(t.Context(), img.Digest, m); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := mountsBelow(t, d); n != 1 {
		t.Errorf("%d mounts", n)
	}
	busy, err := os.Open(m.Target + "/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for range 2 {
		if err := s.Unmount(m.Target); err != nil {
			t.Error(err)
		}
	}
	if err := s.Unmount(d + "/never/was"); err != nil {
		t.Error(err)
	}
	if n := mountsBelow(t, d); n != 0 {
		t.Errorf("%d mounts left", n)
	}
	if b := make([]byte, 1); mustRead(busy, b) != "h" {
		t.Error("the open file lost its content")
	}
}

func mustRead(f *os.File, b []byte) string {
	n, _ := f.Read(b)
	return string(b[:n])
}

func mountsBelow(t testing.TB, dir string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), " "+dir+"/")
}

func TestMount_UnknownOrDamaged_SaysSo(t *testing.T) {
	testbed.NeedKernel(t)
	reg := newRegistry(t)
	s := newStore(t, reg)
	d := t.TempDir()
	if err := s.Mount(t.Context(), "sha256:00", Mount{Target: d + "/a"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	reg.push(t, "library/rich:v1", imageOf(t, richLayers(t)...))
	img := pull(t, s, "rich:v1")
	if err := os.RemoveAll(s.layerDir(s.layers[img.Layers[1]])); err != nil {
		t.Fatal(err)
	}
	err := s.Mount(t.Context(), img.Digest, Mount{Target: d + "/a", Upper: d + "/u", Work: d + "/w"})
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "pull it again") {
		t.Errorf("a layer is gone: %v", err)
	}
	if n := mountsBelow(t, d); n != 0 {
		t.Errorf("%d mounts left", n)
	}
}

func TestPreflight_RefusesLinksAndFiles(t *testing.T) {
	for _, name := range []string{"dev", "proc", "sys", "run", "etc"} {
		for kind, make := range map[string]func(string) error{
			"symlink to host":     func(p string) error { return os.Symlink("/"+name, p) },
			"symlink inside":      func(p string) error { return os.Symlink("real", p) },
			"dangling symlink":    func(p string) error { return os.Symlink("/nowhere", p) },
			"file":                func(p string) error { return os.WriteFile(p, nil, 0o600) },
			"fifo, never blocked": func(p string) error { return unix.Mkfifo(p, 0o600) },
		} {
			root := t.TempDir()
			if err := os.Mkdir(root+"/real", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := make(filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
			if err := Preflight(root); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "/"+name+" ") {
				t.Errorf("%s is a %s: %v", name, kind, err)
			}
		}
	}
	root := t.TempDir()
	if err := Preflight(root); err != nil {
		t.Errorf("all absent: %v", err)
	}
	if err := os.MkdirAll(root+"/etc/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Preflight(root); err != nil {
		t.Errorf("directories: %v", err)
	}
}
