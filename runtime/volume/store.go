package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"berth/crash"
)

// Sentinels a caller decides on.
var (
	ErrNotFound = errors.New("no such volume")
	// ErrDiffers: the volume is there with other options.
	ErrDiffers = errors.New("volume exists with other options")
	ErrName    = errors.New("volume name must be 1 to 200 of a-z A-Z 0-9 _ . - and begin with a letter or digit")
)

// Volume is what is known of a named volume.
type Volume struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	Options   map[string]string `json:"options,omitempty"` // type, o, device
	CreatedAt time.Time         `json:"created_at"`
	// Mountpoint is the folder of its data, on the host.
	Mountpoint string `json:"mountpoint"`
}

// Store holds the volumes below one folder. It is safe for concurrent use by
// one process.
type Store struct {
	root string
	mu   sync.Mutex
	// mount is mount(2), but in tests.
	mount func(source, target, fstype string, flags uintptr, data string) error
}

// Open prepares the folder, 0700: a setuid file that a container put into a
// volume must not be in reach of the host's users.
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	entries, err := os.ReadDir(root)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), removedPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(root, e.Name())))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open volumes: end a removal: %w", err)
	}
	return &Store{root: root, mount: unix.Mount}, nil
}

// removedPrefix begins the names of folders that are being deleted; no
// volume's name begins so.
const removedPrefix = ".removed-"

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}$`)

func (s *Store) dir(name string) string { return filepath.Join(s.root, name) }

// Mountpoint is the folder of a volume's data, whether it exists or not.
func (s *Store) Mountpoint(name string) string { return filepath.Join(s.root, name, "data") }

// Create makes a volume, durably. One that is there already with the same
// options is returned as it is, labels included; with others it is ErrDiffers,
// since its data may lie elsewhere.
func (s *Store) Create(name string, labels, options map[string]string) (Volume, error) {
	if !nameForm.MatchString(name) {
		return Volume{}, fmt.Errorf("create volume %.60q: %w", name, ErrName)
	}
	if err := checkOptions(options); err != nil {
		return Volume{}, fmt.Errorf("create volume %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.get(name)
	if err == nil {
		if !maps.Equal(old.Options, options) {
			return old, fmt.Errorf("create volume %s: %w", name, ErrDiffers)
		}
		return old, nil
	}
	if !errors.Is(err, ErrNotFound) {
		return Volume{}, err
	}
	v := Volume{Name: name, Labels: labels, Options: options, CreatedAt: time.Now().UTC(), Mountpoint: s.Mountpoint(name)}
	b, err := json.Marshal(v)
	if err != nil {
		return Volume{}, fmt.Errorf("create volume %s: %w", name, err)
	}
	if err := os.MkdirAll(v.Mountpoint, 0o755); err != nil {
		return Volume{}, fmt.Errorf("create volume %s: %w", name, err)
	}
	// The metadata last: a volume without it does not exist.
	if err := renameio.WriteFile(s.meta(name), b, 0o600); err != nil {
		return Volume{}, fmt.Errorf("create volume %s: %w", name, err)
	}
	return v, nil
}

func (s *Store) meta(name string) string { return filepath.Join(s.dir(name), "volume.json") }

// Get returns one volume, or ErrNotFound.
func (s *Store) Get(name string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(name)
}

func (s *Store) get(name string) (Volume, error) {
	if !nameForm.MatchString(name) {
		return Volume{}, fmt.Errorf("volume %.60q: %w", name, ErrNotFound)
	}
	b, err := os.ReadFile(s.meta(name))
	if errors.Is(err, fs.ErrNotExist) {
		return Volume{}, fmt.Errorf("volume %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return Volume{}, fmt.Errorf("volume %s: %w", name, err)
	}
	var v Volume
	if err := json.Unmarshal(b, &v); err != nil {
		return Volume{}, fmt.Errorf("volume %s: %s is damaged: %w", name, s.meta(name), err)
	}
	v.Name, v.Mountpoint = name, s.Mountpoint(name) // the root may have moved
	return v, nil
}

// List returns all volumes by name.
func (s *Store) List() ([]Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list()
}

func (s *Store) list() ([]Volume, error) {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []Volume
	for _, e := range entries {
		v, err := s.get(e.Name())
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Remove deletes a volume and its data; what a volume with options points to
// is only unmounted. The caller knows that no container uses it. Idempotent.
func (s *Store) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(name)
}

func (s *Store) remove(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("remove volume %.60q: %w", name, ErrName)
	}
	// Before anything is deleted: what is mounted there is not ours.
	if err := unmount(s.Mountpoint(name)); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	// Out of the way first, in one step: a removal that is cut off must not leave
	// half of the data to the next volume of this name. Open ends it.
	removed := filepath.Join(s.root, removedPrefix+name)
	if err := os.RemoveAll(removed); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := os.Rename(s.dir(name), removed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	crash.At("volume.renamed")
	if err := os.RemoveAll(removed); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}
