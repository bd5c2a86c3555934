package secrets

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
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

	"filippo.io/age"
	"github.com/google/renameio/v2"

	"berth/crash"
)

// MaxSize is the most that one config or secret may hold.
const MaxSize = 1 << 20

// Sentinels a caller decides on.
var (
	ErrNotFound = errors.New("no such secret content")
	ErrTooLarge = fmt.Errorf("larger than %d KiB", MaxSize>>10)
	// ErrDamaged: the ciphertext, or the identity, is not what was written.
	ErrDamaged = errors.New("secret content is damaged or of another machine")
)

// Config places the store.
type Config struct {
	Root string // identity (0400), ciphertext (0600)
	Run  string // one tmpfs per task
}

// Store keeps contents below Root and delivers them below Run. It is safe for
// concurrent use by one process.
type Store struct {
	cfg      Config
	identity *age.X25519Identity
	key      []byte // of the digests

	mu sync.Mutex
	// good has the digests whose file was read or written whole by this process.
	good map[string]bool
	// delivering serialises Deliver and Withdraw.
	delivering sync.Mutex
}

// Open prepares the folders and reads the identity, or makes one the first
// time. Content without an identity is an error: it could never be read, and a
// new identity would hide that.
func Open(cfg Config) (*Store, error) {
	var err error
	for _, p := range []*string{&cfg.Root, &cfg.Run} {
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, fmt.Errorf("open secrets: %w", err)
		}
	}
	s := &Store{cfg: cfg, good: map[string]bool{}}
	if err := os.MkdirAll(s.contentDir(), 0o700); err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	if err := os.MkdirAll(cfg.Run, 0o700); err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	if err := s.loadIdentity(); err != nil {
		return nil, err
	}
	s.key, err = hkdf.Key(sha256.New, []byte(s.identity.String()), nil, "berth secrets digest v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the key of secret digests: %w", err)
	}
	return s, nil
}

func (s *Store) contentDir() string   { return filepath.Join(s.cfg.Root, "content") }
func (s *Store) identityFile() string { return filepath.Join(s.cfg.Root, "identity") }
func (s *Store) file(digest string) string {
	return filepath.Join(s.contentDir(), digest+".age")
}

func (s *Store) loadIdentity() error {
	b, err := os.ReadFile(s.identityFile())
	if errors.Is(err, fs.ErrNotExist) {
		return s.makeIdentity()
	}
	if err != nil {
		return fmt.Errorf("read the identity of secrets: %w", err)
	}
	s.identity, err = age.ParseX25519Identity(strings.TrimSpace(string(b)))
	if err != nil {
		// Not with %w: a parser may quote what it read.
		return fmt.Errorf("identity %s: %w", s.identityFile(), ErrDamaged)
	}
	return nil
}

func (s *Store) makeIdentity() error {
	entries, err := os.ReadDir(s.contentDir())
	if err != nil {
		return fmt.Errorf("open secrets: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is missing, and %s has content that only it can read; put it back, or remove the content: %w",
			s.identityFile(), s.contentDir(), ErrDamaged)
	}
	if s.identity, err = age.GenerateX25519Identity(); err != nil {
		return fmt.Errorf("make the identity of secrets: %w", err)
	}
	if err := renameio.WriteFile(s.identityFile(), []byte(s.identity.String()+"\n"), 0o400); err != nil {
		return fmt.Errorf("write the identity of secrets: %w", err)
	}
	return nil
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
	digest := s.Digest(content)
	if s.has(digest) {
		return digest, nil
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, s.identity.Recipient())
	if err != nil {
		return "", fmt.Errorf("encrypt secret %s: %w", short(digest), err)
	}
	if _, err := w.Write(content); err != nil {
		return "", fmt.Errorf("encrypt secret %s: %w", short(digest), err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("encrypt secret %s: %w", short(digest), err)
	}
	if err := renameio.WriteFile(s.file(digest), sealed.Bytes(), 0o600); err != nil {
		return "", fmt.Errorf("store secret %s: %w", short(digest), err)
	}
	crash.At("content.stored")
	s.mark(digest)
	return digest, nil
}

// has says whether content is stored and whole. A damaged file is written
// again by Put, so a repeated `up` repairs it.
func (s *Store) has(digest string) bool {
	s.mu.Lock()
	good := s.good[digest]
	s.mu.Unlock()
	if good {
		_, err := os.Lstat(s.file(digest))
		return err == nil
	}
	_, err := s.Get(digest)
	return err == nil
}

func (s *Store) mark(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.good[digest] = true
}

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Get returns the content of a digest, verified. ErrNotFound if it is not
// stored, ErrDamaged if it can't be read any more.
func (s *Store) Get(digest string) ([]byte, error) {
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
	// age's own overhead is 16 bytes in 64 KiB and a header.
	plain, err := age.Decrypt(io.LimitReader(f, 2*MaxSize), s.identity)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", short(digest), ErrDamaged)
	}
	content, err := io.ReadAll(io.LimitReader(plain, MaxSize+1))
	if err != nil || !hmac.Equal([]byte(s.Digest(content)), []byte(digest)) {
		return nil, fmt.Errorf("secret %s: %w", short(digest), ErrDamaged)
	}
	s.mark(digest)
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
		s.mu.Lock()
		delete(s.good, digest)
		s.mu.Unlock()
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
