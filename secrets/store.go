package secrets

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"berth/crash"
)

// MaxSize is the most that one config or secret may hold.
const MaxSize = 1 << 20

// Sentinels a caller decides on.
var (
	ErrNotFound = errors.New("no such secret content")
	ErrTooLarge = fmt.Errorf("larger than %d KiB", MaxSize>>10)
	// ErrDamaged: a file of the store is not what was written.
	ErrDamaged = errors.New("damaged, or of another machine")
)

// DamagedError is about the file of one content. It is ErrDamaged.
type DamagedError struct{ Digest string }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("secret %s: its file is %v", short(e.Digest), ErrDamaged)
}

// Unwrap is ErrDamaged.
func (e *DamagedError) Unwrap() error { return ErrDamaged }

// Config places the store.
type Config struct {
	Root string // identity (0400), ciphertext (0600)
	Run  string // one tmpfs per task
	// Identity says where the operator keeps the identity: a path, "fd:NUMBER"
	// or "credential:NAME". Default: a file in Root, made at first use.
	Identity string
	// Decrypt says in the same way where further identities are that files in
	// repositories may be encrypted to. Default: none but the host's own.
	Decrypt string
	// Providers is the folder of programs that Ask runs.
	Providers string
}

// Store keeps contents below Root and delivers them below Run. It is safe for
// concurrent use by one process.
type Store struct {
	cfg  Config
	keys keys
	key  []byte // of the digests

	// repository and given are the keys of encrypted files: the host's own, if
	// they are made yet and could be read, and Config.Decrypt's.
	repository, given keys
	repositoryErr     error
	sopsTimeout       time.Duration

	// unfinished is why Open could not end a Rekey that was cut off.
	unfinished error
	// writing serialises what replaces ciphertext, and guards the keys.
	writing sync.RWMutex
	// delivering serialises Deliver and Withdraw.
	delivering sync.Mutex
}

// Open prepares the folders and reads the identity, or makes one the first
// time. An identity that others can read, or that did not write this store, is
// an error (ErrExposed, ErrWrongIdentity).
//
// It ends a Rekey that was cut off. That it can't (Unfinished) is no error:
// everything is readable meanwhile.
func Open(cfg Config) (*Store, error) {
	var err error
	for _, p := range []*string{&cfg.Root, &cfg.Run} {
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, fmt.Errorf("open secrets: %w", err)
		}
	}
	s := &Store{cfg: cfg, sopsTimeout: sopsTimeout}
	if err := os.MkdirAll(s.contentDir(), 0o700); err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	if err := os.MkdirAll(cfg.Run, 0o700); err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	if err := s.sweepTemporary(); err != nil {
		return nil, err
	}
	if err := s.loadKeys(); err != nil {
		return nil, err
	}
	if err := s.loadDigestKey(); err != nil {
		return nil, err
	}
	if err := s.loadRepositoryKeys(); err != nil {
		return nil, err
	}
	if len(s.keys) > 1 {
		s.unfinished = s.finishRekey()
	}
	return s, nil
}

// Unfinished says why Open could not end a Rekey; nil if there was none, or it
// has ended. The next Rekey, or Open, tries again.
func (s *Store) Unfinished() error {
	s.writing.RLock()
	defer s.writing.RUnlock()
	return s.unfinished
}

func (s *Store) contentDir() string    { return filepath.Join(s.cfg.Root, "content") }
func (s *Store) identityFile() string  { return filepath.Join(s.cfg.Root, "identity") }
func (s *Store) digestKeyFile() string { return filepath.Join(s.cfg.Root, "digest-key.age") }
func (s *Store) file(digest string) string {
	return filepath.Join(s.contentDir(), digest+".age")
}

// loadDigestKey reads the key of the digests, or makes one the first time. It
// outlives a change of the identity: digests stand in revisions.
func (s *Store) loadDigestKey() error {
	f, err := os.Open(s.digestKeyFile())
	if errors.Is(err, fs.ErrNotExist) {
		held, err := s.holds()
		if err != nil {
			return fmt.Errorf("open secrets: %w", err)
		}
		if len(held) > 0 {
			return fmt.Errorf("%s is missing, and what is in %s can't be told apart without it: put it back (the store is %w)",
				s.digestKeyFile(), s.contentDir(), ErrDamaged)
		}
		s.key = make([]byte, sha256.Size)
		_, _ = rand.Read(s.key) // never fails
		return s.writeDigestKey()
	}
	if err != nil {
		return fmt.Errorf("read the key of secret digests: %w", err)
	}
	defer f.Close()
	key, err := s.open(f, sha256.Size)
	var other *age.NoIdentityMatchError
	switch {
	case errors.As(err, &other):
		return fmt.Errorf("open secrets in %s: %w; put the one back that wrote it, or an undamaged %s",
			s.cfg.Root, ErrWrongIdentity, filepath.Base(s.digestKeyFile()))
	case err != nil || len(key) != sha256.Size:
		return fmt.Errorf("%s is %w: put it back from a backup", s.digestKeyFile(), ErrDamaged)
	}
	s.key = key
	return nil
}

