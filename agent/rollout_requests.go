package agent

import (
	"context"
	"strings"
	"time"

	"berth/api"
	"berth/crash"
	"berth/store"
)

func (a *Agent) rolloutStatus(stack string) (*api.Rollout, error) {
	s, rev := a.w.stack(stack)
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	out := &api.Rollout{Stack: stack, Revision: s.Revision, From: s.Stable, State: api.RolloutComplete}
	if r := s.Rollout; r != nil {
		out.Revision, out.From, out.Failed, out.State, out.Reason = r.Revision, r.From, r.Failed, r.State, r.Reason
		out.StartedAt, out.EndedAt, out.Actor = r.Started, r.Ended, r.Actor
		if r.Canary != nil {
			out.Canary = &api.Canary{Service: r.Canary.Service, Percent: r.Canary.Percent}
		}
	}
	if plan, _ := a.loop.plan(stack); plan != nil {
		for _, st := range plan.Services {
			out.Services = append(out.Services, a.serviceStatus(st, rev))
		}
	}
	return out, nil
}

// rolloutAction pauses, resumes, undoes or promotes the rollout of a stack.
func (a *Agent) rolloutAction(ctx context.Context, stack string, req *api.RolloutRequest, report func(api.Progress)) (*api.Done, error) {
	s, _ := a.w.stack(stack)
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	if !underWay(s.Rollout) {
		if req.Action == api.RolloutUndo && stateOf(s) != api.RolloutRolledBack { // not twice
			return a.rollback(ctx, stack, &api.RollbackRequest{Wait: req.Wait, Actor: req.Actor}, report)
		}
		return nil, conflict("see `berth rollout status`", "no rollout of stack %s is under way: the last one is %s", stack, strings.ReplaceAll(or(stateOf(s), "complete"), "_", " "))
	}
	revision, state, who := s.Revision, s.Rollout.State, or(req.Actor, "the user")
	switch req.Action {
	case api.RolloutPause:
		if state == api.RolloutPaused || state == api.RolloutRollbackPaused {
			return &api.Done{Outcome: api.OutcomeDone, Detail: "it is paused already"}, nil
		}
		return &api.Done{Outcome: api.OutcomeDone}, a.pauseRollout(stack, revision, "asked for by "+who)
	case api.RolloutResume:
		if state != api.RolloutPaused && state != api.RolloutRollbackPaused {
			return nil, conflict("see `berth rollout status`", "the rollout of stack %s is not paused but %s", stack, state)
		}
	case api.RolloutPromote:
		if s.Rollout.Canary == nil {
			return nil, conflict("start one with `berth canary SERVICE 10%`", "stack %s has no canary", stack)
		}
	case api.RolloutUndo, api.RolloutAbort:
		return a.undo(ctx, s, req, report)
	default:
		return nil, invalid("no such action: %s", req.Action)
	}
	a.retryFailed(stack, sortedKeys(s.Rollout.Touched))
	err := a.setRollout(stack, revision, func(_ *change, _ *store.Stack, r *store.Rollout) {
		r.Since, r.Reason = time.Now(), ""
		switch {
		case req.Action == api.RolloutPromote:
			r.State, r.Canary = api.RolloutProgressing, nil
		case state == api.RolloutRollbackPaused:
			r.State = api.RolloutRollingBack
		case r.Canary != nil:
			r.State = api.RolloutCanary
		default:
			r.State = api.RolloutProgressing
		}
	})
	if err != nil {
		return nil, err
	}
	crash.At("rollout.resumed")
	a.loop.wake()
	if req.Action == api.RolloutPromote {
		if err := a.traffic.sync(ctx); err != nil {
			return nil, err
		}
	}
	return a.followIf(ctx, req.Wait, stack, revision, report)
}

func stateOf(s *store.Stack) string {
	if s.Rollout == nil {
		return ""
	}
	return s.Rollout.State
}

// undo takes the rollout back that is under way.
func (a *Agent) undo(ctx context.Context, s *store.Stack, req *api.RolloutRequest, report func(api.Progress)) (*api.Done, error) {
	r := s.Rollout
	switch {
	case r.State == api.RolloutRollingBack || r.State == api.RolloutRollbackPaused:
		return nil, conflict("see `berth rollout status`", "stack %s is rolling back to revision %d already", s.Name, r.Revision)
	case r.From == 0:
		return nil, conflict("", "stack %s has no stable revision to go back to", s.Name)
	}
	if err := a.goBack(s.Name, r.From, s.Revision, "undone by "+or(req.Actor, "the user"), req.Actor); err != nil {
		return nil, err
	}
	done, err := a.followIf(ctx, req.Wait, s.Name, r.From, report)
	return done, err
}

// followIf follows the rollout to revision if the client waits for it.
func (a *Agent) followIf(ctx context.Context, wait bool, stack string, revision uint64, report func(api.Progress)) (*api.Done, error) {
	if !wait {
		return &api.Done{Outcome: api.OutcomeDone}, nil
	}
	a.loop.settle(ctx)
	return a.follow(ctx, stack, revision, nil, report)
}

// scaleStack sets replicas and leaves everything else as it is.
func (a *Agent) scaleStack(ctx context.Context, stack string, req *api.ScaleRequest, report func(api.Progress)) (*api.Done, error) {
	_, rev := a.w.stack(stack)
	if rev == nil {
		return nil, notFound("no stack %s", stack)
	}
	return a.applyAndFollow(ctx, &api.ApplyRequest{
		Stack: rev.Stack, NoRecreate: true, Scale: req.Services, Wait: req.Wait, Actor: req.Actor,
	}, report)
}
