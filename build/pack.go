package build

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// Places in the tar.
const (
	requestFile   = "request.json"
	foldersDir    = "folders"
	dockerfileDir = "dockerfile"
	partsDir      = "parts"
	ignoreSuffix  = ".dockerignore"
)

// Packing collects what a request needs from the client's disk.
type Packing struct {
	Request Request
	folders []folder
	parts   [][]byte
	// Dockerfile and its ignore file, by content.
	dockerfile, ignore []byte
}

// folder is a context on disk and what is left out of it.
type folder struct {
	dir    string
	ignore []string
}

// AddFolder makes dir a part of the tar and returns the context that names it.
func (p *Packing) AddFolder(dir string, ignore []string) string {
	p.folders = append(p.folders, folder{dir, ignore})
	return SourceFolder + strconv.Itoa(len(p.folders)-1)
}

// AddPart makes content a part of the tar and returns its place.
func (p *Packing) AddPart(content []byte) string {
	p.parts = append(p.parts, content)
	return partsDir + "/" + strconv.Itoa(len(p.parts)-1)
}

// SetDockerfile gives the build its Dockerfile, under a name to show, and the
// patterns that hold for its context.
func (p *Packing) SetDockerfile(name string, content []byte, ignore []string) {
	p.Request.Dockerfile, p.dockerfile = name, content
	p.ignore = []byte(strings.Join(ignore, "\n"))
}

// ReadIgnore reads the patterns that hold for the context dir: of
// DOCKERFILE.dockerignore if there is one, else of .dockerignore.
func ReadIgnore(dir, dockerfile string) ([]string, error) {
	for _, name := range []string{dockerfile + ignoreSuffix, filepath.Join(dir, ignoreSuffix)} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) || name == ignoreSuffix {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		defer f.Close()
		patterns, err := ignorefile.ReadAll(f)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if _, err := patternmatcher.New(patterns); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return patterns, nil
	}
	return nil, nil
}

// Write writes the tar.
func (p *Packing) Write(w io.Writer) error {
	t := tar.NewWriter(w)
	request, err := json.Marshal(p.Request)
	if err != nil {
		return fmt.Errorf("write the build request: %w", err)
	}
	files := []struct {
		name    string
		content []byte
	}{{requestFile, request}}
	if p.Request.Dockerfile != "" {
		at := dockerfileDir + "/" + p.Request.Dockerfile
		files = append(files, struct {
			name    string
			content []byte
		}{at, p.dockerfile}, struct {
			name    string
			content []byte
		}{at + ignoreSuffix, p.ignore})
	}
	for i, part := range p.parts {
		files = append(files, struct {
			name    string
			content []byte
		}{partsDir + "/" + strconv.Itoa(i), part})
	}
	for _, f := range files {
		if err := t.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.content)), Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := t.Write(f.content); err != nil {
			return err
		}
	}
	for i, f := range p.folders {
		if err := f.write(t, foldersDir+"/"+strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return t.Close()
}

// write writes the folder below at, without what is ignored.
func (f folder) write(t *tar.Writer, at string) error {
	ignored, err := patternmatcher.New(f.ignore)
	if err != nil {
		return err
	}
	root, err := filepath.EvalSymlinks(f.dir)
	if err != nil {
		return fmt.Errorf("build context: %w", err)
	}
	info, err := os.Stat(root)
	if err != nil {
		return fmt.Errorf("build context: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("build context %s is not a folder", f.dir)
	}
	// An empty context is a folder, too.
	if err := t.WriteHeader(&tar.Header{Name: at + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: info.ModTime()}); err != nil {
		return err
	}
	parents := map[string]patternmatcher.MatchInfo{}
	return filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("build context: %w", err)
		}
		rel, err := filepath.Rel(root, file)
		if err != nil || rel == "." {
			return err
		}
		rel = filepath.ToSlash(rel)
		drop, match, err := ignored.MatchesUsingParentResults(rel, parents[path.Dir(rel)])
		if err != nil {
			return fmt.Errorf("match %s against .dockerignore: %w", rel, err)
		}
		if e.IsDir() {
			parents[rel] = match
		}
		if drop {
			if e.IsDir() && !ignored.Exclusions() {
				return filepath.SkipDir
			}
			return nil
		}
		return writeEntry(t, file, at+"/"+rel)
	})
}

func writeEntry(t *tar.Writer, file, name string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return fmt.Errorf("build context: %w", err)
	}
	h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Second), Format: tar.FormatPAX}
	switch mode := info.Mode(); {
	case mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return t.WriteHeader(h)
	case mode&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(file); err != nil {
			return fmt.Errorf("build context: %w", err)
		}
		return t.WriteHeader(h)
	case !mode.IsRegular():
		return nil // sockets, pipes and devices are no content
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("build context: %w; .dockerignore can leave it out", err)
	}
	defer f.Close()
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(t, f, h.Size)
	if err != nil {
		return fmt.Errorf("build context: %s changed while it was read (%d of %d bytes)", file, n, h.Size)
	}
	return nil
}
