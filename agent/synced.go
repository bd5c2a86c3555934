package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"berth/archive"
	"berth/store"
)

// What `berth watch` syncs into the containers of a service is kept beside
// them, as each restart makes a new container: its root file system gets it
// before its program starts. It belongs to one image of the service: another
// image, `up --force-recreate` and `down` do without.

// syncedRoot is where the synced files of a stack's services are.
func (a *Agent) syncedRoot(uid string) string { return filepath.Join(a.cfg.Root, "synced", uid) }

func (a *Agent) syncedService(t *store.Task) (string, error) {
	s, _ := a.w.stack(t.Stack)
	if s == nil {
		return "", notFound("no stack %s", t.Stack)
	}
	return filepath.Join(a.syncedRoot(s.UID), t.Service), nil
}

// syncedTree is the folder with the files of t's image, and removed the file
// that lists the paths that were taken away.
func (a *Agent) syncedTree(t *store.Task) (tree, removed string, err error) {
	dir, err := a.syncedService(t)
	if err != nil {
		return "", "", err
	}
	dir = filepath.Join(dir, strings.ReplaceAll(t.Digest, ":", "-"))
	return filepath.Join(dir, "tree"), filepath.Join(dir, "removed.json"), nil
}

// keepSynced keeps a tar that was synced to the root of t, and forgets what was
// synced over another image.
func (a *Agent) keepSynced(t *store.Task, tar io.Reader) error {
	a.syncing.Lock()
	defer a.syncing.Unlock()
	tree, removed, err := a.syncedTree(t)
	if err != nil {
		return err
	}
	others, err := os.ReadDir(filepath.Dir(filepath.Dir(tree)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range others {
		if e.Name() != filepath.Base(filepath.Dir(tree)) {
			if err := os.RemoveAll(filepath.Join(filepath.Dir(filepath.Dir(tree)), e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	root, err := archive.Open(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	var named []string
	note := func(name string) string {
		named = append(named, path.Join("/", name))
		return name
	}
	if err := root.Unpack(tar, "/", archive.Options{Rename: note}); err != nil {
		return err
	}
	return changeRemoved(removed, func(list []string) []string {
		return slices.DeleteFunc(list, func(p string) bool { return slices.Contains(named, p) })
	})
}

// keepRemoved keeps that a path was taken away.
func (a *Agent) keepRemoved(t *store.Task, name string) error {
	a.syncing.Lock()
	defer a.syncing.Unlock()
	tree, removed, err := a.syncedTree(t)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	root, err := archive.Open(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Remove(name); err != nil {
		return err
	}
	name = path.Join("/", name)
	return changeRemoved(removed, func(list []string) []string {
		if slices.Contains(list, name) {
			return list
		}
		return append(list, name)
	})
}

func readRemoved(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return list, nil
}

func changeRemoved(file string, change func([]string) []string) error {
	list, err := readRemoved(file)
	if err != nil {
		return err
	}
	data, err := json.Marshal(change(list))
	if err != nil {
		return err
	}
	return renameio.WriteFile(file, data, 0o600)
}

// applySynced brings what was synced to the service of t into its root file
// system, which nothing runs in yet. A one-off task gets it, too.
func (a *Agent) applySynced(t *store.Task, rootfs string) error {
	tree, removed, err := a.syncedTree(t)
	if err != nil {
		return nil //nolint:nilerr // its stack is being removed
	}
	if _, err := os.Stat(tree); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	a.syncing.Lock()
	defer a.syncing.Unlock()
	list, err := readRemoved(removed)
	if err != nil {
		return err
	}
	from, err := archive.Open(tree)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := archive.Open(rootfs)
	if err != nil {
		return err
	}
	defer to.Close()
	for _, name := range list {
		if err := to.Remove(name); err != nil {
			return fmt.Errorf("bring the synced files back: %w", err)
		}
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(from.Pack(w, "/", false)) }()
	defer r.Close()
	if err := to.Unpack(r, "/", archive.Options{}); err != nil {
		return fmt.Errorf("bring the synced files back: %w", err)
	}
	return nil
}

// dropSynced forgets what was synced to services of a stack; none means all.
func (a *Agent) dropSynced(uid string, services ...string) error {
	a.syncing.Lock()
	defer a.syncing.Unlock()
	if len(services) == 0 {
		return os.RemoveAll(a.syncedRoot(uid))
	}
	var errs []error
	for _, name := range services {
		errs = append(errs, os.RemoveAll(filepath.Join(a.syncedRoot(uid), name)))
	}
	return errors.Join(errs...)
}

// sweepSynced forgets what was synced to stacks that are gone.
func (a *Agent) sweepSynced(v view) error {
	entries, err := os.ReadDir(filepath.Join(a.cfg.Root, "synced"))
	if err != nil {
		return nil //nolint:nilerr // nothing ever was
	}
	known := map[string]bool{}
	for _, s := range v.stacks {
		known[s.UID] = true
	}
	var errs []error
	for _, e := range entries {
		if !known[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(a.cfg.Root, "synced", e.Name())))
		}
	}
	return errors.Join(errs...)
}

// maxSync bounds what one sync may hold in memory, which is read twice.
const maxSync = 256 << 20

// syncInto unpacks a tar into the root of a task and keeps it for those that
// follow.
func (a *Agent) syncInto(ctx context.Context, task string, tar io.Reader) error {
	t, err := a.findTask(task)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(tar, maxSync+1))
	if err != nil {
		return err
	}
	if len(data) > maxSync {
		return invalid("a sync of more than %d MiB; build an image instead", maxSync>>20)
	}
	if err := a.keepSynced(t, bytes.NewReader(data)); err != nil {
		return fmt.Errorf("keep what is synced: %w", err)
	}
	return a.inRoot(ctx, t.ID, func(r *archive.Root) error { return r.Unpack(bytes.NewReader(data), "/", archive.Options{}) })
}

func (a *Agent) removeSynced(ctx context.Context, task, name string) error {
	t, err := a.findTask(task)
	if err != nil {
		return err
	}
	if err := a.keepRemoved(t, name); err != nil {
		return fmt.Errorf("keep what is synced: %w", err)
	}
	return a.inRoot(ctx, t.ID, func(r *archive.Root) error { return r.Remove(name) })
}
