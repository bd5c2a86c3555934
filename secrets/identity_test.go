package secrets

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"berth/testbed"
)

func TestOpen_IdentityOthersCanRead_IsRefused(t *testing.T) {
	s := newStore(t)
	if err := os.Chmod(s.identityFile(), 0o440); err != nil {
		t.Fatal(err)
	}
	_, err := Open(s.cfg)
	if !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), "chmod 0400 "+s.identityFile()) {
		t.Errorf("error %v", err)
	}
}

func TestOpen_IdentityOfAnotherStore_IsRefused(t *testing.T) {
	s, other := newStore(t), newStore(t)
	put(t, s, "x")
	text, err := os.ReadFile(other.identityFile())
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(s.identityFile())
	if err := os.WriteFile(s.identityFile(), text, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.cfg); !errors.Is(err, ErrWrongIdentity) || strings.Contains(err.Error(), strings.TrimSpace(string(text))) {
		t.Errorf("error %v", err)
	}
}

func TestOpen_DigestKeyGone_SaysSo(t *testing.T) {
	s := newStore(t)
	put(t, s, "x")
	os.Remove(s.digestKeyFile())
	if _, err := Open(s.cfg); !errors.Is(err, ErrDamaged) {
		t.Errorf("missing: %v", err)
	}
}

