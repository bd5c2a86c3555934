package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
)

// Stacks lists the stacks of the agent, by name.
func (c *Client) Stacks(ctx context.Context) ([]StackSummary, error) {
	return call[[]StackSummary](ctx, c, request{method: http.MethodGet, path: "/v1/stacks"})
}

// Stack is the status of one stack; an Error with CodeNotFound if there is
// none of that name.
func (c *Client) Stack(ctx context.Context, name string) (StackStatus, error) {
	return call[StackStatus](ctx, c, request{method: http.MethodGet, path: stackPath(name, "")})
}

// Plan says what Apply would do, and changes nothing.
func (c *Client) Plan(ctx context.Context, req ApplyRequest) (Plan, error) {
	return call[Plan](ctx, c, request{method: http.MethodPost, path: stackPath(req.Stack.Name, "/plan"), body: req})
}

// Apply makes req.Stack the desired state and yields what happens, up to
// Applied or, with req.Wait, up to the end of the rollout. To stop reading
// does not stop the rollout.
func (c *Client) Apply(ctx context.Context, req ApplyRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: stackPath(req.Stack.Name, "/apply"), body: req})
}

// Down stops and removes a stack and yields what happens.
func (c *Client) Down(ctx context.Context, stack string, req DownRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: stackPath(stack, "/down"), body: req})
}

// Action acts on services of a stack without changing its revision.
func (c *Client) Action(ctx context.Context, stack string, req ActionRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: stackPath(stack, "/action"), body: req})
}

// Logs yields the lines that q selects, merged over tasks by time.
func (c *Client) Logs(ctx context.Context, stack string, q LogQuery) iter.Seq2[LogEntry, error] {
	return stream[LogEntry](ctx, c, request{method: http.MethodGet, path: stackPath(stack, "/logs"), query: q.Values()})
}

// Stats yields one sample per task of the services (none: all) and, with
// follow, goes on with a round of samples every second.
func (c *Client) Stats(ctx context.Context, stack string, services []string, follow bool) iter.Seq2[TaskStats, error] {
	q := url.Values{}
	setList(q, "services", services)
	setBool(q, "stream", follow)
	return stream[TaskStats](ctx, c, request{method: http.MethodGet, path: stackPath(stack, "/stats"), query: q})
}

// Events yields what happened and, with q.Follow, what happens.
func (c *Client) Events(ctx context.Context, q EventQuery) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for l, err := range stream[eventLine](ctx, c, request{method: http.MethodGet, path: "/v1/events", query: q.Values()}) {
			if !yield(l.Event, err) {
				return
			}
		}
	}
}

// Task is one task by id, by a unique prefix of it, or by name.
func (c *Client) Task(ctx context.Context, task string) (Task, error) {
	return call[Task](ctx, c, request{method: http.MethodGet, path: taskPath(task, "")})
}

// InspectTask is everything about a task.
func (c *Client) InspectTask(ctx context.Context, task string) (TaskInspect, error) {
	return call[TaskInspect](ctx, c, request{method: http.MethodGet, path: taskPath(task, "/inspect")})
}

func stackPath(stack, rest string) string { return "/v1/stacks/" + url.PathEscape(stack) + rest }

func taskPath(task, rest string) string { return "/v1/tasks/" + url.PathEscape(task) + rest }
