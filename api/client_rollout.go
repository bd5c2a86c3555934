package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
)

// Rollout is the newest rollout of a stack, ended or not; an Error with
// CodeNotFound if there is no such stack.
func (c *Client) Rollout(ctx context.Context, stack string) (Rollout, error) {
	return call[Rollout](ctx, c, request{method: http.MethodGet, path: stackPath(stack, "/rollout")})
}

// ActOnRollout pauses, resumes, undoes, promotes or aborts the newest rollout
// of a stack and yields what happens.
func (c *Client) ActOnRollout(ctx context.Context, stack string, req RolloutRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: stackPath(stack, "/rollout"), body: req})
}

// History lists the kept revisions of a stack, newest first.
func (c *Client) History(ctx context.Context, stack string) ([]Revision, error) {
	return call[[]Revision](ctx, c, request{method: http.MethodGet, path: stackPath(stack, "/revisions")})
}

// Rollback makes an earlier revision the desired one and yields what happens.
func (c *Client) Rollback(ctx context.Context, stack string, req RollbackRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: stackPath(stack, "/rollback"), body: req})
}

// Scale sets the replicas of services and yields what happens.
func (c *Client) Scale(ctx context.Context, stack string, req ScaleRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: stackPath(stack, "/scale"), body: req})
}

// Explain says why a service is as it is; an Error with CodeNotFound if there
// is none of that name.
func (c *Client) Explain(ctx context.Context, stack, service string) (Explanation, error) {
	path := stackPath(stack, "/services/"+url.PathEscape(service)+"/explain")
	return call[Explanation](ctx, c, request{method: http.MethodGet, path: path})
}