func TestOpen_IdentityOfTheOperator(t *testing.T) {
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "host key")
	if err := os.WriteFile(path, []byte("# made by age-keygen\n"+id.String()+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	root := filepath.Join(dir, "root")
	for _, from := range []string{path, "credential:host key", "fd:"} {
		if from == "fd:" {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Dup(int(f.Fd())) // the store closes it
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			from = fmt.Sprintf("fd:%d", fd)
		}
		s := reopen(t, Config{Root: root, Run: filepath.Join(dir, "run"), Identity: from})
		if got, err := s.Get(put(t, s, "swordfish")); err != nil || string(got) != "swordfish" {
			t.Errorf("%s: %q, %v", from, got, err)
		}
		if _, err := os.Stat(s.identityFile()); err == nil {
			t.Errorf("%s: an identity of its own was made", from)
		}
		if err := s.Rekey(); !errors.Is(err, ErrForeignIdentity) {
			t.Errorf("%s: re-key: %v", from, err)
		}
	}
	for _, from := range []string{"credential:../x", "credential:", "credential:none", "fd:x", "fd:-1", filepath.Join(dir, "none"), dir} {
		if _, err := Open(Config{Root: root, Run: filepath.Join(dir, "run"), Identity: from}); err == nil {
			t.Errorf("%s: it opens", from)
		}
	}
}

func TestRekey_EverythingIsReadable_TheOldIdentityReadsNothing(t *testing.T) {
	s := newStore(t)
	contents := []string{"", "one", "two"}
	for _, c := range contents {
		put(t, s, c)
	}
	old, err := os.ReadFile(s.identityFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Rekey(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{s, reopen(t, s.cfg)} {
		for _, c := range contents {
			if got, err := s.Get(s.Digest([]byte(c))); err != nil || string(got) != c {
				t.Errorf("%q: %q, %v", c, got, err)
			}
		}
	}
	was, err := parseKeys(old)
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile(s.identityFile())
	if err != nil || strings.Contains(string(now), strings.TrimSpace(string(old))) {
		t.Errorf("the old identity is still there, %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(s.cfg.Root, "*", "*.age"))
	for _, path := range append(files, s.digestKeyFile()) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := age.Decrypt(f, was...); err == nil {
			t.Errorf("the old identity reads %s", path)
		}
		f.Close()
	}
}

// An agent that died after the new identity was written, at any file.
func TestOpen_FinishesARekey(t *testing.T) {
	for done := range 3 {
		s := newStore(t)
		digests := []string{put(t, s, "one"), put(t, s, "two")}
		id, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		s.keys = append(keys{id}, s.keys...)
		if err := s.writeIdentity(); err != nil {
			t.Fatal(err)
		}
		for _, d := range digests[:min(done, 2)] {
			content, err := s.get(d)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.write(d, content); err != nil {
				t.Fatal(err)
			}
		}
		again := reopen(t, s.cfg)
		if len(again.keys) != 1 {
			t.Errorf("%d identities are left", len(again.keys))
		}
		once := reopen(t, s.cfg)
		for _, d := range digests {
			if _, err := once.Get(d); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestOpen_IdentityOfAnotherKind_IsRefused(t *testing.T) {
	for _, test := range []struct {
		name, want string
		make       func(path string) error
	}{
		{"symbolic link", "is a symbolic link", func(path string) error {
			if err := os.Rename(path, path+".real"); err != nil {
				return err
			}
			return os.Symlink(path+".real", path)
		}},
		{"folder", "is no file", func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Mkdir(path, 0o700)
		}},
		{"pipe", "is no file", func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return unix.Mkfifo(path, 0o400)
		}},
		{"empty", "put it back", func(path string) error { return os.Truncate(path, 0) }},
		{"of another user", "belongs to user 1234: others can read it; run: chown 0:0 ", func(path string) error { return os.Chown(path, 1234, 0) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			testbed.NeedKernel(t) // root, for its owner
			s := newStore(t)
			d := put(t, s, "x")
			if err := test.make(s.identityFile()); err != nil {
				t.Fatal(err)
			}
			_, err := Open(s.cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), s.identityFile()) {
				t.Errorf("error %v", err)
			}
			if got, err := s.Get(d); err != nil || string(got) != "x" {
				t.Errorf("the store that is open gives %q, %v", got, err)
			}
		})
	}
}

// TestOpen_RootWithAPattern: the names of folders are no patterns.
func TestOpen_RootWithAPattern_IdentityMissing_SaysSo(t *testing.T) {
	s := reopen(t, Config{Root: filepath.Join(t.TempDir(), "a[b]"), Run: filepath.Join(t.TempDir(), "run")})
	put(t, s, "x")
	for _, file := range []string{s.identityFile(), s.digestKeyFile()} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(s.cfg); !errors.Is(err, ErrDamaged) {
			t.Fatalf("without %s: %v", file, err)
		}
	}
}

// TestOpen_RemovesWhatACutOffWriteLeft: it may be an identity.
func TestOpen_RemovesWhatACutOffWriteLeft(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{".identity1234", ".digest-key.age99", ".repository-key.age5"} {
		if err := os.WriteFile(filepath.Join(s.cfg.Root, name), []byte("x"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	reopen(t, s.cfg)
	left, err := filepath.Glob(filepath.Join(s.cfg.Root, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%s are left, %v", left, err)
	}
}

// TestRekey_ADamagedContent_NothingIsLost: what can't be read can't be written
// anew, and the identity that could read it when it is put back stays.
func TestRekey_ADamagedContent_NothingIsLost(t *testing.T) {
	s := newStore(t)
	one, two := put(t, s, "one"), put(t, s, "two")
	whole, err := os.ReadFile(s.file(one))
	if err != nil {
		t.Fatal(err)
	}
	kept{path: s.file(one)}.spoil(t, whole[1:])
	var damaged *DamagedError
	if err := s.Rekey(); !errors.As(err, &damaged) || damaged.Digest != one {
		t.Fatalf("re-key: %v", err)
	}
	put(t, s, "three")
	again := reopen(t, s.cfg)
	if err := again.Unfinished(); !errors.As(err, &damaged) {
		t.Errorf("unfinished: %v", err)
	}
	for _, s := range []*Store{s, again} {
		for _, want := range []string{"two", "three"} {
			if got, err := s.Get(s.Digest([]byte(want))); err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
	kept{path: again.file(one)}.spoil(t, whole) // from a backup
	if err := again.Rekey(); err != nil || again.Unfinished() != nil {
		t.Fatalf("%v, %v", err, again.Unfinished())
	}
	if n := strings.Count(readFile(t, again.identityFile()), "\n"); n != 1 {
		t.Errorf("%d identities are left", n)
	}
	for _, d := range []string{one, two} {
		if _, err := reopen(t, again.cfg).Get(d); err != nil {
			t.Error(err)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
