package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"berth/images"
)

// Process is one process of a task, as the host sees it.
type Process struct {
	UID     uint32        `json:"uid"`
	PID     int           `json:"pid"`
	PPID    int           `json:"ppid"`
	TTY     string        `json:"tty,omitempty"` // pts/0
	Started time.Time     `json:"started"`
	CPU     time.Duration `json:"cpu"` // used so far
	Command string        `json:"command"`
}

// PathStat describes a path in a task.
type PathStat struct {
	// Path is absolute and, if the last link was followed, without it.
	Path string `json:"path"`
	Dir  bool   `json:"dir"`
	Size int64  `json:"size"`
	Mode uint32 `json:"mode"` // permission bits
	Link string `json:"link,omitempty"`
}

// Top lists the processes of a running task.
func (c *Client) Top(ctx context.Context, task string) ([]Process, error) {
	return call[[]Process](ctx, c, request{method: http.MethodGet, path: taskPath(task, "/top")})
}

// StatPath describes a path in a task, CodeNotFound if it is not there. Links
// lead where they do inside of the task; the last one only with follow.
func (c *Client) StatPath(ctx context.Context, task, path string, follow bool) (PathStat, error) {
	return call[PathStat](ctx, c, request{method: http.MethodGet, path: taskPath(task, "/path"), query: pathQuery(path, follow)})
}

func pathQuery(path string, follow bool) url.Values {
	q := url.Values{"path": {path}}
	setBool(q, "follow", follow)
	return q
}

// ReadPath writes what is at a path in a task to w, as a tar whose first entry
// is named like the path's last element; "." for the root.
func (c *Client) ReadPath(ctx context.Context, task, path string, follow bool, w io.Writer) error {
	return c.copyBody(ctx, request{method: http.MethodGet, path: taskPath(task, "/archive"), query: pathQuery(path, follow)}, w)
}

// WritePath unpacks a tar into a folder of a task. The files are root's, unless
// owner keeps the owners that the tar names.
func (c *Client) WritePath(ctx context.Context, task, folder string, owner bool, tar io.Reader) error {
	q := pathQuery(folder, false)
	setBool(q, "owner", owner)
	return c.send(ctx, request{method: http.MethodPut, path: taskPath(task, "/archive"), query: q, body: tar})
}

// Sync unpacks a tar into the root of a task and keeps it for the tasks of the
// service that follow, until its image changes.
func (c *Client) Sync(ctx context.Context, task string, tar io.Reader) error {
	return c.send(ctx, request{method: http.MethodPut, path: taskPath(task, "/archive"), query: url.Values{"keep": {"true"}}, body: tar})
}

// SyncRemoved removes a path like RemovePath, and from the tasks that follow.
func (c *Client) SyncRemoved(ctx context.Context, task, path string) error {
	q := pathQuery(path, false)
	q.Set("keep", "true")
	return c.send(ctx, request{method: http.MethodDelete, path: taskPath(task, "/path"), query: q})
}

// RemovePath removes a path in a task, with all below it. What is not there is
// success.
func (c *Client) RemovePath(ctx context.Context, task, path string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: taskPath(task, "/path"), query: pathQuery(path, false)})
}

// CommitRequest makes an image of a task.
type CommitRequest struct {
	Reference string   `json:"reference,omitempty"` // name of the image; "": it has none
	Author    string   `json:"author,omitempty"`
	Message   string   `json:"message,omitempty"`
	Changes   []string `json:"changes,omitempty"` // instructions of a Dockerfile, such as "CMD serve"
	Pause     bool     `json:"pause,omitempty"`   // while the files are read
}

// Commit makes an image of what a task has written over its own.
func (c *Client) Commit(ctx context.Context, task string, req CommitRequest) (images.Image, error) {
	return call[images.Image](ctx, c, request{method: http.MethodPost, path: taskPath(task, "/commit"), body: req})
}

// Export writes the root file system of a task to w, as a tar. What is mounted
// in it, volumes included, is left out.
func (c *Client) Export(ctx context.Context, task string, w io.Writer) error {
	return c.copyBody(ctx, request{method: http.MethodGet, path: taskPath(task, "/export")}, w)
}

func (c *Client) copyBody(ctx context.Context, r request, w io.Writer) error {
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("read the agent's answer to %s: %w", r.path, err)
	}
	return nil
}
