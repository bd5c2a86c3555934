package agent

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/api"
)

// rolloutRoutes are how a stack passes from revision to revision, and why a
// service is as it is.
func (a *Agent) rolloutRoutes(h huma.API) {
	huma.Register(h, op(http.MethodGet, "/v1/stacks/{stack}/rollout", "Show the newest rollout of a stack"),
		func(_ context.Context, in *StackPath) (*reply[*api.Rollout], error) {
			r, err := a.rolloutStatus(in.Stack)
			return &reply[*api.Rollout]{r}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/stacks/{stack}/rollout", "Pause, resume, undo, promote or abort a rollout"),
		func(_ context.Context, in *struct {
			StackPath
			Body api.RolloutRequest
		},
		) (*huma.StreamResponse, error) {
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.rolloutAction(ctx, in.Stack, &in.Body, report)
			}), nil
		})
	huma.Register(h, op(http.MethodGet, "/v1/stacks/{stack}/revisions", "List the revisions of a stack, newest first"),
		func(_ context.Context, in *StackPath) (*reply[[]api.Revision], error) {
			list, err := a.history(in.Stack)
			return &reply[[]api.Revision]{list}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/stacks/{stack}/rollback", "Go back to an earlier revision"),
		func(_ context.Context, in *struct {
			StackPath
			Body api.RollbackRequest
		},
		) (*huma.StreamResponse, error) {
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.rollback(ctx, in.Stack, &in.Body, report)
			}), nil
		})
	huma.Register(h, op(http.MethodPost, "/v1/stacks/{stack}/scale", "Set replicas"),
		func(_ context.Context, in *struct {
			StackPath
			Body api.ScaleRequest
		},
		) (*huma.StreamResponse, error) {
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.scaleStack(ctx, in.Stack, &in.Body, report)
			}), nil
		})
	huma.Register(h, op(http.MethodGet, "/v1/stacks/{stack}/services/{service}/explain", "Say why a service is as it is"),
		func(ctx context.Context, in *struct {
			StackPath
			Service string `path:"service"`
		},
		) (*reply[*api.Explanation], error) {
			e, err := a.explain(ctx, in.Stack, in.Service)
			return &reply[*api.Explanation]{e}, fail(err)
		})
}
