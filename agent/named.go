package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"

	"berth/api"
	"berth/crash"
	"berth/secrets"
	"berth/spec"
	"berth/store"
)

// Named contents: secrets and configs of the agent's own store, which stacks
// name as external. A content is stored before its record; contents without a
// record are swept.

// Limits of one content, as Docker Swarm has them.
const (
	maxSecret = 500 << 10
	maxConfig = 1000 << 10
)

var contentName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

func checkContent(kind, stack, name string) error {
	switch {
	case kind != api.KindSecret && kind != api.KindConfig:
		return notFound("no contents of kind %q; there are secret and config", kind)
	case !contentName.MatchString(name):
		return invalid("%s name %q: letters, digits and _.- only, at most 128", kind, name)
	case stack != "":
		return validName(stack)
	}
	return nil
}

func checkSize(kind string, n int) error {
	limit := maxSecret
	if kind == api.KindConfig {
		limit = maxConfig
	}
	if n > limit {
		return invalid("a %s of %d bytes; at most %d KiB", kind, n, limit>>10)
	}
	return nil
}

// named reads one content; nil if there is none.
func (a *Agent) named(kind, stack, name string) (*store.Content, error) {
	var out *store.Content
	err := a.db.View(func(tx store.Tx) error {
		c, err := store.Get[store.Content](tx, store.Contents, store.ContentKey(kind, stack, name))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		out = &c
		return err
	})
	return out, err
}

// externalContent is the digest of the current version of an external content:
// the stack's own, else the one for all stacks.
func (a *Agent) externalContent(st *spec.Stack, kind, key string, f spec.File) (string, error) {
	for _, stack := range []string{st.Name, ""} {
		c, err := a.named(kind, stack, f.Name)
		if err != nil {
			return "", err
		}
		if c != nil {
			digest := c.Version(c.Current).Digest
			// What can't be read must not become a revision.
			_, err := a.secrets.Get(digest)
			return digest, a.nameDamaged(err)
		}
	}
	return "", &api.Error{
		Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid,
		Detail: fmt.Sprintf("%s %s is external, and the store has no %s %s", kind, key, kind, f.Name),
		Hint:   "store it: berth " + command(kind) + " set " + f.Name,
	}
}

// command is the command line's word for a kind: `berth config` is another one.
func command(kind string) string {
	if kind == api.KindConfig {
		return "configs"
	}
	return kind
}

// setContent stores a new version, if it differs from the current one, and
// forgets those that nobody needs any more.
func (a *Agent) setContent(kind string, req *api.ContentSet) (*store.Content, bool, error) {
	c, changed, err := a.addVersion(kind, req)
	if changed && err == nil {
		if err := a.sweepSecrets(); err != nil {
			a.log.Error("collect contents", "err", err) // the next sweep does
		}
	}
	return c, changed, err
}

func (a *Agent) addVersion(kind string, req *api.ContentSet) (*store.Content, bool, error) {
	if err := checkContent(kind, req.Stack, req.Name); err != nil {
		return nil, false, err
	}
	if err := checkSize(kind, len(req.Content)); err != nil {
		return nil, false, err
	}
	a.learn(kind, req.Content)
	a.contents.RLock() // no sweep before the record is there
	defer a.contents.RUnlock()
	digest, err := a.secrets.Put(req.Content)
	if err != nil {
		return nil, false, err
	}
	crash.At("named.stored")
	var out store.Content
	changed := false
	err = a.db.Update(func(tx store.Tx) error {
		key := store.ContentKey(kind, req.Stack, req.Name)
		c, err := store.Get[store.Content](tx, store.Contents, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			c = store.Content{Kind: kind, Stack: req.Stack, Name: req.Name}
		case err != nil:
			return err
		}
		if req.Labels != nil {
			c.Labels = req.Labels
		}
		if cur := c.Version(c.Current); cur == nil || cur.Digest != digest {
			next := uint64(1)
			if n := len(c.Versions); n > 0 {
				next = c.Versions[n-1].Number + 1
			}
			c.Versions = append(c.Versions, store.ContentVersion{
				Number: next, Digest: digest, Size: len(req.Content), Created: time.Now(), Actor: req.Actor, Before: c.Current,
			})
			c.Current, changed = next, true
		}
		out = c
		return store.Put(tx, store.Contents, key, c)
	})
	crash.At("named.committed")
	return &out, changed, err
}

