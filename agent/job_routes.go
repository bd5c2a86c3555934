package agent

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/api"
)

// jobRoutes are the jobs of a stack.
func (a *Agent) jobRoutes(h huma.API) {
	huma.Register(h, op(http.MethodGet, "/v1/stacks/{stack}/jobs", "List the jobs of a stack and their newest runs"),
		func(_ context.Context, in *StackPath) (*reply[[]api.Job], error) {
			list, err := a.jobList(in.Stack)
			return &reply[[]api.Job]{list}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/stacks/{stack}/jobs/{job}/run", "Run a job"),
		func(_ context.Context, in *struct {
			StackPath
			Job  string `path:"job"`
			Body api.JobRunRequest
		},
		) (*huma.StreamResponse, error) {
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.runJob(ctx, in.Stack, in.Job, &in.Body, report)
			}), nil
		})
}
