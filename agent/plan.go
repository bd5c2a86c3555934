package agent

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"berth/api"
	"berth/images"
	"berth/reconciler"
	"berth/spec"
	"berth/store"
)

// plan says what apply would do, and changes nothing: no pull, no record.
func (a *Agent) plan(ctx context.Context, req *api.ApplyRequest) (*api.Plan, error) {
	if err := validName(req.Stack.Name); err != nil {
		return nil, err
	}
	cur, rev := a.w.stack(req.Stack.Name)
	if err := a.expected(req, cur); err != nil {
		return nil, err
	}
	next, missing, read, err := a.preview(ctx, req, cur, rev)
	if err != nil {
		return nil, err
	}
	if err := a.checkStack(next); err != nil {
		return nil, err
	}
	if err := a.checkContents(next, read); err != nil {
		return nil, err
	}
	record := nextStack(req, cur, rev, next)
	return a.describe(req, cur, rev, next, &record, missing), nil
}

// describe says what leads from one revision to the next.
func (a *Agent) describe(req *api.ApplyRequest, cur *store.Stack, rev, next *store.Revision, record *store.Stack, missing []string) *api.Plan {
	out := &api.Plan{Stack: req.Stack.Name, Next: next.Number, Images: missing}
	if rev != nil {
		out.Revision = rev.Number
	}
	p := &previewer{a: a, v: a.w.view(), req: req, rev: rev, next: next, cur: cur, record: record}
	p.compare()
	p.services(out)
	p.resources(out)
	out.Changed = slices.ContainsFunc(out.Services, func(s api.PlanService) bool { return s.Verb != api.PlanUnchanged }) ||
		slices.ContainsFunc(out.Networks, changes) || slices.ContainsFunc(out.Volumes, changes) ||
		rev == nil || !sameRevision(rev, next)
	if !out.Changed {
		out.Next = out.Revision
	}
	return out
}

// expectedPlan refuses a request whose plan is not the one that was looked at.
// Images that had to be pulled then are here now; that is no difference.
func (a *Agent) expectedPlan(req *api.ApplyRequest, cur *store.Stack, rev, next *store.Revision, record *store.Stack) error {
	if req.ExpectPlan == nil {
		return nil
	}
	want, is := *req.ExpectPlan, a.hidden(a.describe(req, cur, rev, next, record, nil))
	was := want.Images
	want.Images = nil
	if bytes.Equal(encoded(want), encoded(is)) {
		return nil
	}
	for i, s := range is.Services {
		if i < len(want.Services) && !bytes.Equal(encoded(want.Services[i]), encoded(s)) && !slices.Contains(was, next.Stack.Services[s.Service].Image) {
			return conflict("make a new plan with `berth plan --out`",
				"the plan is out of date: it says %s for service %s, and now that is %s", want.Services[i].Verb, s.Service, s.Verb)
		}
	}
	if want.Revision == is.Revision && len(want.Services) == len(is.Services) && len(was) > 0 {
		return nil // only the digests differ that were not known yet
	}
	return conflict("make a new plan with `berth plan --out`", "the plan is out of date: the stack has changed since")
}

func changes(r api.PlanResource) bool { return r.Verb != api.PlanUnchanged }

// preview resolves like apply, but only from what is here; missing are the
// references that apply would pull. read knows the contents of the request,
// which are not stored.
func (a *Agent) preview(ctx context.Context, req *api.ApplyRequest, cur *store.Stack, rev *store.Revision) (next *store.Revision, missing []string, read reader, err error) {
	offline := *req
	asked := map[string][]byte{}
	digest := func(content []byte) (string, error) {
		d := a.secrets.Digest(content)
		asked[d] = content
		return d, nil
	}
	read = func(digest string) ([]byte, error) {
		if content, ok := asked[digest]; ok {
			return content, nil
		}
		return a.secrets.Get(digest)
	}
	if err := a.keepAllContents(ctx, &offline.Stack, req.Roll, digest, func(api.Progress) {}); err != nil {
		return nil, nil, nil, err
	}
	if err := noteUses(&offline.Stack, read); err != nil {
		return nil, nil, nil, err
	}
	changing := changer(req, rev)
	next = &store.Revision{Number: 1, Stack: offline.Stack, Digests: map[string]string{}}
	next.Stack.Services = union(nil, req.Stack.Services)
	nameBuilt(&next.Stack)
	if rev != nil {
		next.Number = cur.Newest + 1
		keepOthers(&next.Stack, rev, req.Services, changing)
	}
	if err := scale(&next.Stack, req.Scale); err != nil {
		return nil, nil, nil, err
	}
	for _, name := range sortedKeys(next.Stack.Services) {
		s := next.Stack.Services[name]
		if rev != nil && !changing(name) && rev.Digests[name] != "" {
			next.Digests[name] = rev.Digests[name]
			continue
		}
		img, err := a.images.Resolve(s.Image)
		if err != nil {
			if s.PullPolicy == string(images.PullNever) {
				return nil, nil, nil, placed(&next.Stack, "services."+name+".image", imageError(err))
			}
			missing = append(missing, s.Image)
			continue
		}
		next.Digests[name] = img.Digest
	}
	next.Runs = runs(a.w.view(), rev, next)
	slices.Sort(missing)
	return next, slices.Compact(missing), read, nil
}