// stepBack makes the version that was current before the current one again.
func (a *Agent) stepBack(kind, stack, name string) (*store.Content, error) {
	var out store.Content
	err := a.db.Update(func(tx store.Tx) error {
		key := store.ContentKey(kind, stack, name)
		c, err := store.Get[store.Content](tx, store.Contents, key)
		if errors.Is(err, store.ErrNotFound) {
			return noContent(kind, stack, name)
		}
		if err != nil {
			return err
		}
		before := c.Previous()
		if before == nil {
			return conflict("", "%s %s has no version before %d", kind, name, c.Current)
		}
		c.Current = before.Number
		out = c
		return store.Put(tx, store.Contents, key, c)
	})
	crash.At("named.stepped")
	return &out, err
}

func noContent(kind, stack, name string) error {
	hint := "berth " + command(kind) + " ls lists them"
	if stack == "" {
		return hinted(hint, notFound("no %s %s for all stacks", kind, name))
	}
	return hinted(hint, notFound("no %s %s of stack %s", kind, name, stack))
}

// hinted adds what to do to an API error.
func hinted(hint string, err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		out := *e
		out.Hint = hint
		return &out
	}
	return err
}

// users are the stacks, with their services and jobs, whose wanted revision has
// a content: STACK/SERVICE.
func users(v view, c *store.Content, shadowed func(stack string) bool) []string {
	out := []string{}
	for _, name := range sortedKeys(v.revisions) {
		if c.Stack != "" && c.Stack != name || c.Stack == "" && shadowed(name) {
			continue
		}
		r := v.revisions[name]
		files := r.Stack.Secrets
		if c.Kind == api.KindConfig {
			files = r.Stack.Configs
		}
		has := func(s *spec.Service) bool {
			mounts := s.Secrets
			if c.Kind == api.KindConfig {
				mounts = s.Configs
			}
			return slices.ContainsFunc(mounts, func(m spec.FileMount) bool { f := files[m.Source]; return f.External && f.Name == c.Name })
		}
		for _, service := range sortedKeys(r.Stack.Services) {
			if s := r.Stack.Services[service]; has(&s) {
				out = append(out, name+"/"+service)
			}
		}
		for _, job := range sortedKeys(r.Stack.Jobs) {
			if j := r.Stack.Jobs[job]; has(&j.Service) {
				out = append(out, name+"/"+job)
			}
		}
	}
	return out
}

