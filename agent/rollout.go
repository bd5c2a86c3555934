package agent

import (
	"context"

	"berth/api"
)

func (a *Agent) rolloutStatus(stack string) (*api.Rollout, error) {
	return nil, notFound("no stack %s", stack)
}

func (a *Agent) rolloutAction(_ context.Context, stack string, _ *api.RolloutRequest, _ func(api.Progress)) (*api.Done, error) {
	return nil, notFound("no stack %s", stack)
}

func (a *Agent) history(stack string) ([]api.Revision, error) {
	return nil, notFound("no stack %s", stack)
}

func (a *Agent) rollback(_ context.Context, stack string, _ *api.RollbackRequest, _ func(api.Progress)) (*api.Done, error) {
	return nil, notFound("no stack %s", stack)
}

func (a *Agent) scaleStack(_ context.Context, stack string, _ *api.ScaleRequest, _ func(api.Progress)) (*api.Done, error) {
	return nil, notFound("no stack %s", stack)
}
