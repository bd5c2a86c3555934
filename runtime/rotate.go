package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/hashicorp/go-multierror"

	"berth/crash"
)

// RotateLogs rotates the logs that have grown past their cap; to be called
// every few seconds. Between two calls a log may exceed its cap by what the
// container writes in that time.
//
// conmon before 2.2 can't rotate, it can only open its log anew: the file is
// renamed, conmon told. What it writes in between goes to the renamed file,
// and is kept.
func (r *Runtime) RotateLogs(ctx context.Context) error {
	r.rotating.Lock()
	defer r.rotating.Unlock()
	r.mu.Lock()
	tasks := make([]*task, 0, len(r.tasks))
	for _, t := range r.tasks {
		tasks = append(tasks, t)
	}
	r.mu.Unlock()
	var errs *multierror.Error
	for _, t := range tasks {
		if ctx.Err() != nil {
			break
		}
		if err := r.rotate(t); err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	return errs.ErrorOrNil()
}

func (r *Runtime) rotate(t *task) error {
	if _, conmon := t.handles(); t.rec.NoLog || !conmon.alive() {
		return nil
	}
	path := r.LogPath(t.id)
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// An agent died after the rename: only the second half is to be done.
		return t.control("2 0 0\n")
	case err != nil:
		return fmt.Errorf("rotate the log of %s: %w", t.id, err)
	case fi.Size() < t.rec.LogMaxSize:
		return nil
	}
	if err := shift(path, min(t.rec.LogMaxFiles, maxLogFiles)); err != nil {
		return fmt.Errorf("rotate the log of %s: %w", t.id, err)
	}
	crash.At("log.shifted")
	return t.control("2 0 0\n")
}

// shift renames log.1 to log.2 and so on, then log to log.1. With keep files
// in all, the current one included, the oldest is overwritten.
func shift(path string, keep int) error {
	if keep <= 1 {
		return os.Remove(path)
	}
	for i := keep - 2; i >= 0; i-- {
		err := os.Rename(rotatedName(path, i), rotatedName(path, i+1))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