// listContents lists a kind: of one stack with those for all, or all.
func (a *Agent) listContents(kind, stack string) ([]api.Content, error) {
	out := []api.Content{}
	var all []store.Content
	revisions := map[string][]string{} // by digest
	err := a.db.View(func(tx store.Tx) error {
		err := store.Each(tx, store.Contents, kind+"/", func(_ string, c store.Content) error {
			all = append(all, c)
			return nil
		})
		if err != nil {
			return err
		}
		return store.Each(tx, store.Revisions, "", func(_ string, r store.Revision) error {
			files := r.Stack.Secrets
			if kind == api.KindConfig {
				files = r.Stack.Configs
			}
			for _, f := range files {
				if f.External {
					revisions[f.Name+" "+f.Digest] = append(revisions[f.Name+" "+f.Digest], fmt.Sprintf("%s/%d", r.Stack.Name, r.Number))
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	v := a.w.view()
	for _, c := range all {
		if stack != "" && c.Stack != "" && c.Stack != stack {
			continue
		}
		line := api.Content{
			Kind: c.Kind, Stack: c.Stack, Name: c.Name, Labels: c.Labels, Current: c.Current, CreatedAt: c.Versions[0].Created,
			UsedBy: users(v, &c, func(stack string) bool {
				return slices.ContainsFunc(all, func(o store.Content) bool { return o.Stack == stack && o.Name == c.Name })
			}),
		}
		for _, version := range slices.Backward(c.Versions) {
			line.Versions = append(line.Versions, api.ContentVersion{
				Number: version.Number, Size: version.Size, CreatedAt: version.Created, Actor: version.Actor,
				Revisions: revisions[c.Name+" "+version.Digest],
			})
		}
		out = append(out, line)
	}
	return out, nil
}

// inspectContent describes one; a config with what it contains.
func (a *Agent) inspectContent(kind, stack, name string) (*api.Content, error) {
	if err := checkContent(kind, stack, name); err != nil {
		return nil, err
	}
	list, err := a.listContents(kind, stack)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(c api.Content) bool { return c.Name == name && c.Stack == stack })
	if i < 0 {
		return nil, noContent(kind, stack, name)
	}
	out := list[i]
	if kind == api.KindConfig {
		c, err := a.named(kind, stack, name)
		if err != nil || c == nil {
			return nil, err
		}
		if out.Content, err = a.secrets.Get(c.Version(c.Current).Digest); err != nil {
			return nil, a.nameDamaged(err)
		}
	}
	return &out, nil
}

// removeContent forgets a content that no wanted revision uses. Revisions that
// had it can still be gone back to: its content is kept as long as they are.
func (a *Agent) removeContent(kind, stack, name string) error {
	c, err := a.inspectContent(kind, stack, name)
	if err != nil {
		return err
	}
	if len(c.UsedBy) > 0 {
		return &api.Error{
			Status: http.StatusConflict, Code: api.CodeInUse,
			Detail: fmt.Sprintf("%s %s is used by %s", kind, name, strings.Join(c.UsedBy, ", ")),
			Hint:   "take it out of the Compose file and `berth up` first",
		}
	}
	if err := a.db.Update(func(tx store.Tx) error { return tx.Delete(store.Contents, store.ContentKey(kind, stack, name)) }); err != nil {
		return err
	}
	crash.At("named.removed")
	if err := a.sweepSecrets(); err != nil {
		a.log.Error("collect contents", "err", err)
	}
	return nil
}

// rollContent gives a content another version, and every stack that uses it a
// revision with it. Where a rollout fails it goes back as any other; then its
// stack has the old version, and the store the new one. A stack that can't be
// changed now does not keep the others from it.
func (a *Agent) rollContent(ctx context.Context, kind, name string, req *api.ContentRoll, report func(api.Progress)) (*api.Done, error) {
	if err := checkContent(kind, req.Stack, name); err != nil {
		return nil, err
	}
	was, err := a.named(kind, req.Stack, name)
	if err != nil {
		return nil, err
	}
	if was == nil {
		return nil, noContent(kind, req.Stack, name)
	}
	var c *store.Content
	if req.Back {
		c, err = a.stepBack(kind, req.Stack, name)
	} else {
		c, _, err = a.setContent(kind, &api.ContentSet{Stack: req.Stack, Name: name, Content: req.Content, Actor: req.Actor})
	}
	if err != nil {
		return nil, err
	}
	report(api.Progress{Message: fmt.Sprintf("%s %s is at version %d", kind, name, c.Current)})
	now, err := a.inspectContent(kind, req.Stack, name)
	if err != nil {
		return nil, err
	}
	done := &api.Done{Outcome: api.OutcomeDone}
	var errs *multierror.Error
	for _, stack := range stacksOf(now.UsedBy) {
		_, rev := a.w.stack(stack)
		if rev == nil {
			continue // it went meanwhile
		}
		ended, err := a.applyAndFollow(ctx, &api.ApplyRequest{
			Stack: rev.Stack, NoRecreate: true, Roll: kind + "/" + name, Wait: req.Wait, Actor: req.Actor,
		}, report)
		switch {
		case err != nil:
			errs = multierror.Append(errs, notRolled(err, c, stack))
		case ended.Outcome != api.OutcomeDone:
			done = ended
		}
	}
	return done, errs.ErrorOrNil()
}

// notRolled is what keeps a stack from a version that is stored already, with
// the way on: forward where the stack could not be changed now, back where the
// version itself is refused.
func notRolled(err error, c *store.Content, stack string) error {
	p := *problem(err)
	p.Detail = fmt.Sprintf("stack %s still has another version of %s %s than %d: %s", stack, c.Kind, c.Name, c.Current, p.Detail)
	if p.Code == api.CodeInvalid && c.Current > 1 {
		p.Hint = strings.TrimPrefix(p.Hint+"; ", "; ") + fmt.Sprintf("stack %s keeps the version that it has: take version %d back with `berth %s rollback %s`",
			stack, c.Current, command(c.Kind), c.Name)
	} else {
		p.Hint = fmt.Sprintf("the store has version %d: once that is mended, `berth up` gives it to the stack", c.Current)
	}
	return &p
}

// stacksOf are the stacks of STACK/SERVICE names, each once.
func stacksOf(names []string) []string {
	var out []string
	for _, n := range names {
		stack, _, _ := strings.Cut(n, "/")
		if !slices.Contains(out, stack) {
			out = append(out, stack)
		}
	}
	return out
}

// collectVersions forgets the versions of contents that no kept revision has,
// but for the current one, the one to go back to, and after that the newer ones,
// which are wanted again perhaps. It adds the digests of those that stay to used.
func (a *Agent) collectVersions(tx store.Tx, used map[string]bool) error {
	var changed []store.Content
	var kept []store.ContentVersion
	err := store.Each(tx, store.Contents, "", func(_ string, c store.Content) error {
		before := c.Previous()
		var keep []store.ContentVersion
		for _, v := range c.Versions {
			if used[v.Digest] || v.Number >= c.Current || before != nil && v.Number == before.Number {
				keep = append(keep, v)
			}
		}
		kept = append(kept, keep...)
		if len(keep) < len(c.Versions) {
			c.Versions = keep
			changed = append(changed, c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, v := range kept {
		used[v.Digest] = true
	}
	for _, c := range changed {
		if err := store.Put(tx, store.Contents, store.ContentKey(c.Kind, c.Stack, c.Name), c); err != nil {
			return err
		}
	}
	return nil
}

// exported is the whole store for a backup.
func (a *Agent) exported() ([]secrets.Entry, error) {
	a.contents.RLock() // nothing is swept meanwhile
	defer a.contents.RUnlock()
	var out []secrets.Entry
	err := a.db.View(func(tx store.Tx) error {
		return store.Each(tx, store.Contents, "", func(_ string, c store.Content) error {
			content, err := a.secrets.Get(c.Version(c.Current).Digest)
			if err != nil {
				return fmt.Errorf("%s %s: %w", c.Kind, c.Name, a.nameDamaged(err))
			}
			out = append(out, secrets.Entry{Kind: c.Kind, Stack: c.Stack, Name: c.Name, Labels: c.Labels, Content: content})
			return nil
		})
	})
	return out, err
}

// importContents stores what an export has, each as a new version where it
// differs, all or nothing as far as it can be known before.
func (a *Agent) importContents(req *api.ContentImport) ([]api.Content, error) {
	entries, err := secrets.Import(req.Data, req.Identity, req.Passphrase)
	if err != nil {
		return nil, invalid("import: %v", err)
	}
	for _, e := range entries {
		if err := checkContent(e.Kind, e.Stack, e.Name); err != nil {
			return nil, err
		}
		if err := checkSize(e.Kind, len(e.Content)); err != nil {
			return nil, err
		}
	}
	out := []api.Content{}
	for _, e := range entries {
		c, changed, err := a.setContent(e.Kind, &api.ContentSet{
			Stack: e.Stack, Name: e.Name, Content: e.Content, Labels: e.Labels, Actor: req.Actor,
		})
		if err != nil {
			return nil, fmt.Errorf("import %s %s: %w", e.Kind, e.Name, err)
		}
		if changed {
			out = append(out, api.Content{Kind: c.Kind, Stack: c.Stack, Name: c.Name, Current: c.Current})
		}
	}
	return out, nil
}