func (s *Store) writeDigestKey() error {
	sealed, err := s.seal(s.key)
	if err != nil {
		return err
	}
	if err := replaceFile(s.digestKeyFile(), sealed, 0o600); err != nil {
		return fmt.Errorf("write the key of secret digests: %w", err)
	}
	return nil
}

// seal encrypts content to the newest identity.
func (s *Store) seal(content []byte) ([]byte, error) {
	to, err := s.keys.recipient()
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if _, err := w.Write(content); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return sealed.Bytes(), nil
}

// open decrypts at most size bytes of content.
func (s *Store) open(r io.Reader, size int64) ([]byte, error) {
	// age's own overhead is 16 bytes in 64 KiB and a header.
	plain, err := age.Decrypt(io.LimitReader(r, 2*size+maxIdentity), s.keys...)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(plain, size+1))
	if err == nil && int64(len(content)) > size {
		err = ErrTooLarge
	}
	return content, err
}

// Digest is what Put returns for content, without storing it. It is keyed:
// whoever sees it cannot test a guess.
func (s *Store) Digest(content []byte) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write(content)
	return hex.EncodeToString(mac.Sum(nil))
}

// Put stores content of at most MaxSize bytes, durably, and returns its digest.
// Content that is there already is not written again.
func (s *Store) Put(content []byte) (string, error) {
	if len(content) > MaxSize {
		return "", fmt.Errorf("store a secret of %d bytes: %w", len(content), ErrTooLarge)
	}
	s.writing.RLock()
	defer s.writing.RUnlock()
	digest := s.Digest(content)
	if _, err := s.get(digest); err == nil {
		return digest, nil
	} // a damaged file is written again
	if err := s.write(digest, content); err != nil {
		return "", err
	}
	crash.At("content.stored")
	return digest, nil
}

func (s *Store) write(digest string, content []byte) error {
	sealed, err := s.seal(content)
	if err != nil {
		return fmt.Errorf("secret %s: %w", short(digest), err)
	}
	if err := replaceFile(s.file(digest), sealed, 0o600); err != nil {
		return fmt.Errorf("store secret %s: %w", short(digest), err)
	}
	return nil
}

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Get returns the content of a digest, verified. ErrNotFound if it is not
// stored, ErrDamaged if it can't be read any more.
func (s *Store) Get(digest string) ([]byte, error) {
	s.writing.RLock()
	defer s.writing.RUnlock()
	return s.get(digest)
}

// get is Get for callers that hold writing.
func (s *Store) get(digest string) ([]byte, error) {
	if !digestForm.MatchString(digest) {
		return nil, fmt.Errorf("secret digest of %d bytes: %w", len(digest), ErrNotFound)
	}
	f, err := os.Open(s.file(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("secret %s: %w", short(digest), ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read secret %s: %w", short(digest), err)
	}
	defer f.Close()
	content, err := s.open(f, MaxSize)
	if err != nil || !hmac.Equal([]byte(s.Digest(content)), []byte(digest)) {
		return nil, &DamagedError{digest}
	}
	return content, nil
}

// Sweep withdraws from tasks that are not in keepTasks and deletes content that
// is not in usedDigests. The caller sees to it that no Put whose digest is not
// recorded yet is under way.
func (s *Store) Sweep(keepTasks, usedDigests map[string]bool) error {
	var errs []error
	tasks, err := os.ReadDir(s.cfg.Run)
	if err != nil {
		errs = append(errs, fmt.Errorf("sweep secrets: %w", err))
	}
	for _, e := range tasks {
		if e.IsDir() && taskForm.MatchString(e.Name()) && !keepTasks[e.Name()] {
			errs = append(errs, s.Withdraw(e.Name()))
		}
	}
	contents, err := os.ReadDir(s.contentDir())
	if err != nil {
		errs = append(errs, fmt.Errorf("sweep secrets: %w", err))
	}
	for _, e := range contents {
		digest, ok := strings.CutSuffix(e.Name(), ".age")
		if ok && usedDigests[digest] {
			continue
		}
		// What is not of our form is a temporary file of a Put that was cut off.
		if err := os.Remove(filepath.Join(s.contentDir(), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("sweep secrets: %w", err))
		}
	}
	return errors.Join(errs...)
}

// short is enough of a digest to tell it from others in a message.
func short(digest string) string {
	if len(digest) > 12 {
		return digest[:12]
	}
	return digest
}
