package secrets

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// sealTo encrypts as `age -r` does.
func sealTo(t testing.TB, content string, to ...string) []byte {
	t.Helper()
	recipients, err := age.ParseRecipients(strings.NewReader(strings.Join(to, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return sealFor(t, content, recipients...)
}

func sealFor(t testing.TB, content string, to ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func armored(t testing.TB, sealed []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := armor.NewWriter(&out)
	if _, err := w.Write(sealed); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func recipients(t testing.TB, s *Store) (classic, hybrid string) {
	t.Helper()
	all, err := s.Recipients()
	if err != nil || len(all) < 2 || all[0].Hybrid || !all[1].Hybrid {
		t.Fatalf("recipients %+v, %v", all, err)
	}
	return all[0].Recipient, all[1].Recipient
}

func wantSourceError(t testing.TB, err error, problem string) {
	t.Helper()
	var source *SourceError
	if !errors.As(err, &source) || !strings.Contains(source.Problem, problem) || source.Hint == "" {
		t.Errorf("error %v, want one with %q and a hint", err, problem)
	}
}

const plainLimit = 500 << 10

func TestDecrypt_FilesOfTheRepository_OutliveARekeyAndARestart(t *testing.T) {
	s := newStore(t)
	classic, hybrid := recipients(t, s)
	if !strings.HasPrefix(classic, "age1") || !strings.HasPrefix(hybrid, "age1pq1") {
		t.Errorf("recipients %s, %s", classic, hybrid)
	}
	store := s.keys.recipients("")[0].Recipient
	files := [][]byte{sealTo(t, "swordfish", classic), sealTo(t, "swordfish", hybrid), armored(t, sealTo(t, "swordfish", classic))}
	all := func(when string, s *Store) {
		t.Helper()
		for i, f := range files {
			if got, err := s.Decrypt(t.Context(), "age", f, plainLimit); err != nil || string(got) != "swordfish" {
				t.Errorf("%s: file %d: %q, %v", when, i, got, err)
			}
		}
		if c, h := recipients(t, s); c != classic || h != hybrid {
			t.Errorf("%s: other recipients", when)
		}
	}
	all("at once", s)
	if got, err := s.Decrypt(t.Context(), "age", sealTo(t, "x", store), plainLimit); err != nil || string(got) != "x" {
		t.Errorf("to the identity of the store: %q, %v", got, err)
	}
	all("after a restart", reopen(t, s.cfg))
	if err := s.Rekey(); err != nil {
		t.Fatal(err)
	}
	all("after a re-key", s)
	all("after both", reopen(t, s.cfg))

	id, err := newKey() // a re-key that is cut off before the keys are written
	if err != nil {
		t.Fatal(err)
	}
	s.keys = append(keys{id}, s.keys...)
	if err := s.writeIdentity(); err != nil {
		t.Fatal(err)
	}
	all("in a re-key that was cut off", reopen(t, s.cfg))
	all("after it", reopen(t, s.cfg))
	if text, err := os.ReadFile(s.repositoryKeyFile()); err != nil || bytes.Contains(text, []byte("SECRET-KEY")) {
		t.Errorf("the keys lie there in clear, %v", err)
	}
}

func TestRecipients_KeysThatAreDamaged_AreNotReplaced(t *testing.T) {
	s := newStore(t)
	put(t, s, "kept")
	classic, _ := recipients(t, s)
	whole, err := os.ReadFile(s.repositoryKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	broken := slices.Clone(whole)
	broken[len(broken)-1] ^= 1
	if err := os.WriteFile(s.repositoryKeyFile(), broken, 0o600); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s.cfg) // what needs them not goes on
	if _, err := s.Get(s.Digest([]byte("kept"))); err != nil {
		t.Error(err)
	}
	_, recipientsErr := s.Recipients()
	_, decryptErr := s.Decrypt(t.Context(), "age", sealTo(t, "x", classic), plainLimit)
	for _, err := range []error{recipientsErr, decryptErr, s.Rekey()} {
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), s.repositoryKeyFile()) {
			t.Errorf("error %v", err)
		}
	}
	if err := os.WriteFile(s.repositoryKeyFile(), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if now, _ := recipients(t, s); now != classic { // without a restart
		t.Error("other recipients")
	}
}

func TestDecrypt_KeysOfTheOperator(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "team.key")
	if err := os.WriteFile(path, []byte(id.String()+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Decrypt: path}
	s := reopen(t, cfg)
	if got, err := s.Decrypt(t.Context(), "age", sealTo(t, "swordfish", id.Recipient().String()), plainLimit); err != nil || string(got) != "swordfish" {
		t.Errorf("%q, %v", got, err)
	}
	all, err := s.Recipients()
	if err != nil || len(all) != 3 || all[2] != (Recipient{Recipient: id.Recipient().String(), From: path}) {
		t.Errorf("recipients %+v, %v", all, err)
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrExposed) {
		t.Errorf("a key that others can read: %v", err)
	}
}
