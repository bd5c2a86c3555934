// Package corpus reads the shared collection of real Compose stacks, for tests.
// It is not part of the repository: the licences of the stacks do not allow
// it.
package corpus

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"berth/spec"
)

// Case is one published stack and what the reference loader makes of it.
type Case struct {
	Name    string   `json:"-"`    // SOURCE/CASE
	Kind    string   `json:"kind"` // real, example, fixture, spec
	Workdir string   `json:"workdir"`
	Files   []string `json:"files"`
	// Dir is the case's folder; Workdir is relative to it.
	Dir string `json:"-"`
	// Refuses is the reference's error; "" when it accepts.
	Refuses string `json:"-"`
	// Accepted is the file with its YAML.
	Accepted string `json:"-"`
}

// Root is the folder that the reference's absolute paths of c begin with.
func (c Case) Root() string { return "/corpus/" + c.Name }

// Environ is the environment that the reference had, in the work folder pwd.
func Environ(pwd string) []string {
	return []string{"HOME=/home/user", "USER=user", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PWD=" + pwd}
}

// Cases unpacks the collection: the file BERTH_CORPUS names, or the one beside
// the repository. The test is skipped where there is none.
func Cases(t testing.TB) []Case {
	t.Helper()
	archive := filepath.Join("..", "..", "shared", "corpus", "dev.tar.zst")
	if p := os.Getenv("BERTH_CORPUS"); p != "" {
		archive = p
	}
	f, err := os.Open(archive)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("SKIPPED: THE CORPUS IS ABSENT (%s): agreement with the reference loader is NOT tested", archive)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root := t.TempDir()
	if err := untar(f, root); err != nil {
		t.Fatalf("unpack %s: %v", archive, err)
	}
	var cases []Case
	err = filepath.WalkDir(filepath.Join(root, "cases"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "case.json" {
			return err
		}
		c := Case{Dir: filepath.Dir(path)}
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read case: %w", err)
		}
		if err := json.Unmarshal(b, &c); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		c.Name, _ = filepath.Rel(filepath.Join(root, "cases"), c.Dir)
		ref := filepath.Join(root, "reference", c.Name)
		if refused, err := os.ReadFile(ref + ".err"); err == nil {
			c.Refuses = strings.TrimSpace(string(refused))
		} else {
			c.Accepted = ref + ".yaml"
		}
		cases = append(cases, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

func untar(r io.Reader, root string) error {
	z, err := zstd.NewReader(r)
	if err != nil {
		return fmt.Errorf("open zstd: %w", err)
	}
	defer z.Close()
	dir, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer func() { _ = dir.Close() }()
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		name := filepath.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = dir.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			_ = dir.MkdirAll(filepath.Dir(name), 0o755)
			err = dir.Symlink(h.Linkname, name)
		case tar.TypeReg:
			_ = dir.MkdirAll(filepath.Dir(name), 0o755)
			var content []byte
			if content, err = io.ReadAll(tr); err == nil {
				err = dir.WriteFile(name, content, 0o644)
			}
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

// Options are those that the reference was loaded with.
func (c Case) Options() spec.Options {
	dir := filepath.Join(c.Dir, c.Workdir)
	return spec.Options{
		Dir: dir, Files: c.Files, Inspect: true, AllResources: true,
		Environ: Environ(dir),
	}
}