// previewer compares two revisions for people.
type previewer struct {
	a      *Agent
	v      view
	req    *api.ApplyRequest
	rev    *store.Revision // nil: there is none
	next   *store.Revision
	cur    *store.Stack
	record *store.Stack
	// before and after are the keys of current tasks: what differs is replaced.
	before, after map[string]string
}

// compare computes the keys as the loop will see them.
func (p *previewer) compare() {
	if p.rev == nil {
		return
	}
	p.before = keys(p.v, p.cur, p.rev)
	then := p.v
	then.networks = union(nil, p.v.networks)
	for _, n := range p.next.Stack.Networks {
		if rec := then.networks[n.Name]; rec == nil && !n.External || rec != nil && !n.External && !sameNetwork(rec.Spec, n) {
			then.networks[n.Name] = &store.Network{Name: n.Name, ID: "new"}
		}
	}
	p.after = keys(then, p.record, p.next)
}

func (p *previewer) services(out *api.Plan) {
	for _, name := range inOrder(p.next.Stack.Services) {
		out.Services = append(out.Services, p.service(name))
	}
	if p.rev == nil {
		return
	}
	for _, name := range sortedKeys(p.rev.Stack.Services) {
		if _, ok := p.next.Stack.Services[name]; !ok {
			n := p.rev.Stack.Services[name].Replicas
			out.Services = append(out.Services, api.PlanService{
				Service: name, Verb: api.PlanRemove, Tasks: n, From: n, Reason: "no longer in the file",
			})
		}
	}
}

func (p *previewer) service(name string) api.PlanService {
	svc := p.next.Stack.Services[name]
	out := api.PlanService{Service: name, Verb: api.PlanCreate, Tasks: svc.Replicas, To: svc.Replicas}
	if old, ok := p.was(name); ok {
		p.change(&out, &old, &svc)
	}
	if _, why, _ := fits(p.a.node, &svc); why != "" {
		out.Reason = strings.TrimPrefix(out.Reason+", pending: "+why, ", ")
	}
	return out
}

// was is the service as it is now.
func (p *previewer) was(name string) (spec.Service, bool) {
	if p.rev == nil {
		return spec.Service{}, false
	}
	s, ok := p.rev.Stack.Services[name]
	return s, ok
}

// change says what leads from old to svc.
func (p *previewer) change(out *api.PlanService, old, svc *spec.Service) {
	name := svc.Name
	out.From = old.Replicas
	oldID, newID := identity(p.v, p.rev, name), identity(p.v, p.next, name)
	class := spec.ClassIgnored
	for _, c := range spec.Diff(old, svc, oldID, newID) {
		if c.Class == spec.ClassIgnored && c.Path != "image" && c.Path != "replicas" {
			continue
		}
		out.Changes = append(out.Changes, api.PlanChange{
			Path: c.Path, Old: c.Old, New: c.New, Position: position(&p.next.Stack, "services."+name+"."+asWritten(c.Path)),
		})
		class = min(class, c.Class) // replace is the least
	}
	replaced := p.before[name] != p.after[name]
	if replaced && len(out.Changes) == 0 {
		out.Changes = p.indirect(name, svc)
	}
	switch {
	case replaced:
		order, why := p.a.order(&p.next.Stack, svc, p.next.Digests[name])
		out.Verb, out.Order, out.Reason = api.PlanReplace, order.String(), why
		switch {
		case svc.OneShot:
			out.Order, out.Reason = "", "runs again"+waiters(&p.next.Stack, name)
		case order == reconciler.StartFirst:
			out.Reason = howReplaced(svc)
		}
	case old.Replicas != svc.Replicas:
		out.Verb = api.PlanScale
	case class == spec.ClassInPlace:
		out.Verb, out.Reason = api.PlanUpdate, inPlaceReason(svc, out.Changes)
	case p.cur != nil && p.cur.Stopped[name] && !p.record.Stopped[name]:
		out.Verb, out.Reason = api.PlanCreate, "it is stopped"
	default:
		out.Verb, out.Tasks = api.PlanUnchanged, svc.Replicas
	}
}

// inPlaceReason says what an update in place does to the processes of s.
func inPlaceReason(s *spec.Service, changes []api.PlanChange) string {
	var signals []string
	waits := false
	for _, m := range slices.Concat(s.Configs, s.Secrets) {
		changed := slices.ContainsFunc(changes, func(c api.PlanChange) bool {
			return c.Path == "configs."+m.Source+".content" || c.Path == "secrets."+m.Source+".content"
		})
		switch {
		case !changed:
		case m.Signal() != "":
			signals = append(signals, m.Signal())
		default:
			waits = true
		}
	}
	slices.Sort(signals)
	switch {
	case len(signals) > 0:
		return "each gets " + strings.Join(slices.Compact(signals), ", ")
	case waits:
		return "the content waits for the next replacement"
	}
	return "no process is touched"
}

