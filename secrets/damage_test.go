package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

// kept is one file that must be found out if it was changed. read says what is
// wrong with it, as whoever needs it is told.
type kept struct {
	name, path string
	read       func() error
}

// damageable are all kinds of files that a store has, and an export.
func damageable(t *testing.T) []kept {
	t.Helper()
	s := newStore(t)
	small, big := put(t, s, "swordfish"), put(t, s, strings.Repeat("0123456789abcdef", 20<<10))
	if _, err := s.Recipients(); err != nil {
		t.Fatal(err)
	}
	get := func(digest string) func() error {
		return func() error { _, err := s.Get(digest); return err }
	}
	open := func() error { _, err := Open(s.cfg); return err }
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	data, err := Export([]Entry{{Kind: "secret", Name: "a", Content: []byte("swordfish")}}, []string{id.Recipient().String()}, "")
	if err != nil {
		t.Fatal(err)
	}
	export := filepath.Join(t.TempDir(), "export")
	if err := os.WriteFile(export, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return []kept{
		{"content", s.file(small), get(small)},
		{"big content", s.file(big), get(big)},
		{"digest key", s.digestKeyFile(), open},
		{"identity", s.identityFile(), open},
		{"repository key", s.repositoryKeyFile(), func() error {
			s, err := Open(s.cfg)
			if err != nil {
				return err
			}
			_, err = s.Recipients()
			return err
		}},
		{"export", export, func() error {
			data, err := os.ReadFile(export)
			if err != nil {
				return err
			}
			_, err = Import(data, id.String(), "")
			return err
		}},
	}
}

// spoil writes other bytes into the file.
func (k kept) spoil(t *testing.T, data []byte) {
	t.Helper()
	f, err := os.OpenFile(k.path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
}

// isFound wants one line that says which file it is about, and nothing of it.
func (k kept) isFound(t *testing.T, what string) {
	t.Helper()
	err := k.read()
	switch {
	case err == nil:
		t.Fatalf("%s: %s: it is taken", k.name, what)
	case strings.Contains(err.Error(), "\n"), strings.Contains(err.Error(), "SECRET-KEY"), strings.Contains(err.Error(), "swordfish"):
		t.Fatalf("%s: %s: %v", k.name, what, err)
	case k.name == "export" || strings.Contains(err.Error(), "is larger than"):
	case !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrWrongIdentity):
		t.Fatalf("%s: %s: %v", k.name, what, err)
	}
}

// at are the positions to try: all of a file, or of a big one both ends and a
// sample.
func at(size int) []int {
	const all = 4 << 10
	var out []int
	for i := range min(size, all/2) {
		out = append(out, i, size-1-i)
	}
	for range all {
		out = append(out, rand.IntN(size))
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if size > 64<<10 { // each costs its whole decryption
		sample := slices.DeleteFunc(out, func(int) bool { return rand.IntN(40) > 0 })
		return append(sample, 0, size-1)
	}
	return out
}

func TestDamage_AByteAnywhere_IsFound(t *testing.T) {
	for _, k := range damageable(t) {
		whole, err := os.ReadFile(k.path)
		if err != nil {
			t.Fatal(err)
		}
		positions := at(len(whole))
		for _, i := range positions {
			bad := bytes.Clone(whole)
			bad[i] ^= byte(1 + rand.IntN(255))
			k.spoil(t, bad)
			k.isFound(t, fmt.Sprintf("byte %d of %d is %#x instead of %#x", i, len(whole), bad[i], whole[i]))
		}
		t.Logf("%s: %d of its %d bytes changed, each was found", k.name, len(positions), len(whole))
		k.spoil(t, whole)
		if err := k.read(); err != nil {
			t.Errorf("%s: put back: %v", k.name, err)
		}
	}
}

func TestDamage_CutOffOrAppendedTo_IsFound(t *testing.T) {
	for _, k := range damageable(t) {
		whole, err := os.ReadFile(k.path)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range at(len(whole)) {
			if i%5 > 0 && n < len(whole)-2 {
				continue
			}
			k.spoil(t, whole[:n])
			k.isFound(t, fmt.Sprintf("cut off after %d bytes of %d", n, len(whole)))
		}
		for _, more := range []string{"\x00", "\n", "# x\n", strings.Repeat("\x00", 64<<10), strings.Repeat("x", 3<<20)} {
			k.spoil(t, append(bytes.Clone(whole), more...))
			k.isFound(t, fmt.Sprintf("%d bytes appended", len(more)))
		}
		k.spoil(t, append(bytes.Clone(whole), whole...))
		k.isFound(t, "twice in a row")
	}
}

// TestDamage_FilesOfOtherTimesAndPlaces: each is whole in itself.
func TestDamage_FilesOfOtherTimesAndPlaces_AreFound(t *testing.T) {
	s := newStore(t)
	one, two := put(t, s, "one"), put(t, s, "two")
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	files := []string{s.file(one), s.identityFile(), s.digestKeyFile()}
	var old [][]byte
	for _, path := range files {
		old = append(old, read(path))
	}

	k := kept{"content", s.file(one), func() error { _, err := s.Get(one); return err }}
	whole := read(k.path)
	k.spoil(t, read(s.file(two)))
	k.isFound(t, "another content's file")
	if _, err := s.Deliver("task1", []File{{Digest: one, Name: "0"}}); !errors.Is(err, ErrDamaged) {
		t.Errorf("it was delivered: %v", err)
	}
	k.spoil(t, whole)

	if err := s.Rekey(); err != nil {
		t.Fatal(err)
	}
	for i, path := range files {
		whole := read(path)
		k := kept{filepath.Base(path), path, func() error {
			s, err := Open(s.cfg)
			if err == nil {
				_, err = s.Get(one)
			}
			return err
		}}
		k.spoil(t, old[i])
		k.isFound(t, "that of before a re-key")
		k.spoil(t, whole)
		if err := k.read(); err != nil {
			t.Errorf("%s: put back: %v", path, err)
		}
	}
}

// TestDamage_DigestKeyOfAnotherStore has the same identity, as one that the
// operator keeps may.
func TestDamage_DigestKeyOfAnotherStore_IsFound(t *testing.T) {
	a := newStore(t)
	b := reopen(t, Config{Root: filepath.Join(t.TempDir(), "root"), Run: filepath.Join(t.TempDir(), "run"), Identity: a.identityFile()})
	d := put(t, b, "x")
	other, err := os.ReadFile(a.digestKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	kept{path: b.digestKeyFile()}.spoil(t, other)
	again := reopen(t, b.cfg)
	if _, err := again.Get(d); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
	}
}

// TestPut_OfADamagedContent_RepairsIt: also where this process has read it
// before it was damaged.
func TestPut_OfADamagedContent_RepairsIt(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "swordfish")
	kept{path: s.file(d)}.spoil(t, []byte("x"))
	for _, s := range []*Store{s, reopen(t, s.cfg)} {
		var damaged *DamagedError
		if _, err := s.Get(d); !errors.As(err, &damaged) || damaged.Digest != d {
			t.Errorf("error %v", err)
		}
		if again := put(t, s, "swordfish"); again != d {
			t.Errorf("digest %s", again)
		}
		if got, err := s.Get(d); err != nil || string(got) != "swordfish" {
			t.Errorf("%q, %v", got, err)
		}
		kept{path: s.file(d)}.spoil(t, []byte("x"))
	}
}
