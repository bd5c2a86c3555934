package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sync/errgroup"

	"berth/api"
	"berth/crash"
	"berth/images"
	"berth/spec"
	"berth/store"
)

// applies lets one request at a time change a stack.
type applies struct {
	mu    sync.Mutex
	since map[string]time.Time
	actor map[string]string
}

func newApplies() *applies {
	return &applies{since: map[string]time.Time{}, actor: map[string]string{}}
}

// take locks a stack for a change, or says who has it and since when.
func (l *applies) take(stack, actor string) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, busy := l.since[stack]; busy {
		return nil, &api.Error{
			Status: http.StatusConflict, Code: api.CodeConflict,
			Detail: fmt.Sprintf("stack %s is being changed by %s since %s", stack, or(l.actor[stack], "somebody"), t.Format("15:04:05")),
			Hint:   "wait until that has ended, then try again",
		}
	}
	l.since[stack], l.actor[stack] = time.Now(), actor
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.since, stack)
		delete(l.actor, stack)
	}, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// apply makes a stack the desired state: it pulls what is missing, checks
// what could fail, and commits one revision. Until that commit nothing that
// runs is touched; a failure leaves everything as it was.
func (a *Agent) apply(ctx context.Context, req *api.ApplyRequest, report func(api.Progress)) (*api.Applied, error) {
	st := req.Stack
	if err := validName(st.Name); err != nil {
		return nil, err
	}
	release, err := a.applies.take(st.Name, req.Actor)
	if err != nil {
		return nil, err
	}
	defer release()
	a.contents.RLock()
	defer a.contents.RUnlock()
	for {
		applied, err := a.applyOnce(ctx, req, report)
		if !errors.Is(err, errMoved) {
			return applied, err
		}
		// A rollout ended or went back meanwhile; what was pulled is here.
	}
}

func (a *Agent) applyOnce(ctx context.Context, req *api.ApplyRequest, report func(api.Progress)) (*api.Applied, error) {
	st := &req.Stack
	cur, rev := a.w.stack(st.Name)
	if err := a.expected(req, cur); err != nil {
		return nil, err
	}
	next, err := a.resolve(ctx, req, cur, rev, report)
	if err != nil {
		return nil, err
	}
	crash.At("apply.resolved")
	record := nextStack(req, cur, rev, next)
	if done, err := a.changeCanary(ctx, req, cur, rev, next); done || err != nil {
		return &api.Applied{Stack: st.Name, Revision: rev.Number}, err
	}
	if rev != nil && !req.ForceRecreate && !req.RenewVolumes && sameRevision(rev, next) && sameRecord(cur, &record) {
		if !req.NoStart && a.retryFailed(st.Name, req.Services) {
			a.loop.settle(ctx) // or the old verdict would be taken for the new
		}
		return &api.Applied{Stack: st.Name, Revision: rev.Number}, nil
	}
	if err := a.checkAll(req, cur, rev, next, &record, report); err != nil {
		return nil, err
	}
	chosen, err := a.ports.hold(st.Name, &next.Stack, record.Ports)
	if err != nil {
		return nil, err
	}
	record.Ports = chosen
	if req.ForceRecreate && cur != nil {
		services := req.Services
		if len(services) == 0 {
			services = sortedKeys(next.Stack.Services)
		}
		if err := a.dropSynced(cur.UID, services...); err != nil {
			return nil, fmt.Errorf("remove the synced files of %s: %w", st.Name, err)
		}
	}
	crash.At("apply.commit")
	if err := a.commitRevision(req, &record, cur, rev, next); err != nil {
		if rev != nil {
			a.ports.keep(st.Name, &rev.Stack, cur.Ports)
		} else {
			a.ports.release(st.Name)
		}
		return nil, err
	}
	crash.At("apply.committed")
	a.ports.keep(st.Name, &next.Stack, chosen)
	a.events.emit(apiEvent{Type: "stack", Action: "apply", Stack: st.Name, Revision: next.Number})
	a.loop.forgive(st.Name)
	if !req.NoStart { // what failed before and is as it was gets another try, too
		a.retryFailed(st.Name, req.Services)
	}
	a.loop.wake()
	if rev != nil {
		// Ports and virtual addresses may have changed without any task.
		if err := a.traffic.sync(ctx); err != nil && ctx.Err() == nil {
			report(api.Progress{Warning: "ports and names are not up to date yet: " + err.Error()})
		}
	}
	return &api.Applied{Stack: st.Name, Revision: next.Number, Changed: true}, nil
}

