package secrets

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// fuzzStore is a store to give files to. Its identity is not hybrid: that would
// make each try ten times as slow.
func fuzzStore(f *testing.F) *Store {
	f.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "identity")
	if err := os.WriteFile(path, []byte(id.String()), 0o400); err != nil {
		f.Fatal(err)
	}
	s, err := Open(Config{Root: filepath.Join(f.TempDir(), "root"), Run: filepath.Join(f.TempDir(), "run"), Identity: path})
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// mutilated are seeds: data, and what trouble makes of it.
func mutilated(f *testing.F, data []byte) {
	f.Helper()
	flipped := bytes.Clone(data)
	flipped[len(data)/2] ^= 1
	for _, seed := range [][]byte{data, data[:len(data)/2], append(bytes.Clone(data), data...), flipped, nil, []byte("age-encryption.org/v1\n")} {
		f.Add(seed)
	}
}

// FuzzContentFile puts anything in the place of a content's file. The content
// itself comes back, or an error.
func FuzzContentFile(f *testing.F) {
	s := fuzzStore(f)
	digest, err := s.Put([]byte("swordfish"))
	if err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(s.file(digest))
	if err != nil {
		f.Fatal(err)
	}
	mutilated(f, data)
	for _, content := range []string{"", "other", strings.Repeat("x", 70<<10)} { // whole, of another digest
		sealed, err := s.seal([]byte(content))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(s.file(digest), data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(digest)
		if err == nil && string(got) != "swordfish" || err != nil && (got != nil || !errors.Is(err, ErrDamaged)) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
}

// FuzzDigestKey puts anything in the place of the key of the digests. The
// store opens with the key that it had, or not at all.
func FuzzDigestKey(f *testing.F) {
	s := fuzzStore(f)
	data, err := os.ReadFile(s.digestKeyFile())
	if err != nil {
		f.Fatal(err)
	}
	mutilated(f, data)
	for _, size := range []int{0, sha256.Size - 1, sha256.Size + 1, 70 << 10} {
		sealed, err := s.seal(make([]byte, size))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(s.digestKeyFile(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Open(s.cfg)
		if err == nil && !bytes.Equal(again.key, s.key) {
			t.Fatal("it opens with another key")
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatal(err)
		}
	})
}

// FuzzIdentity reads anything as an identity. What is taken encrypts, and is
// read again as it was written; an error quotes nothing.
func FuzzIdentity(f *testing.F) {
	classic, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	hybrid, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	mutilated(f, []byte(classic.String()))
	mutilated(f, []byte(keys{hybrid, classic}.text()))
	f.Add([]byte("# a comment\r\n\r\n" + classic.String() + "\r\n"))
	f.Add([]byte("AGE-PLUGIN-YUBIKEY-1QQPSYQGZ"))
	f.Add(bytes.Repeat([]byte("#"), maxIdentity))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parseKeys(text)
		if err != nil {
			for line := range bytes.Lines(text) {
				if line = bytes.TrimSpace(line); len(line) > 8 && strings.Contains(err.Error(), string(line)) {
					t.Fatalf("the error quotes %q", line)
				}
			}
			return
		}
		if len(k) == 0 {
			t.Fatal("no identity is taken for one")
		}
		again, err := parseKeys([]byte(k.text()))
		if err != nil || again.text() != k.text() {
			t.Fatalf("written and read: %v", err)
		}
	})
}

// FuzzImport reads anything as an export, as it comes and with a plain form
// that its author could make.
func FuzzImport(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	data, err := Export([]Entry{{Kind: "secret", Name: "a", Content: []byte("x")}}, []string{id.Recipient().String()}, "")
	if err != nil {
		f.Fatal(err)
	}
	mutilated(f, data)
	for _, plain := range hostileExports() {
		f.Add([]byte(plain))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, plain := range []bool{false, true} {
			var list []Entry
			var err error
			if plain {
				list, err = parseExport(data)
			} else {
				list, err = Import(data, id.String(), "")
			}
			switch {
			case err != nil && (list != nil || strings.Contains(err.Error(), "\n") || len(err.Error()) > 200):
				t.Fatalf("%d entries, %v", len(list), err)
			case len(list) > maxEntries:
				t.Fatalf("%d entries", len(list))
			}
		}
	})
}

// hostileExports are plain forms of exports that must not be taken.
func hostileExports() map[string]string {
	entry := func(name string) string { return fmt.Sprintf(`{"kind":"secret","name":%q,"content":"eA=="}`, name) }
	export := func(entries string) string { return fmt.Sprintf(`{"format":%q,"entries":[%s]}`, exportFormat, entries) }
	many := make([]string, maxEntries+1)
	for i := range many {
		many[i] = entry(fmt.Sprint(i))
	}
	return map[string]string{
		"nothing":         "",
		"another format":  `{"format":"berth contents v9","entries":[]}`,
		"unknown field":   fmt.Sprintf(`{"format":%q,"entries":[],"run":"sh"}`, exportFormat),
		"more after it":   export(entry("a")) + export(entry("b")),
		"bad base64":      export(`{"kind":"secret","name":"a","content":"%%%"}`),
		"deep":            strings.Repeat("[", 100_000),
		"one name twice":  export(entry("a") + "," + entry("a")),
		"too many":        export(strings.Join(many, ",")),
		"cut off":         strings.TrimSuffix(export(entry("a")), "]}"),
		"a number":        "1e999999",
		"of another kind": `{"format":{},"entries":{}}`,
	}
}

func TestImport_HostilePlainForms_AreRefused(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, plain := range hostileExports() {
		var sealed bytes.Buffer
		w, err := age.Encrypt(&sealed, id.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(plain)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if list, err := Import(sealed.Bytes(), id.String(), ""); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %d entries, %v", name, len(list), err)
		}
	}
}

// TestReadExport_TooLarge: what is read is bounded, however much there is.
func TestReadExport_TooLarge_IsRefused(t *testing.T) {
	const limit = 1 << 20
	for _, n := range []int{limit, limit + 1, 2 * limit} {
		there := bytes.NewReader(make([]byte, n))
		_, err := readExport(there, limit)
		if (err == nil) != (n == limit) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if read := n - there.Len(); read > limit+1 {
			t.Errorf("of %d bytes %d were read", n, read)
		}
	}
}

// TestImport_CostlyPassphrase: the file says how hard its passphrase is to try.
func TestImport_CostlyPassphrase_IsRefused(t *testing.T) {
	r, err := age.NewScryptRecipient("phrase")
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(1)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(w).Encode(exportFile{Format: exportFormat}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(sealed.Bytes(), "", "phrase"); err != nil {
		t.Fatal(err)
	}
	for _, cost := range []string{"19", "22", "40", "99"} {
		header, rest, _ := strings.Cut(sealed.String(), "\n---")
		lines := strings.Split(header, "\n")
		lines[1] = strings.TrimSuffix(lines[1], " 1") + " " + cost
		if _, err := Import([]byte(strings.Join(lines, "\n")+"\n---"+rest), "", "phrase"); err == nil {
			t.Errorf("a cost of 2^%s is paid", cost)
		}
	}
}

func TestExport_OfTooMuchForAnImport_IsRefused(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Export(make([]Entry, maxEntries+1), []string{id.Recipient().String()}, ""); err == nil {
		t.Error("it was written")
	}
}
