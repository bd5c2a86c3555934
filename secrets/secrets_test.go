package secrets

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"berth/testbed"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { testbed.Main(m) }

func newStore(t *testing.T) *Store {
	t.Helper()
	return reopen(t, Config{Root: filepath.Join(t.TempDir(), "root"), Run: filepath.Join(t.TempDir(), "run")})
}

func reopen(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Sweep(nil, nil); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), s.cfg.Run) {
			t.Errorf("a mount is left below %s, %v", s.cfg.Run, err)
		}
	})
	return s
}

func put(t *testing.T, s *Store, content string) string {
	t.Helper()
	d, err := s.Put([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestPut_Get_AcrossRestart(t *testing.T) {
	s := newStore(t)
	for _, content := range []string{"", "swordfish", "\x00\xff binary \n", strings.Repeat("x", MaxSize)} {
		d := put(t, s, content)
		for _, s := range []*Store{s, reopen(t, s.cfg)} {
			if got, err := s.Get(d); err != nil || string(got) != content {
				t.Errorf("%.10q: got %d bytes, %v", content, len(got), err)
			}
		}
	}
	if _, err := s.Put(make([]byte, MaxSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	for _, d := range []string{"", "../identity", strings.Repeat("0", 64), strings.Repeat("Z", 64)} {
		if _, err := s.Get(d); !errors.Is(err, ErrNotFound) {
			t.Errorf("get %q: %v", d, err)
		}
	}
}

func TestPut_Again_WritesNothing(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "same")
	before, err := os.Stat(s.file(d))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{s, reopen(t, s.cfg)} {
		if again := put(t, s, "same"); again != d {
			t.Errorf("digest %s, then %s", d, again)
		}
	}
	after, err := os.Stat(s.file(d))
	if err != nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Errorf("the file was written again: %v", err)
	}
}

// A digest is shown in plans; nobody may test guesses against it.
func TestDigest_IsKeyed(t *testing.T) {
	a, b := newStore(t), newStore(t)
	d := put(t, a, "1234")
	if d == put(t, b, "1234") {
		t.Error("two machines give one digest")
	}
	sum := sha256.Sum256([]byte("1234"))
	if d == hex.EncodeToString(sum[:]) {
		t.Error("the digest is a bare hash")
	}
}

func TestStore_Files_ArePrivateAndEncrypted(t *testing.T) {
	s := newStore(t)
	const canary = "canary-7f3a-value"
	put(t, s, canary)
	err := filepath.WalkDir(s.cfg.Root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]
		if d.Name() == "identity" {
			want = 0o400
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", p, fi.Mode().Perm(), want)
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(p)
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("plain content in %s", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpen_IdentityMissing_SaysSo(t *testing.T) {
	s := newStore(t)
	put(t, s, "x")
	identity, err := os.ReadFile(s.identityFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.identityFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.cfg); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "identity") {
		t.Errorf("error %v", err)
	}
	if err := os.WriteFile(s.identityFile(), identity[:20], 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.cfg); !errors.Is(err, ErrDamaged) || strings.Contains(err.Error(), string(identity[:20])) {
		t.Errorf("error %v", err)
	}
}

func TestDeliver_OwnersModesAndContent(t *testing.T) {
	testbed.NeedKernel(t)
	s := newStore(t)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	files := []File{
		{Digest: put(t, s, "one"), Name: "one", UID: 0, GID: 0, Mode: 0o444},
		{Digest: put(t, s, "two"), Name: "two", UID: 1000, GID: 999, Mode: 0o400},
		{Digest: put(t, s, strings.Repeat("b", MaxSize)), Name: "big", Mode: 0o440},
		{Digest: put(t, s, ""), Name: "empty", Mode: 0},
	}
	for range 2 { // idempotent
		dir, err := s.Deliver("task1", files)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			p := filepath.Join(dir, f.Name)
			var st unix.Stat_t
			if err := unix.Stat(p, &st); err != nil {
				t.Fatal(err)
			}
			if st.Uid != uint32(f.UID) || st.Gid != uint32(f.GID) || st.Mode&0o7777 != f.Mode {
				t.Errorf("%s: %d:%d %o", f.Name, st.Uid, st.Gid, st.Mode&0o7777)
			}
			want, err := s.Get(f.Digest)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(p); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, %v", f.Name, len(got), err)
			}
		}
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o711 {
			t.Errorf("folder %v, %v", fi.Mode(), err)
		}
		if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing: %v", err)
		}
		options := mountOptions(t, dir)
		promised := []string{"nosuid", "nodev", "noexec", "ro"}
		if knowsNoswap(t) {
			promised = append(promised, "noswap")
		}
		for _, o := range promised {
			if !strings.Contains(","+options+",", ","+o+",") {
				t.Errorf("mounted %s, without %s", options, o)
			}
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) > maxDelivery || fs.Bavail > 1 {
			t.Errorf("%d blocks, %d of them free, %v", fs.Blocks, fs.Bavail, err)
		}
		if n := strings.Count(allMounts(t), " "+dir+" "); n != 1 {
			t.Errorf("%d mounts at %s", n, dir)
		}
	}
	for range 2 {
		if err := s.Withdraw("task1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(s.dir("task1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

// knowsNoswap says whether the kernel has tmpfs's noswap (6.4).
func knowsNoswap(t *testing.T) bool {
	t.Helper()
	dir := t.TempDir()
	if unix.Mount("tmpfs", dir, "tmpfs", 0, "noswap") != nil {
		return false
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	return true
}

func allMounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mountOptions(t *testing.T, dir string) string {
	t.Helper()
	for line := range strings.Lines(allMounts(t)) {
		f := strings.Fields(line)
		if len(f) > 5 && f[4] == dir {
			return f[5] + "," + f[len(f)-1] // of the mount and of the file system
		}
	}
	t.Fatalf("%s is not mounted", dir)
	return ""
}

func TestDeliver_Fails_LeavesNothing(t *testing.T) {
	testbed.NeedKernel(t)
	s := newStore(t)
	good := File{Digest: put(t, s, "x"), Name: "x", Mode: 0o400}
	for name, files := range map[string][]File{
		"unknown digest": {good, {Digest: strings.Repeat("0", 64), Name: "y"}},
		"slash":          {{Digest: good.Digest, Name: "../x"}},
		"dots":           {{Digest: good.Digest, Name: ".."}},
		"empty name":     {{Digest: good.Digest}},
		"twice":          {good, good},
		"negative owner": {{Digest: good.Digest, Name: "x", UID: -1}},
		"setuid":         {{Digest: good.Digest, Name: "x", Mode: 0o4755}},
		"too many":       make([]File, maxFiles+1),
	} {
		if dir, err := s.Deliver("task1", files); err == nil || dir != "" {
			t.Errorf("%s: %q, %v", name, dir, err)
		}
		if _, err := os.Lstat(s.dir("task1")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something is left", name)
		}
	}
	for _, id := range []string{"", "..", "a/b", "A"} {
		if _, err := s.Deliver(id, nil); err == nil {
			t.Errorf("task id %q was taken", id)
		}
		if err := s.Withdraw(id); err == nil {
			t.Errorf("task id %q was taken", id)
		}
	}
}

func TestDeliver_ManyFiles_Fit(t *testing.T) {
	testbed.NeedKernel(t)
	s := newStore(t)
	d := put(t, s, "x")
	files := make([]File, maxFiles)
	for i := range files {
		files[i] = File{Digest: d, Name: fmt.Sprintf("%0255d", i), Mode: 0o400}
	}
	dir, err := s.Deliver("many", files)
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != maxFiles {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

func TestSweep_KeepsWhatIsUsed(t *testing.T) {
	testbed.NeedKernel(t)
	s := newStore(t)
	used, unused := put(t, s, "used"), put(t, s, "unused")
	for _, id := range []string{"stays", "goes"} {
		if _, err := s.Deliver(id, []File{{Digest: used, Name: "x"}}); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s.cfg) // also what another agent delivered
	if err := s.Sweep(map[string]bool{"stays": true}, map[string]bool{used: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(used); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(unused); !errors.Is(err, ErrNotFound) {
		t.Errorf("unused content: %v", err)
	}
	if put(t, s, "unused") != unused {
		t.Error("another digest")
	}
	if _, err := s.Get(unused); err != nil {
		t.Errorf("put again after the sweep: %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.dir("stays"), "x")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.dir("goes")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("delivery left: %v", err)
	}
}

func BenchmarkDeliver(b *testing.B) {
	testbed.NeedKernel(b)
	s, err := Open(Config{Root: b.TempDir(), Run: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	d, err := s.Put([]byte("x"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Deliver("t", []File{{Digest: d, Name: "x", Mode: 0o400}}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Withdraw("t"); err != nil {
		b.Fatal(err)
	}
}

// A rollout failed by it: between fork and exec a new process has the agent's
// open files, also the one that is being written.
func TestDeliver_WhileProcessesStart_Succeeds(t *testing.T) {
	testbed.NeedKernel(t)
	s := newStore(t)
	files := []File{{Digest: put(t, s, "x"), Name: "x", Mode: 0o400}}
	stop := make(chan struct{})
	var starting sync.WaitGroup
	for range 2 {
		starting.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command("/bin/true").Run() // what comes of it is nobody's matter
				}
			}
		})
	}
	for range 300 {
		if _, err := s.Deliver("task1", files); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	starting.Wait()
}

// A repeated `up` repairs what it brings, also in an agent that has read the
// file when it was whole.
func TestPut_OfWhatWasDamagedSince_WritesItAgain(t *testing.T) {
	s := newStore(t)
	digest := put(t, s, "swordfish")
	if _, err := s.Get(digest); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file(digest), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, s, "swordfish")
	if got, err := s.Get(digest); err != nil || string(got) != "swordfish" {
		t.Errorf("%q, %v", got, err)
	}
}
