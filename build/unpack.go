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
	"strings"
)

// room is where one build takes place.
type room struct {
	dir    string // on disk: contexts, the result
	secret string // on tmpfs: what must not reach a disk
}

// maxRequest bounds the request itself, secrets and the Dockerfile.
const maxRequest = 8 << 20

// Unpack reads what Write wrote into the room. Paths lead nowhere but into it.
func (r room) unpack(body io.Reader) (Request, error) {
	var req Request
	disk, err := os.OpenRoot(r.dir)
	if err != nil {
		return req, err
	}
	defer disk.Close()
	secret, err := os.OpenRoot(r.secret)
	if err != nil {
		return req, err
	}
	defer secret.Close()
	t := tar.NewReader(body)
	for first := true; ; first = false {
		h, err := t.Next()
		if errors.Is(err, io.EOF) && !first {
			return req, nil
		}
		if err != nil {
			return req, fmt.Errorf("read the build context: %w", err)
		}
		name := path.Clean(h.Name)
		top, _, _ := strings.Cut(name, "/")
		switch {
		case first != (name == requestFile):
			return req, errors.New("the build request must come first, and once")
		case first:
			data, err := io.ReadAll(io.LimitReader(t, maxRequest))
			if err == nil {
				err = json.Unmarshal(data, &req)
			}
			if err != nil {
				return req, fmt.Errorf("read the build request: %w", err)
			}
		case top == partsDir && h.Size <= maxRequest:
			err = extract(secret, h, name, t)
		case top == foldersDir || top == dockerfileDir && h.Size <= maxRequest:
			err = extract(disk, h, name, t)
		default:
			err = fmt.Errorf("build context: %q is refused", h.Name)
		}
		if err != nil {
			return req, err
		}
	}
}

// extract writes one entry below root, whatever links are in the way.
func extract(root *os.Root, h *tar.Header, name string, content io.Reader) error {
	if err := extractEntry(root, h, name, content); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return nil
}

func extractEntry(root *os.Root, h *tar.Header, name string, content io.Reader) error {
	if !filepath.IsLocal(name) {
		return errors.New("the path leads out of the build")
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	default:
		return fmt.Errorf("entries of type %q are refused", h.Typeflag)
	}
	if err := root.Chmod(name, mode); err != nil {
		return err
	}
	return root.Chtimes(name, h.ModTime, h.ModTime)
}

// layout unpacks an OCI layout in a tar, as the image store saves it, below
// dir and returns the digest of its first manifest.
func layout(dir string, archive io.Reader) (digest string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	t := tar.NewReader(archive)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if err := extract(root, h, path.Clean(h.Name), t); err != nil {
			return "", err
		}
	}
	raw, err := root.ReadFile("index.json")
	if err != nil {
		return "", err
	}
	var index struct {
		Manifests []struct {
			Digest string `json:"digest"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil || len(index.Manifests) == 0 {
		return "", fmt.Errorf("index.json names no image: %w", err)
	}
	return index.Manifests[0].Digest, nil
}
