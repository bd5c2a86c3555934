package agent

import (
	"context"

	"berth/api"
)

// explain says why a service is as it is.
func (a *Agent) explain(_ context.Context, stack, service string) (*api.Explanation, error) {
	st, err := a.stackStatus(stack)
	if err != nil {
		return nil, err
	}
	for _, s := range st.Services {
		if s.Service == service {
			return &api.Explanation{Stack: stack, Service: service, Status: s, Summary: s.Phase}, nil
		}
	}
	return nil, notFound("no service %s in stack %s", service, stack)
}
