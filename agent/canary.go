package agent

import (
	"context"

	"berth/api"
	"berth/reconciler"
	"berth/store"
)

// A canary is a rollout that stops after the first slot of one service: its new
// task serves beside the old ones, with a weight in the VIP map, until the user
// promotes it (the rollout goes on) or aborts it (it goes back).

func checkCanary(c *api.Canary) error {
	if c.Percent < 1 || c.Percent > 99 {
		return invalid("a canary takes 1 to 99 percent of the connections, not %d", c.Percent)
	}
	return nil
}

// startCanary makes the rollout of s a canary.
func startCanary(r *store.Rollout, c *api.Canary, s *store.Stack, next *store.Revision) error {
	svc, ok := next.Stack.Services[c.Service]
	switch {
	case !ok:
		return invalid("no such service: %s", c.Service)
	case r.From == 0:
		return conflict("bring it up first: `berth up`", "stack %s has no stable revision that a canary could run beside", s.Name)
	case !r.Touched[c.Service]:
		return conflict("change its image or its settings first", "service %s would not change", c.Service)
	case s.Stopped[c.Service] || svc.Replicas == 0:
		return conflict("", "service %s does not run", c.Service)
	}
	r.State, r.Canary = api.RolloutCanary, &store.Canary{Service: c.Service, Percent: c.Percent}
	return nil
}

// changeCanary gives the canary that is under way another weight, if that is
// all that a request asks for.
func (a *Agent) changeCanary(ctx context.Context, req *api.ApplyRequest, cur *store.Stack, rev, next *store.Revision) (done bool, err error) {
	if req.Canary == nil {
		return false, nil
	}
	if err := checkCanary(req.Canary); err != nil {
		return false, err
	}
	svc, ok := next.Stack.Services[req.Canary.Service]
	if !ok {
		return false, invalid("no such service: %s", req.Canary.Service)
	}
	if order, why := a.order(&next.Stack, &svc, next.Digests[req.Canary.Service]); order == reconciler.StopFirst {
		return false, conflict("", "service %s can't have a canary: it is replaced stop-first: %s", req.Canary.Service, why)
	}
	if rev == nil || !underWay(cur.Rollout) || cur.Rollout.Canary == nil || !sameRevision(rev, next) {
		return false, nil
	}
	if cur.Rollout.Canary.Service != req.Canary.Service {
		return false, conflict("promote or abort it first", "service %s is the canary of stack %s", cur.Rollout.Canary.Service, cur.Name)
	}
	err = a.setRollout(cur.Name, cur.Revision, func(_ *change, _ *store.Stack, r *store.Rollout) {
		r.Canary = &store.Canary{Service: req.Canary.Service, Percent: req.Canary.Percent}
	})
	if err != nil {
		return false, err
	}
	return true, a.traffic.sync(ctx)
}

// weights are the shares of new connections that tasks of the canary's version
// and of the others get, so that all of the first together have Percent.
func weights(percent, fresh, old int) (ofFresh, ofOld int) {
	if fresh == 0 || old == 0 {
		return 1, 1
	}
	return percent * old, (100 - percent) * fresh
}
