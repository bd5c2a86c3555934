package agent

import (
	"context"
	"fmt"
	"slices"

	"berth/api"
	"berth/images"
	"berth/spec"
	"berth/store"
)

// revisions reads all kept revisions of a stack, oldest first.
func (a *Agent) revisions(stack string) ([]store.Revision, error) {
	var out []store.Revision
	err := a.db.View(func(tx store.Tx) error {
		return store.Each(tx, store.Revisions, stack+"/", func(_ string, r store.Revision) error {
			out = append(out, r)
			return nil
		})
	})
	return out, err
}

func (a *Agent) history(stack string) ([]api.Revision, error) {
	s, _ := a.w.stack(stack)
	if s == nil {
		return nil, notFound("no stack %s", stack)
	}
	list, err := a.revisions(stack)
	if err != nil {
		return nil, err
	}
	v := a.w.view()
	var out []api.Revision
	for i, r := range list {
		line := api.Revision{
			Number: r.Number, State: r.State, Reason: r.Reason, Current: r.Number == s.Revision, Stable: r.Number == s.Stable,
			CreatedAt: r.Created, Actor: r.Actor, Images: map[string]api.RevisionImage{},
		}
		if underWay(s.Rollout) && s.Rollout.Revision == r.Number {
			line.State, line.Reason = s.Rollout.State, s.Rollout.Reason
		}
		for name, svc := range r.Stack.Services {
			_, err := a.images.Resolve(r.Digests[name])
			line.Images[name] = api.RevisionImage{Reference: svc.Image, Digest: r.Digests[name], Here: err == nil}
			if i == 0 {
				continue
			}
			before, was := list[i-1].Stack.Services[name]
			if !was || differ(&before, &svc, identity(v, &list[i-1], name), identity(v, &r, name)) {
				line.Changes = append(line.Changes, name)
			}
		}
		if i > 0 {
			for name := range list[i-1].Stack.Services {
				if _, still := r.Stack.Services[name]; !still {
					line.Changes = append(line.Changes, name)
				}
			}
		}
		slices.Sort(line.Changes)
		out = append(out, line)
	}
	slices.Reverse(out)
	return out, nil
}

// differ says that two versions of a service are not the same to its tasks.
func differ(x, y *spec.Service, xID, yID spec.Identity) bool {
	return slices.ContainsFunc(spec.Diff(x, y, xID, yID), func(c spec.Change) bool {
		return c.Class != spec.ClassIgnored || c.Path == "replicas"
	})
}

// rollback makes an earlier revision the wanted one: the one that is asked
// for, or the newest before the current one that was stable.
func (a *Agent) rollback(ctx context.Context, stack string, req *api.RollbackRequest, report func(api.Progress)) (*api.Done, error) {
	release, err := a.applies.take(stack, or(req.Actor, "berth rollback"))
	if err != nil {
		return nil, err
	}
	var to *store.Revision
	cur, _ := a.w.stack(stack)
	err = a.expected(&api.ApplyRequest{Stack: spec.Stack{Name: stack}, ExpectRevision: req.ExpectRevision}, cur)
	if err == nil {
		to, err = a.rollbackTarget(stack, req.Revision)
	}
	if err == nil {
		err = a.fetchImages(ctx, to, report)
	}
	if err == nil {
		err = a.goBack(stack, to.Number, 0, "asked for by "+or(req.Actor, "the user"), req.Actor)
	}
	release()
	if err != nil {
		return nil, err
	}
	report(api.Progress{Applied: &api.Applied{Stack: stack, Revision: to.Number, Changed: true}})
	if err := a.traffic.sync(ctx); err != nil && ctx.Err() == nil {
		report(api.Progress{Warning: "ports and names are not up to date yet: " + err.Error()})
	}
	return a.followIf(ctx, req.Wait, stack, to.Number, report)
}

func (a *Agent) rollbackTarget(stack string, n uint64) (*store.Revision, error) {
	s, _ := a.w.stack(stack)
	switch {
	case s == nil:
		return nil, notFound("no stack %s", stack)
	case s.Removing != nil:
		return nil, conflict("", "stack %s is being removed", stack)
	case n == s.Revision:
		return nil, conflict("see `berth history`", "stack %s is at revision %d already", stack, n)
	}
	list, err := a.revisions(stack)
	if err != nil {
		return nil, err
	}
	for i := range slices.Backward(list) {
		r := &list[i]
		if r.Number == n || n == 0 && r.Number < s.Revision && r.State == api.RolloutComplete {
			return r, nil
		}
	}
	if n == 0 {
		return nil, conflict("see `berth history`", "stack %s has no earlier revision that was stable", stack)
	}
	return nil, notFound("stack %s has no revision %d any more; see `berth history`", stack, n)
}

// fetchImages pulls the images of a revision that are not here any more.
func (a *Agent) fetchImages(ctx context.Context, r *store.Revision, report func(api.Progress)) error {
	for _, name := range sortedKeys(r.Stack.Services) {
		digest, svc := r.Digests[name], r.Stack.Services[name]
		if _, err := a.images.Resolve(digest); err == nil {
			continue
		}
		ref, err := images.AtDigest(svc.Image, digest)
		if err != nil {
			return err
		}
		_, err = a.images.Pull(ctx, ref, images.PullOptions{
			Platform: svc.Platform,
			Progress: func(p images.Progress) { report(api.Progress{Pull: (*api.PullProgress)(&p)}) },
		})
		if err != nil {
			return imageError(fmt.Errorf("revision %d, service %s: %w", r.Number, name, err))
		}
	}
	return nil
}