// asWritten is the path in a Compose file of what an extension key says.
func asWritten(path string) string {
	key, rest, _ := strings.Cut(path, ".")
	switch key {
	case "readiness", "liveness":
		return "x-" + key + strings.TrimSuffix("."+rest, ".")
	case "min_ready", "drain", "progress_deadline":
		return "x-" + strings.ReplaceAll(key, "_", "-")
	}
	return path
}

// waiters names the services that wait for a one-shot to complete.
func waiters(st *spec.Stack, oneShot string) string {
	var names []string
	for _, name := range sortedKeys(st.Services) {
		for _, d := range st.Services[name].DependsOn {
			if d.Service == oneShot && d.Condition == spec.DependsCompleted {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ", before " + strings.Join(names, ", ")
}

// howReplaced says how many tasks are replaced at once, and for how long new ones are
// watched.
func howReplaced(s *spec.Service) string {
	u := updateOf(s, false)
	var parts []string
	switch {
	case s.Replicas < 2:
	case u.Parallelism == 0 || u.Parallelism >= s.Replicas:
		parts = append(parts, "all at once")
	case u.Parallelism == 1:
		parts = append(parts, "one at a time")
	default:
		parts = append(parts, fmt.Sprintf("%d at a time", u.Parallelism))
	}
	if u.Monitor > 0 {
		parts = append(parts, fmt.Sprintf("watched for %s", u.Monitor))
	}
	return strings.Join(parts, ", ")
}

// indirect says why a service is replaced that did not change itself.
func (p *previewer) indirect(name string, svc *spec.Service) []api.PlanChange {
	if p.cur.Epochs[name] != p.record.Epochs[name] {
		return []api.PlanChange{{Path: "tasks", New: "asked for"}}
	}
	var out []api.PlanChange
	if svc.OneShot && p.rev.Runs[name] != p.next.Runs[name] {
		out = append(out, api.PlanChange{Path: "run", New: "a service that waits for it is replaced"})
	}
	for _, at := range svc.Networks {
		n := p.next.Stack.Networks[at.Network]
		if rec := p.v.networks[n.Name]; !n.External && (rec == nil || !sameNetwork(rec.Spec, n)) {
			out = append(out, api.PlanChange{
				Path: "networks." + at.Network, New: "its settings changed", Position: position(&p.next.Stack, "networks."+at.Network),
			})
		}
	}
	for _, d := range svc.DependsOn {
		if d.Restart && p.before[d.Service] != p.after[d.Service] {
			out = append(out, api.PlanChange{
				Path: "depends_on." + d.Service, New: "is replaced, and restart is true",
				Position: position(&p.next.Stack, "services."+name+".depends_on."+d.Service),
			})
		}
	}
	return out
}

func (p *previewer) resources(out *api.Plan) {
	for _, key := range sortedKeys(p.next.Stack.Networks) {
		n := p.next.Stack.Networks[key]
		if n.External || !usedNetwork(&p.next.Stack, key) {
			continue
		}
		r := api.PlanResource{Name: n.Name, Verb: api.PlanUnchanged}
		switch rec := p.v.networks[n.Name]; {
		case rec == nil:
			r.Verb = api.PlanCreate
		case !sameNetwork(rec.Spec, n):
			r.Verb, r.Reason = api.PlanReplace, "its settings changed: every service on it moves"
		}
		out.Networks = append(out.Networks, r)
	}
	for _, name := range sortedKeys(p.v.networks) {
		rec := p.v.networks[name]
		if rec.Stack == p.next.Stack.Name && !wants(p.next, name) && !strings.Contains(name, "~") {
			out.Networks = append(out.Networks, api.PlanResource{Name: name, Verb: api.PlanRemove, Reason: "no longer in the file"})
		}
	}
	for _, key := range sortedKeys(p.next.Stack.Volumes) {
		v := p.next.Stack.Volumes[key]
		r := api.PlanResource{Name: v.Name, Verb: api.PlanUnchanged}
		if !p.a.volumeExists(v.Name) && !v.External {
			r.Verb = api.PlanCreate
		}
		if !usedVolume(&p.next.Stack, key) {
			continue
		}
		out.Volumes = append(out.Volumes, r)
	}
}

func usedVolume(st *spec.Stack, key string) bool {
	for _, s := range st.Services {
		for _, m := range s.Mounts {
			if m.Type == spec.MountVolume && m.Source == key {
				return true
			}
		}
	}
	return false
}

// inOrder sorts services so that each comes after what it depends on.
func inOrder(services map[string]spec.Service) []string {
	var out []string
	done := map[string]bool{}
	var visit func(string)
	visit = func(name string) {
		s, ok := services[name]
		if !ok || done[name] {
			return
		}
		done[name] = true
		for _, d := range s.DependsOn {
			visit(d.Service)
		}
		out = append(out, name)
	}
	for _, name := range sortedKeys(services) {
		visit(name)
	}
	return out
}
