package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// replaceFile makes path have data, for good: a power cut leaves the former
// file or the new one. The temporary file is beside it and not in $TMPDIR,
// where a crash would leave an identity to be found.
func replaceFile(path string, data []byte, perm fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, data, perm, renameio.WithTempDir(dir)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // a file system without it
		return err
	}
	return nil
}

// sweepTemporary removes what a write of our own files that was cut off has
// left; those of contents are Sweep's.
func (s *Store) sweepTemporary() error {
	entries, err := os.ReadDir(s.cfg.Root)
	if err != nil {
		return fmt.Errorf("open secrets: %w", err)
	}
	for _, e := range entries {
		for _, file := range []string{s.identityFile(), s.digestKeyFile(), s.repositoryKeyFile()} {
			number, ok := strings.CutPrefix(e.Name(), "."+filepath.Base(file))
			if !ok || number == "" || strings.Trim(number, "0123456789") != "" {
				continue
			}
			if err := os.Remove(filepath.Join(s.cfg.Root, e.Name())); err != nil {
				return fmt.Errorf("open secrets: %w", err)
			}
		}
	}
	return nil
}

// holds are the digests that there are files of.
func (s *Store) holds() ([]string, error) {
	entries, err := os.ReadDir(s.contentDir())
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if digest, ok := strings.CutSuffix(e.Name(), ".age"); ok && digestForm.MatchString(digest) {
			out = append(out, digest)
		}
	}
	return out, nil
}
