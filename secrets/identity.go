package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"berth/crash"
)

// Sentinels about the identity.
var (
	// ErrExposed is for an identity that others than its owner may read.
	ErrExposed = errors.New("others can read it")
	// ErrWrongIdentity is for one that did not write this store.
	ErrWrongIdentity = errors.New("the store was written with another identity")
	// ErrForeignIdentity is for one that the operator keeps: Rekey can't write it.
	ErrForeignIdentity = errors.New("the identity is not kept by Berth")

	errNoIdentity = fmt.Errorf("it is empty, no age identity, or %w", ErrDamaged)
)

// keys are age identities, the newest first: it encrypts, all decrypt. There
// are several only while the store is re-keyed.
type keys []age.Identity

func (k keys) recipient() (age.Recipient, error) {
	switch id := k[0].(type) {
	case *age.HybridIdentity:
		return id.Recipient(), nil
	case *age.X25519Identity:
		return id.Recipient(), nil
	}
	return nil, fmt.Errorf("identity of kind %T: only X25519 and hybrid ones", k[0])
}

// text is the identity file's content.
func (k keys) text() string {
	var b strings.Builder
	for _, id := range k {
		fmt.Fprintln(&b, id)
	}
	return b.String()
}

// parseKeys reads what age's keygen writes: an identity a line, comments.
func parseKeys(text []byte) (keys, error) {
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, errNoIdentity // a parser may quote what it read
	}
	if _, err := keys(ids).recipient(); err != nil {
		return nil, err
	}
	return ids, nil
}

// newKey makes an identity that is safe against quantum computers, too.
func newKey() (age.Identity, error) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, fmt.Errorf("make an identity for secrets: %w", err)
	}
	return id, nil
}

// identitySource reads the identity from where the operator has it: a path, an
// open file descriptor ("fd:3") or a systemd credential ("credential:NAME").
// It is not ours to write then.
func identitySource(from string) ([]byte, error) {
	if number, ok := strings.CutPrefix(from, "fd:"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("identity %q is not fd:NUMBER", from)
		}
		f := os.NewFile(uintptr(n), from)
		defer f.Close()
		return readKeys(f, from)
	}
	path := from
	if name, ok := strings.CutPrefix(from, "credential:"); ok {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" || name == "" || name != filepath.Base(name) {
			return nil, fmt.Errorf("identity %s: no such systemd credential; set LoadCredential=%s:PATH in the unit", from, name)
		}
		path = filepath.Join(dir, name)
	}
	return readIdentityFile(path)
}

// maxIdentity is far above two hybrid identities with comments.
const maxIdentity = 16 << 10

func readKeys(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxIdentity+1))
	if err != nil {
		return nil, fmt.Errorf("read identity %s: %w", name, err)
	}
	if len(b) > maxIdentity {
		return nil, fmt.Errorf("identity %s is larger than %d KiB", name, maxIdentity>>10)
	}
	return b, nil
}

// readIdentityFile refuses a file that others could read or that is none.
func readIdentityFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("identity %s is a symbolic link; it must be the file itself", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the identity of secrets: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the identity of secrets: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("identity %s is no file", path)
	case ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
		return nil, fmt.Errorf("identity %s belongs to user %d: %w; run: chown 0:0 %s", path, owner.Uid, ErrExposed, path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("identity %s has mode %#o, %w; run: chmod 0400 %s", path, info.Mode().Perm(), ErrExposed, path)
	}
	return readKeys(f, path)
}

// loadKeys reads the identity, or makes one the first time. Content without an
// identity is an error: it could never be read, and a new identity would hide
// that.
func (s *Store) loadKeys() error {
	if s.cfg.Identity != "" {
		text, err := identitySource(s.cfg.Identity)
		if err != nil {
			return err
		}
		if s.keys, err = parseKeys(text); err != nil {
			return fmt.Errorf("identity %s: %w", s.cfg.Identity, err)
		}
		return nil
	}
	text, err := readIdentityFile(s.identityFile())
	if errors.Is(err, fs.ErrNotExist) {
		return s.makeIdentity()
	}
	if err != nil {
		return err
	}
	s.keys, err = parseKeys(text)
	if err == nil && s.keys.text() != string(text) {
		// A line that was lost, or became a comment, is no error for age.
		err = ErrDamaged
	}
	if err != nil {
		return fmt.Errorf("identity %s: %w; put it back from a backup", s.identityFile(), err)
	}
	return nil
}

func (s *Store) makeIdentity() error {
	held, err := s.holds()
	if err != nil {
		return fmt.Errorf("open secrets: %w", err)
	}
	if _, err := os.Lstat(s.digestKeyFile()); err == nil {
		held = append(held, s.digestKeyFile())
	}
	if len(held) > 0 {
		return fmt.Errorf("%s is missing, and only it can read what is in %s: put it back, or remove the folder (the store is %w)",
			s.identityFile(), s.cfg.Root, ErrDamaged)
	}
	id, err := newKey()
	if err != nil {
		return err
	}
	s.keys = keys{id}
	return s.writeIdentity()
}

func (s *Store) writeIdentity() error {
	if err := replaceFile(s.identityFile(), []byte(s.keys.text()), 0o400); err != nil {
		return fmt.Errorf("write the identity of secrets: %w", err)
	}
	return nil
}

// Rekey encrypts the whole store to a new identity, and forgets the old one.
// It is crash-safe: the identity file holds both until all is written, and
// Open finishes what was cut off.
//
// Where the operator keeps the identity (Config.Identity), it is for them to
// put a new one in front of the old one and to open the store again.
func (s *Store) Rekey() error {
	if s.cfg.Identity != "" {
		return fmt.Errorf("re-key: %w but in %s: put the new identity there, in a line before the old one, restart the agent, then remove the old one",
			ErrForeignIdentity, s.cfg.Identity)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.repositoryKeys(); err != nil {
		return fmt.Errorf("re-key: %w", err) // they would be lost for good
	}
	if len(s.keys) == 1 { // else one was begun and could not be ended
		id, err := newKey()
		if err != nil {
			return err
		}
		old := s.keys
		s.keys = append(keys{id}, old...)
		if err := s.writeIdentity(); err != nil {
			s.keys = old
			return err
		}
		crash.At("rekey.begun")
	}
	s.unfinished = s.finishRekey()
	return s.unfinished
}

// finishRekey encrypts what older identities wrote to the newest one, then
// drops them. The caller holds writing, or is Open.
func (s *Store) finishRekey() error {
	held, err := s.holds()
	if err != nil {
		return fmt.Errorf("re-key: %w", err)
	}
	for _, digest := range held {
		content, err := s.get(digest)
		if errors.Is(err, ErrNotFound) {
			continue // swept meanwhile
		}
		if err != nil {
			return fmt.Errorf("re-key: %w", err)
		}
		if err := s.write(digest, content); err != nil {
			return fmt.Errorf("re-key: %w", err)
		}
		crash.At("rekey.content")
	}
	if err := s.writeDigestKey(); err != nil {
		return fmt.Errorf("re-key: %w", err)
	}
	if err := s.writeRepositoryKeys(); err != nil {
		return fmt.Errorf("re-key: %w", err)
	}
	crash.At("rekey.written")
	if s.cfg.Identity != "" {
		return nil // it is for the operator to drop the older ones
	}
	all := s.keys
	s.keys = s.keys[:1]
	if err := s.writeIdentity(); err != nil {
		s.keys = all
		return fmt.Errorf("re-key: %w", err)
	}
	return nil
}
