package api

import (
	"context"
	"iter"
	"net/http"
)

// Run makes a one-off task and yields what happens on the way: of what it
// depends on, of pulls, and, as Task, the task itself, created or with
// req.Start running.
func (c *Client) Run(ctx context.Context, req RunRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: stackPath(req.Stack.Name, "/run"), body: req})
}

// Start is Attach to a task that Run made without starting it: it misses
// nothing of its output. The exit code is the one of the task's own end.
func (c *Client) Start(ctx context.Context, task string, s Streams) (exitCode int, err error) {
	return c.interact(ctx, taskPath(task, "/attach")+"?start=true", nil, s)
}

// Wait blocks until a task has ended and gives its last state. CodeNotFound if
// there is none.
func (c *Client) Wait(ctx context.Context, task string) (Task, error) {
	return call[Task](ctx, c, request{method: http.MethodGet, path: taskPath(task, "/wait")})
}
