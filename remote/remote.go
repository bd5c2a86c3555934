package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// maxFile is the size of one Compose or env file of an artifact, maxArtifact
	// that of all of them, maxRepository that of a repository's files, in bytes.
	maxFile       = 2 << 20
	maxArtifact   = 16 << 20
	maxRepository = 256 << 20
	// patience is how long one fetch may take.
	patience = 2 * time.Minute
)

// names of a Compose file in a folder, in order of preference.
var names = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}

const ociPrefix = "oci://"

// Is reports whether a path of a Compose file names something remote that
// Fetcher can fetch.
func Is(path string) bool {
	if strings.HasPrefix(path, ociPrefix) {
		return true
	}
	_, ok := parseGit(path)
	return ok
}

// Fetcher fetches into Cache, a folder of the user's own.
type Fetcher struct{ Cache string }

// File gives the local path of the Compose file that ref names.
func (f Fetcher) File(ctx context.Context, ref string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if f.Cache == "" {
		return "", fmt.Errorf("fetch %s: there is no folder to keep it in; set HOME or XDG_CACHE_HOME", redact(ref))
	}
	if name, ok := strings.CutPrefix(ref, ociPrefix); ok {
		return f.artifact(ctx, name)
	}
	if g, ok := parseGit(ref); ok {
		return f.repository(ctx, g)
	}
	return "", fmt.Errorf("fetch %s: it is neither a Git repository nor oci://", redact(ref))
}

// keep gives the folder dir of the cache; fill makes it if it is not there.
func (f Fetcher) keep(dir string, fill func(into string) error) (string, error) {
	dir = filepath.Join(f.Cache, dir)
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", fmt.Errorf("make a folder for what is fetched: %w", err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".fetch-")
	if err != nil {
		return "", fmt.Errorf("make a folder for what is fetched: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := fill(temp); err != nil {
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Stat(dir); there != nil {
			return "", fmt.Errorf("keep what was fetched: %w", err)
		}
	}
	return dir, nil
}

// composeFile finds the Compose file at path in the folder root: a file, or a
// folder with one.
func composeFile(root, path string) (string, error) {
	if path == "" {
		path = "."
	}
	if !filepath.IsLocal(path) {
		return "", fmt.Errorf("%q leads out of the repository", path)
	}
	at := filepath.Join(root, path)
	info, err := os.Stat(at)
	if err != nil {
		return "", fmt.Errorf("there is no %s in it", path)
	}
	if !info.IsDir() {
		return at, nil
	}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(at, name)); err == nil && info.Mode().IsRegular() {
			return filepath.Join(at, name), nil
		}
	}
	return "", fmt.Errorf("there is no %s in folder %s of it", names[0], path)
}

// redact hides the password of a URL, which must not end in a log.
func redact(ref string) string {
	scheme, rest, ok := strings.Cut(ref, "://")
	if !ok {
		return ref
	}
	host, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = "…" + host[i:]
	}
	return scheme + "://" + host + "/" + path
}
