package spec

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
)

// remote says that a path names something that is not a local file.
func (l *loading) remote(path string) bool {
	if l.o.Remote != nil && l.o.Remote(path) {
		return true
	}
	return strings.Contains(path, "://") || strings.HasPrefix(path, "git@") || strings.HasPrefix(path, "oci:")
}

// fetch gives the local file of a remote one, which is fetched once.
func (l *loading) fetch(ref string) (string, error) {
	if path, ok := l.fetched[ref]; ok {
		return path, nil
	}
	if l.o.Fetch == nil || !l.o.Remote(ref) {
		return "", errors.New(ref + ": only local files, Git repositories (https://host/repo.git#REF:FOLDER) and oci:// can be read")
	}
	path, err := l.o.Fetch(l.ctx, ref)
	if err != nil {
		return "", err
	}
	l.fetched[ref], l.fetched[path] = path, ref
	return path, nil
}

// fetcher is what the loader asks for remote files.
type fetcher struct{ l *loading }

func (f fetcher) Accept(path string) bool { return f.l.o.Remote != nil && f.l.o.Remote(path) }

func (f fetcher) Load(_ context.Context, path string) (string, error) { return f.l.fetch(path) }

// Dir is where relative paths in a remote file start: its folder.
func (f fetcher) Dir(path string) string {
	local, err := f.l.fetch(path)
	if err != nil {
		return path
	}
	return filepath.Dir(local)
}

// remoteName is what a stack is called whose first file is remote: as the
// repository, not as the folder of the cache.
func (l *loading) remoteName(path string) (string, bool) {
	ref, ok := l.fetched[path]
	if !ok {
		return "", false
	}
	ref, _, _ = strings.Cut(ref, "#")
	ref, _, _ = strings.Cut(ref, "@sha256:")
	name := ref[strings.LastIndexAny(ref, "/:")+1:]
	if rest, tag, ok := strings.Cut(ref[strings.LastIndexByte(ref, '/')+1:], ":"); ok && tag != "" && strings.HasPrefix(ref, "oci:") {
		name = rest
	}
	return strings.TrimSuffix(name, ".git"), true
}
