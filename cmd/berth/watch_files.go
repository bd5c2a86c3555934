package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watchQuiet is how long nothing may have changed before what did is acted on:
// an editor writes a file in several steps, a branch is many files.
const watchQuiet = 200 * time.Millisecond

// fileWatch tells of the files below the paths of rules that changed.
type fileWatch struct {
	rules []watchRule
	w     *fsnotify.Watcher
}

func newFileWatch(rules []watchRule) (*fileWatch, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	f := &fileWatch{rules: rules, w: w}
	for _, r := range rules {
		at := r.path
		if r.file { // editors replace it: its folder tells of that
			if err = w.Add(filepath.Dir(at)); err != nil {
				break
			}
			continue
		}
		if _, err = f.add(at); err != nil {
			break
		}
	}
	if err != nil {
		w.Close()
		return nil, hinted{fmt.Errorf("watch files: %w", err), "if a limit is reached, raise fs.inotify.max_user_watches with sysctl"}
	}
	return f, nil
}

// add watches a folder and all below that a rule does not skip, and gives the
// files in them.
func (f *fileWatch) add(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			files = append(files, p)
			return nil
		}
		if !slices.ContainsFunc(f.rules, func(r watchRule) bool { return !r.file && relative(r.path, p) != "" && (p == r.path || !r.skips(p)) }) {
			return fs.SkipDir
		}
		if err := f.w.Add(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	return files, err
}

// run calls changed with the files that changed, once nothing has for a while;
// with everything there is if the kernel lost count. It ends with ctx.
func (f *fileWatch) run(ctx context.Context, changed func(files []string)) error {
	defer f.w.Close()
	pending := map[string]bool{}
	quiet := time.NewTimer(0)
	<-quiet.C
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-f.w.Events:
			if !ok {
				return nil
			}
			if e.Op == fsnotify.Chmod {
				continue
			}
			for _, file := range f.touched(e) {
				pending[file] = true
			}
		case err, ok := <-f.w.Errors:
			if !ok {
				return nil
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch files: %w", err)
			}
			if err := f.all(pending); err != nil {
				return err
			}
		case <-quiet.C:
			files := slices.Sorted(maps.Keys(pending))
			clear(pending)
			changed(files)
			continue
		}
		if len(pending) > 0 {
			quiet.Reset(watchQuiet)
		}
	}
}

// all adds every file that a rule is about.
func (f *fileWatch) all(pending map[string]bool) error {
	for _, r := range f.rules {
		files, err := r.files()
		if err != nil {
			return err
		}
		for _, file := range files {
			pending[file] = true
		}
	}
	return nil
}

// touched are the files that an event is about: of a new folder all in it.
func (f *fileWatch) touched(e fsnotify.Event) []string {
	if fi, err := os.Lstat(e.Name); err == nil && fi.IsDir() {
		if !e.Has(fsnotify.Create) {
			return nil
		}
		files, err := f.add(e.Name)
		if err != nil {
			return nil // it is gone again
		}
		return files
	}
	if !slices.ContainsFunc(f.rules, func(r watchRule) bool { return r.matches(e.Name) }) {
		return nil
	}
	return []string{e.Name}
}
