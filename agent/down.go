package agent

import (
	"context"
	"fmt"

	"berth/api"
	"berth/store"
)

// followDown reports until nothing of the stack is left.
func (a *Agent) followDown(ctx context.Context, stack, uid string, report func(api.Progress)) (*api.Done, error) {
	last := map[string]string{}
	told := ""
	for {
		plan, changed := a.loop.plan(stack)
		s, r := a.w.stack(stack)
		if s == nil || s.UID != uid {
			return &api.Done{Outcome: api.OutcomeDone}, nil
		}
		if plan != nil {
			for _, st := range plan.Services {
				cur := a.serviceStatus(st, r)
				cur.Change = "removed"
				line := fmt.Sprint(cur.Phase, cur.Reason, cur.Old)
				if last[st.Service] != line {
					last[st.Service] = line
					report(api.Progress{Service: &cur})
				}
			}
		}
		if err := a.loop.anyTrouble(stack); err != nil && err.Error() != told {
			told = err.Error()
			report(api.Progress{Warning: told})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// down asks for the end of a stack and waits for it.
func (a *Agent) down(ctx context.Context, stack string, req *api.DownRequest, report func(api.Progress)) (*api.Done, error) {
	s, _ := a.w.stack(stack)
	if s == nil && req.Volumes && len(req.Services) == 0 {
		return a.dropKeptVolumes(stack)
	}
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	if len(req.Services) > 0 { // only their tasks go; the stack stays
		return a.act(ctx, stack, &api.ActionRequest{
			Action: api.ActionRemove, Services: req.Services, Stop: true, Volumes: req.Volumes, Timeout: req.Timeout,
		}, report)
	}
	_, err := a.changeStack(stack, "berth down", func(s *store.Stack) {
		s.Removing = &store.Removal{Volumes: req.Volumes, Images: req.Images, Timeout: req.Timeout}
	})
	if err != nil {
		return nil, err
	}
	a.loop.settle(ctx)
	return a.followDown(ctx, stack, s.UID, report)
}

// dropKeptVolumes removes what an earlier down without --volumes kept of a
// stack that is gone.
func (a *Agent) dropKeptVolumes(stack string) (*api.Done, error) {
	release, err := a.applies.take(stack, "berth down")
	if err != nil {
		return nil, err
	}
	defer release()
	kept, err := a.listVolumes(stack)
	if err != nil {
		return nil, err
	}
	if s, _ := a.w.stack(stack); s != nil || len(kept) == 0 { // made anew meanwhile, or never there
		return nil, notFound("no stack %s", stack)
	}
	if err := a.removeStackVolumes(stack); err != nil {
		return nil, err
	}
	return &api.Done{Outcome: api.OutcomeDone}, nil
}
