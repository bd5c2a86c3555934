package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sys/unix"

	"berth/api"
	"berth/archive"
	"berth/store"
)

// fileRoutes are about the files and processes of a task.
func (a *Agent) fileRoutes(h huma.API, mux *http.ServeMux) {
	huma.Register(h, op(http.MethodGet, "/v1/tasks/{task}/top", "List the processes of a task"),
		func(ctx context.Context, in *TaskPath) (*reply[[]api.Process], error) {
			list, err := a.processes(ctx, in.Task)
			return &reply[[]api.Process]{list}, fail(err)
		})
	huma.Register(h, op(http.MethodGet, "/v1/tasks/{task}/path", "Describe a path in a task"),
		func(ctx context.Context, in *filePath) (*reply[api.PathStat], error) {
			var st archive.Stat
			err := a.inRoot(ctx, in.Task, func(r *archive.Root) (err error) {
				st, err = r.Stat(in.Path, in.Follow)
				return err
			})
			return &reply[api.PathStat]{api.PathStat{
				Path: st.Path, Dir: st.Mode.IsDir(), Size: st.Size, Mode: uint32(st.Mode.Perm()), Link: st.Link,
			}}, fail(err)
		})
	huma.Register(h, op(http.MethodDelete, "/v1/tasks/{task}/path", "Remove a path in a task"),
		func(ctx context.Context, in *filePath) (*struct{}, error) {
			if in.Keep {
				return nil, fail(a.removeSynced(ctx, in.Task, in.Path))
			}
			return nil, fail(a.inRoot(ctx, in.Task, func(r *archive.Root) error { return r.Remove(in.Path) }))
		})
	plain(h, mux, op(http.MethodGet, "/v1/tasks/{task}/archive", "Read a path in a task as a tar"), "200", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		a.sendTree(w, r, false, q.Get("path"), q.Get("follow") == "true")
	})
	plain(h, mux, op(http.MethodGet, "/v1/tasks/{task}/export", "Read the root file system of a task as a tar"), "200", func(w http.ResponseWriter, r *http.Request) {
		a.sendTree(w, r, true, "/", false)
	})
	plain(h, mux, op(http.MethodPut, "/v1/tasks/{task}/archive", "Unpack a tar into a folder of a task"), "200", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		var err error
		if q.Get("keep") == "true" {
			err = a.syncInto(r.Context(), r.PathValue("task"), r.Body)
		} else {
			err = a.inRoot(r.Context(), r.PathValue("task"), func(root *archive.Root) error {
				return root.Unpack(r.Body, q.Get("path"), archive.Options{Owner: q.Get("owner") == "true"})
			})
		}
		if err != nil {
			refuse(w, err)
		}
	})
}

// filePath is a path in a task.
type filePath struct {
	TaskPath
	Path   string `query:"path"`
	Follow bool   `query:"follow"`
	Keep   bool   `query:"keep"`
}

// taskFiles opens what a task sees as its root: of a running one with what is
// mounted in it, of one that has ended only its own layer and the image's, as
// of one that is exported (bare).
func (a *Agent) taskFiles(ctx context.Context, name string, bare bool) (*archive.Root, error) {
	t, err := a.findTask(name)
	if err != nil {
		return nil, err
	}
	if t.State == store.StateRemoved {
		return nil, conflict("", "%s has been removed", t.Name())
	}
	if !bare && (t.State == store.StateRunning || t.State == store.StatePaused) {
		if st, err := a.containers.Status(ctx, t.ID); err == nil && st.Pid > 0 {
			return archive.Open(fmt.Sprintf("/proc/%d/root", st.Pid))
		}
	}
	root, err := archive.Open(filepath.Join(a.taskRun(t.ID), "rootfs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, conflict("", "%s has no files any more", t.Name())
	}
	return root, err
}

func (a *Agent) inRoot(ctx context.Context, task string, f func(*archive.Root) error) error {
	root, err := a.taskFiles(ctx, task, false)
	if err != nil {
		return err
	}
	defer root.Close()
	return fileProblem(f(root))
}

// fileProblem turns what the kernel says about a path of the user's into a
// refusal.
func fileProblem(err error) error {
	known := func(status int, code string) error {
		return &api.Error{Status: status, Code: code, Detail: err.Error()}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return known(http.StatusNotFound, api.CodeNotFound)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EBUSY), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTDIR),
		errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV), errors.Is(err, archive.ErrKind), errors.Is(err, fs.ErrPermission):
		return known(http.StatusConflict, api.CodeConflict)
	}
	return err
}

func (a *Agent) sendTree(w http.ResponseWriter, r *http.Request, bare bool, path string, follow bool) {
	root, err := a.taskFiles(r.Context(), r.PathValue("task"), bare)
	if err != nil {
		refuse(w, err)
		return
	}
	defer root.Close()
	if _, err := root.Stat(path, follow); err != nil {
		refuse(w, fileProblem(err))
		return
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := root.Pack(w, path, follow); err != nil {
		if r.Context().Err() == nil {
			a.log.Error("read the files of a task", "task", r.PathValue("task"), "path", path, "err", err)
		}
		panic(http.ErrAbortHandler) // a cut stream, not a short archive that looks whole
	}
}

func (a *Agent) processes(ctx context.Context, name string) ([]api.Process, error) {
	t, err := a.findTask(name)
	if err != nil {
		return nil, err
	}
	list, err := a.containers.Processes(ctx, t.ID)
	if err != nil {
		return nil, err
	}
	out := make([]api.Process, len(list))
	for i, p := range list {
		out[i] = api.Process{
			UID: p.UID, PID: p.PID, PPID: p.PPID, TTY: terminal(p.TTY), Started: p.Started, CPU: p.CPU, Command: p.Command,
		}
	}
	return out, nil
}

// firstPTS is the major number of the first 256 pseudo-terminals (the kernel's
// devices.txt).
const firstPTS = 136

// terminal names a device as tty_nr of proc(5) encodes it.
func terminal(nr int) string {
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	switch {
	case nr == 0:
		return ""
	case major >= firstPTS && major < firstPTS+8:
		return fmt.Sprintf("pts/%d", (major-firstPTS)<<8+minor)
	case major == 4:
		return fmt.Sprintf("tty%d", minor)
	}
	return "?"
}
