package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
)

// Files in repositories are encrypted to keys of their own, not to the
// identity of the store: that one is hybrid, which neither SOPS nor age before
// 1.3 can encrypt to, and Rekey forgets it, which would make files unreadable
// that Berth can't encrypt again. They are kept encrypted to the identity.

// Recipient is what a file may be encrypted to so that this host can read it.
type Recipient struct {
	Recipient string // age1…
	// Hybrid says that it is safe against quantum computers, too. age knows it
	// since 1.3; SOPS wants the other kind.
	Hybrid bool
	// From is the source of an identity that the operator keeps
	// (Config.Decrypt), "" for the host's own.
	From string
}

func (s *Store) repositoryKeyFile() string { return filepath.Join(s.cfg.Root, "repository-key.age") }

// loadRepositoryKeys reads the keys for files in repositories, if there are
// any yet. What can't be read stops only those who need them.
func (s *Store) loadRepositoryKeys() error {
	if s.cfg.Decrypt != "" {
		text, err := identitySource(s.cfg.Decrypt)
		if err == nil {
			s.given, err = parseKeys(text)
		}
		if err != nil {
			return fmt.Errorf("decrypt: identity %s: %w", s.cfg.Decrypt, err)
		}
	}
	s.readRepositoryKeys()
	return nil
}

// readRepositoryKeys sets repository or repositoryErr, or neither if there are
// no keys yet. The caller holds writing, or is Open.
func (s *Store) readRepositoryKeys() {
	s.repositoryErr = nil
	sealed, err := os.ReadFile(s.repositoryKeyFile())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var text []byte
	if err == nil {
		text, err = s.open(bytes.NewReader(sealed), maxIdentity)
	}
	if err == nil {
		s.repository, err = parseKeys(text)
	}
	if err != nil {
		s.repositoryErr = fmt.Errorf("%s is %w; put it back, or remove it and encrypt the files again to what `berth secret recipient` prints then",
			s.repositoryKeyFile(), ErrDamaged)
	}
}

// repositoryKeys says what keeps the keys from being used. The caller holds
// writing.
func (s *Store) repositoryKeys() error {
	if s.repositoryErr != nil {
		s.readRepositoryKeys() // they may have been put back
	}
	return s.repositoryErr
}

func (s *Store) writeRepositoryKeys() error {
	if s.repositoryErr != nil || len(s.repository) == 0 {
		return s.repositoryErr
	}
	sealed, err := s.seal([]byte(s.repository.text()))
	if err != nil {
		return err
	}
	if err := replaceFile(s.repositoryKeyFile(), sealed, 0o600); err != nil {
		return fmt.Errorf("write the keys of encrypted files: %w", err)
	}
	return nil
}

// Recipients are what files may be encrypted to for this host. The first time
// it makes keys, which Rekey keeps.
func (s *Store) Recipients() ([]Recipient, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.repositoryKeys(); err != nil {
		return nil, err
	}
	if len(s.repository) == 0 {
		classic, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, fmt.Errorf("make a key for encrypted files: %w", err)
		}
		hybrid, err := newKey()
		if err != nil {
			return nil, err
		}
		s.repository = keys{classic, hybrid}
		if err := s.writeRepositoryKeys(); err != nil {
			s.repository = nil
			return nil, err
		}
	}
	return append(s.repository.recipients(""), s.given.recipients(s.cfg.Decrypt)...), nil
}

func (k keys) recipients(from string) []Recipient {
	var out []Recipient
	for i := range k {
		to, err := k[i:].recipient()
		if err != nil {
			continue // of another kind: parseKeys takes no such line
		}
		_, hybrid := to.(*age.HybridRecipient)
		out = append(out, Recipient{Recipient: fmt.Sprint(to), Hybrid: hybrid, From: from})
	}
	return out
}

// readers are the identities that files are tried with. Who keeps the identity
// of the store knows its recipient, and may have used that.
func (s *Store) readers() (keys, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.repositoryKeys(); err != nil {
		return nil, err
	}
	var out keys
	for _, k := range []keys{s.repository, s.given, s.keys} {
		out = append(out, k...)
	}
	return out, nil
}