func (a *Agent) expected(req *api.ApplyRequest, cur *store.Stack) error {
	if cur != nil && cur.Removing != nil {
		return &api.Error{
			Status: http.StatusConflict, Code: api.CodeConflict,
			Detail: fmt.Sprintf("stack %s is being removed", cur.Name), Hint: "wait until `berth down` has ended",
		}
	}
	if req.ExpectRevision != 0 && (cur == nil || cur.Revision != req.ExpectRevision) {
		at := uint64(0)
		if cur != nil {
			at = cur.Revision
		}
		return &api.Error{
			Status: http.StatusConflict, Code: api.CodeConflict,
			Detail: fmt.Sprintf("stack %s is at revision %d, not %d", req.Stack.Name, at, req.ExpectRevision),
			Hint:   "look at `berth plan` again",
		}
	}
	return nil
}

// checkAll looks for all that would fail after the commit: in the stack, on
// this machine, and between what was planned and what would be done.
func (a *Agent) checkAll(req *api.ApplyRequest, cur *store.Stack, rev, next *store.Revision, record *store.Stack, report func(api.Progress)) error {
	for _, check := range []func() error{
		func() error { return checkFolder(req, rev, next) },
		func() error { return a.checkStack(next) },
		func() error { return a.checkContents(next, a.secrets.Get) },
		func() error { return a.checkMachine(next) },
		func() error { return a.checkGeneric(req, next, report) },
		func() error { return a.checkMemory(req, cur, rev, next, record, report) },
		func() error { return a.checkCPUs(req, next) },
		func() error { return a.expectedPlan(req, cur, rev, next, record) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// resolve turns the request into the next revision: contents become digests,
// references become digests, services that the request leaves out stay as
// they are.
func (a *Agent) resolve(ctx context.Context, req *api.ApplyRequest, cur *store.Stack, rev *store.Revision, report func(api.Progress)) (*store.Revision, error) {
	a.learnNames(&req.Stack)
	next := &store.Revision{Number: 1, Stack: req.Stack, Created: time.Now(), Actor: req.Actor, Digests: map[string]string{}}
	if rev != nil {
		next.Number = cur.Newest + 1
	}
	st := &next.Stack
	st.Services = maps.Clone(st.Services)
	nameBuilt(st)
	changing := changer(req, rev)
	if rev != nil {
		keepOthers(st, rev, req.Services, changing)
	}
	err := scale(st, req.Scale)
	if err != nil {
		return nil, err
	}
	if err := a.keepAllContents(ctx, st, req.Roll, a.secrets.Put, report); err != nil {
		return nil, err
	}
	if err := noteUses(st, a.secrets.Get); err != nil {
		return nil, err
	}
	if rev != nil {
		for name := range st.Services {
			if !changing(name) && rev.Digests[name] != "" {
				next.Digests[name] = rev.Digests[name]
			}
		}
	}
	keepJobs(st, rev, req)
	if err := a.pullAll(ctx, req, next, report); err != nil {
		return nil, err
	}
	next.Runs = runs(a.w.view(), rev, next)
	return next, nil
}

// keepJobs leaves the jobs as they are where the request names services, or is
// not about the file.
func keepJobs(st *spec.Stack, rev *store.Revision, req *api.ApplyRequest) {
	if rev != nil && (len(req.Services) > 0 || req.NoRecreate) {
		st.Jobs = rev.Stack.Jobs
	}
}

// scale sets replicas, also of services that otherwise stay as they are.
func scale(st *spec.Stack, to map[string]int) error {
	for _, name := range sortedKeys(to) {
		s, ok := st.Services[name]
		if !ok {
			return invalid("no such service: %s", name)
		}
		if s.Global() && to[name] != s.Replicas {
			return invalid("service %s can't be scaled: mode %s runs one task on each node", name, s.Mode)
		}
		s.Replicas = to[name]
		st.Services[name] = s
		for _, step := range sortedKeys(st.Services) {
			if s := st.Services[step]; s.StepOf == name && s.PerReplica {
				s.Replicas = to[name]
				st.Services[step] = s
			}
		}
	}
	return nil
}

// changer says which services the request changes: those that it names, or
// all; with NoRecreate only new ones.
func changer(req *api.ApplyRequest, rev *store.Revision) func(string) bool {
	return func(name string) bool {
		if rev != nil && req.NoRecreate {
			if _, is := rev.Stack.Services[name]; is {
				return false
			}
		}
		return len(req.Services) == 0 || slices.Contains(req.Services, name)
	}
}

// keepOthers puts back the services of the current revision that the request
// does not change, and what they need. Services that it names leave out those
// of the file that neither run nor are asked for.
func keepOthers(st *spec.Stack, rev *store.Revision, services []string, changing func(string) bool) {
	kept := false
	for name, s := range rev.Stack.Services {
		_, inFile := st.Services[name]
		if !changing(name) && (inFile || len(services) > 0) {
			st.Services[name], kept = s, true
		}
	}
	for name := range st.Services {
		if _, was := rev.Stack.Services[name]; !was && !changing(name) {
			delete(st.Services, name)
		}
	}
	if !kept {
		return
	}
	// What only kept services use stays with them; what a changing one uses
	// is as the file has it now.
	uses := usedBy(st, changing)
	st.Networks = keepUnused(rev.Stack.Networks, st.Networks, uses.networks)
	st.Volumes = keepUnused(rev.Stack.Volumes, st.Volumes, uses.volumes)
	st.Configs = keepUnused(rev.Stack.Configs, st.Configs, uses.configs)
	st.Secrets = keepUnused(rev.Stack.Secrets, st.Secrets, uses.secrets)
}

// uses are the keys of top-level elements that services use.
type uses struct{ networks, volumes, configs, secrets map[string]bool }

func usedBy(st *spec.Stack, which func(string) bool) uses {
	u := uses{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for name, s := range st.Services {
		if !which(name) {
			continue
		}
		for _, at := range s.Networks {
			u.networks[at.Network] = true
		}
		for _, m := range s.Mounts {
			u.volumes[m.Source] = m.Type == spec.MountVolume || u.volumes[m.Source]
		}
		for _, f := range s.Configs {
			u.configs[f.Source] = true
		}
		for _, f := range s.Secrets {
			u.secrets[f.Source] = true
		}
	}
	return u
}

// keepUnused is was, with what is used or new as is has it.
func keepUnused[V any](was, is map[string]V, used map[string]bool) map[string]V {
	out := union(is, was)
	for key, v := range is {
		if used[key] {
			out[key] = v
		}
	}
	return out
}

func union[V any](under, over map[string]V) map[string]V {
	out := maps.Clone(under)
	if out == nil {
		out = map[string]V{}
	}
	maps.Copy(out, over)
	return out
}

// keepAllContents is keepContents for the configs and the secrets of st.
func (a *Agent) keepAllContents(ctx context.Context, st *spec.Stack, roll string, keep func([]byte) (string, error), report func(api.Progress)) error {
	var errs *multierror.Error
	configs, err := a.keepContents(ctx, st, api.KindConfig, st.Configs, roll, keep, report)
	errs = multierror.Append(errs, err)
	kept, err := a.keepContents(ctx, st, api.KindSecret, st.Secrets, roll, keep, report)
	if errs = multierror.Append(errs, err); errs.Len() > 0 {
		return errs
	}
	st.Configs, st.Secrets = configs, kept
	return nil
}

// keepContents replaces contents by their digests, which keep gives. External
// ones get that of the store's current version, unless they have one and roll
// is another.
func (a *Agent) keepContents(ctx context.Context, st *spec.Stack, kind string, files map[string]spec.File, roll string, keep func([]byte) (string, error), report func(api.Progress)) (map[string]spec.File, error) {
	fetched, err := a.fetchContents(ctx, st, kind, files, report)
	if err != nil {
		return nil, err
	}
	out := map[string]spec.File{}
	for _, key := range sortedKeys(files) {
		f := files[key]
		if content, ok := fetched[key]; ok {
			f.Content = content
		}
		switch {
		case f.External && (f.Digest == "" || roll == kind+"/"+f.Name):
			f.Digest, err = a.externalContent(st, kind, key, f)
		case f.Digest == "":
			a.learn(kind, f.Content)
			if f.Digest, err = keep(f.Content); err != nil {
				err = fmt.Errorf("%s %s: %w", kind, key, err)
			}
		}
		if err != nil {
			return nil, placed(st, kind+"s."+key, err)
		}
		f.Content, f.Encrypted, f.Provider = nil, "", nil
		out[key] = f
	}
	return out, nil
}

// pullAll resolves the image of every service that has no digest yet, pulling
// where its policy asks for it. All failures are reported together.
func (a *Agent) pullAll(ctx context.Context, req *api.ApplyRequest, next *store.Revision, report func(api.Progress)) error {
	wants, errs := a.wantedImages(req, next)
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, w := range wants {
		g.Go(func() error {
			img, err := a.images.Pull(ctx, w.ref, images.PullOptions{
				Platform: w.platform, Policy: images.Policy(w.policy), Auth: authFor(req.Auth, w.ref),
				Progress: func(p images.Progress) {
					if p.Layer == "" && p.Status == "exists" {
						return // most often; nothing was pulled, nothing to say
					}
					report(api.Progress{Pull: (*api.PullProgress)(&p)})
				},
			})
			mu.Lock()
			defer mu.Unlock()
			if w.err = err; err != nil {
				return nil
			}
			for _, set := range w.set {
				set(img.Digest)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, w := range wants {
		if w.err != nil {
			errs = multierror.Append(errs, placed(&next.Stack, w.path, imageError(w.err)))
		}
	}
	return errs.ErrorOrNil()
}

// wantedImage is an image that a revision needs, and what its digest goes to.
type wantedImage struct {
	ref, platform, policy string

	path string // of the first that wants it
	set  []func(digest string)
	err  error
}

// wantedImages are the images that have no digest yet: of services, and of
// mounts of type image, which are pulled when they are missing.
func (a *Agent) wantedImages(req *api.ApplyRequest, next *store.Revision) ([]*wantedImage, *multierror.Error) {
	var out []*wantedImage
	var errs *multierror.Error
	add := func(w wantedImage, set func(string)) {
		i := slices.IndexFunc(out, func(o *wantedImage) bool {
			return o.ref == w.ref && o.platform == w.platform && o.policy == w.policy
		})
		if i < 0 {
			i = len(out)
			out = append(out, &w)
		}
		out[i].set = append(out[i].set, set)
	}
	for _, name := range sortedKeys(next.Stack.Services) {
		s := next.Stack.Services[name]
		s.Mounts = slices.Clone(s.Mounts)
		next.Stack.Services[name] = s
		for i, m := range s.Mounts {
			if m.Type == spec.MountImage && m.Digest == "" {
				add(wantedImage{ref: m.Source, platform: s.Platform, policy: req.Pull, path: "services." + name + ".mounts." + m.Target},
					func(digest string) { s.Mounts[i].Digest = digest })
			}
		}
		if next.Digests[name] != "" {
			continue
		}
		w := wantedImage{ref: s.Image, platform: s.Platform, policy: s.PullPolicy, path: "services." + name + ".image"}
		if req.Pull != "" {
			w.policy = req.Pull
		}
		if s.Build != nil { // the client has built or pulled it
			if _, err := a.images.Resolve(s.Image); err != nil {
				errs = multierror.Append(errs, notBuilt(&next.Stack, name))
				continue
			}
			w.policy = string(images.PullNever)
		}
		add(w, func(digest string) { next.Digests[name] = digest })
	}
	return out, errs
}

// nameBuilt names the images of services that are only built.
func nameBuilt(st *spec.Stack) {
	for name, s := range st.Services {
		if s.Image == "" {
			s.Image = st.ImageOf(name)
			st.Services[name] = s
		}
	}
}

// notBuilt is what a service meets whose image is yet to be built.
func notBuilt(st *spec.Stack, service string) error {
	return placed(st, "services."+service+".build", &api.Error{
		Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid,
		Detail: fmt.Sprintf("the image of service %s, %s, is not built yet", service, st.ImageOf(service)),
		Hint:   "`berth build` builds it, and so does `berth up` without --no-build",
	})
}

// nextStack is the record of the stack after the request.
func nextStack(req *api.ApplyRequest, cur *store.Stack, rev, next *store.Revision) store.Stack {
	out := store.Stack{Name: next.Stack.Name, UID: randomID(), Created: time.Now()}
	if cur != nil {
		out = *cur
	}
	out.Stopped = maps.Clone(out.Stopped)
	out.Epochs = maps.Clone(out.Epochs)
	out.Renewals = maps.Clone(out.Renewals)
	if out.Stopped == nil {
		out.Stopped = map[string]bool{}
	}
	if out.Epochs == nil {
		out.Epochs = map[string]int{}
	}
	if out.Renewals == nil {
		out.Renewals = map[string]int{}
	}
	for name := range next.Stack.Services {
		if len(req.Services) > 0 && !slices.Contains(req.Services, name) {
			continue
		}
		isNew := rev == nil
		if !isNew {
			_, was := rev.Stack.Services[name]
			isNew = !was
		}
		if req.NoStart && (isNew || cur.Stopped[name]) {
			out.Stopped[name] = true
		} else {
			delete(out.Stopped, name)
		}
		if req.ForceRecreate {
			out.Epochs[name]++
		}
		if req.RenewVolumes {
			out.Renewals[name]++
			if !req.ForceRecreate {
				out.Epochs[name]++
			}
		}
	}
	out.Revision, out.Newest = next.Number, next.Number
	out.StopTimeout, out.StopTimeoutAll = req.StopTimeout, req.StopTimeout != nil
	return out
}

func sameRecord(x, y *store.Stack) bool {
	return maps.Equal(x.Stopped, y.Stopped) || len(x.Stopped) == 0 && len(y.Stopped) == 0
}

// sameRevision says that two revisions differ at most in their places: where
// in which file things stand, who asked and when.
func sameRevision(x, y *store.Revision) bool {
	if !maps.Equal(x.Digests, y.Digests) {
		return false
	}
	bare := func(s spec.Stack) spec.Stack {
		s.Positions, s.Files, s.EnvFiles = nil, nil, nil
		return s
	}
	// As JSON an empty list and none are the same, and maps are sorted.
	return bytes.Equal(encoded(bare(x.Stack)), encoded(bare(y.Stack)))
}

// commitRevision makes the revision the wanted one and begins its rollout, with
// the networks and virtual addresses that it needs, in one transaction.
func (a *Agent) commitRevision(req *api.ApplyRequest, s, cur *store.Stack, rev, next *store.Revision) error {
	return a.w.commit(func(c *change) error {
		if c.w.stacks[s.Name] != cur {
			return errMoved
		}
		if err := a.resources(c, s, next); err != nil {
			return err
		}
		a.beginRollout(c, s, cur, rev, next, req.Actor)
		if req.Canary != nil {
			if err := startCanary(s.Rollout, req.Canary, s, next); err != nil {
				return err
			}
		}
		c.putStack(*s)
		c.putRevision(s.Name, *next)
		c.prune(s.Name, s.Stable)
		return nil
	})
}

// resources puts the networks and virtual addresses that r needs into c.
func (a *Agent) resources(c *change, s *store.Stack, r *store.Revision) error {
	for _, key := range sortedKeys(r.Stack.Networks) {
		n := r.Stack.Networks[key]
		if !ours(n) || !usedNetwork(&r.Stack, key) || n.External && c.network(n.Name) != nil {
			continue
		}
		if err := a.recordNetwork(c, s.Name, n); err != nil {
			return placed(&r.Stack, "networks."+key, err)
		}
	}
	return a.giveVIPs(c, s.Name, &r.Stack)
}

func usedNetwork(st *spec.Stack, key string) bool {
	for _, s := range st.Services {
		if slices.ContainsFunc(s.Networks, func(at spec.Attachment) bool { return at.Network == key }) {
			return true
		}
	}
	return false
}

func validName(name string) error {
	ok := name != "" && len(name) <= 63 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") == "" &&
		name[0] != '-' && name[0] != '_'
	if !ok {
		return invalid("stack name %q: use a-z, 0-9, - and _, beginning with a letter or digit, at most 63", name)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &api.Error{Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid, Detail: fmt.Sprintf(format, args...)}
}
