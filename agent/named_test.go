package agent

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/api"
	"berth/secrets"
	"berth/spec"
	"berth/store"
)

// external is a stack with a service that has a secret of the store.
func external(edit int, secret ...string) spec.Stack {
	st := stackOf("shop", service("web", "web:1", env("EDIT", fmt.Sprint(edit)), func(s *spec.Service) {
		for i, name := range secret {
			s.Secrets = append(s.Secrets, spec.FileMount{Source: name, Target: fmt.Sprintf("/run/secrets/%d", i), Mode: 0o444})
		}
	}))
	st.Secrets = map[string]spec.File{}
	for _, name := range secret {
		st.Secrets[name] = spec.File{Key: name, Name: name, External: true}
	}
	return st
}

func (b *bench) set(stack, name, value string) *store.Content {
	b.t.Helper()
	c, _, err := b.setContent(api.KindSecret, &api.ContentSet{Stack: stack, Name: name, Content: []byte(value)})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) roll(stack, name string, req api.ContentRoll) (*api.Done, error) {
	req.Stack, req.Wait = stack, true
	return b.rollContent(b.t.Context(), api.KindSecret, name, &req, func(api.Progress) {})
}

func (b *bench) mustRoll(stack, name string, req api.ContentRoll) {
	b.t.Helper()
	if done, err := b.roll(stack, name, req); err != nil || done.Outcome != api.OutcomeDone {
		b.t.Fatalf("roll: %+v, %v", done, err)
	}
}

// sees wants web's running task to have these contents.
func (b *bench) sees(want string) {
	b.t.Helper()
	for _, t := range b.w.view().tasks {
		if t.Live() && t.Service == "web" {
			if got := b.secrets.seen(t.ID); got != want {
				b.t.Errorf("%s sees %q, want %q", t.Name(), got, want)
			}
		}
	}
}

func TestSecret_RollbackAfterARollback_LeavesOutTheOneThatWasBad(t *testing.T) {
	simulate(t, func(b *bench) {
		for _, value := range []string{"first", "bad"} {
			b.set("shop", "word", value)
		}
		b.up(external(1, "word"))
		b.mustRoll("shop", "word", api.ContentRoll{Back: true})
		b.sees("first")
		b.mustRoll("shop", "word", api.ContentRoll{Content: []byte("third")})
		b.sees("third")
		b.mustRoll("shop", "word", api.ContentRoll{Back: true})
		b.sees("first")
		_, err := b.roll("shop", "word", api.ContentRoll{Back: true})
		if p := problem(err); p.Code != api.CodeConflict || p.Detail != "secret word has no version before 1" {
			t.Errorf("error %+v", p)
		}
	})
}

func TestSecret_RotatedWhileTheStackRollsOut_BothComeThrough(t *testing.T) {
	simulate(t, func(b *bench) {
		b.set("shop", "word", "first")
		b.up(external(1, "word"))
		release := b.calls.hold("start")
		var up sync.WaitGroup
		up.Go(func() {
			if _, _, err := b.tryUp(external(2, "word")); err != nil {
				t.Errorf("up: %v", err)
			}
		})
		b.pass(time.Second) // its new task is being started
		up.Go(func() { b.mustRoll("shop", "word", api.ContentRoll{Content: []byte("second")}) })
		b.pass(time.Second)
		release()
		up.Wait()
		b.sees("second")
		if _, rev := b.w.stack("shop"); rev.Stack.Services["web"].Environment["EDIT"] != "2" || rev.Number != 3 {
			t.Errorf("revision %d has %v", rev.Number, rev.Stack.Services["web"].Environment)
		}
	})
}

// TestSecret_AStackThatIsBeingChanged keeps its version; others get the new one.
func TestSecret_RotatedWhileOneStackIsBeingChanged_SaysSo_AndRollsTheOthers(t *testing.T) {
	simulate(t, func(b *bench) {
		b.set("", "word", "first")
		b.up(external(1, "word"))
		other := external(1, "word")
		other.Name = "blog"
		for key, n := range other.Networks {
			n.Name = "blog_default"
			other.Networks[key] = n
		}
		b.up(other)
		release, err := b.applies.take("blog", "bob@tty")
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.roll("", "word", api.ContentRoll{Content: []byte("second")})
		if p := problem(err); p.Code != api.CodeConflict || !strings.Contains(p.Hint, "`berth up`") ||
			!strings.HasPrefix(p.Detail, "stack blog still has another version of secret word than 2: stack blog is being changed by bob@tty since ") {
			t.Errorf("error %+v", p)
		}
		release()
		b.pass(time.Minute)
		for stack, want := range map[string]string{"blog": "first", "shop": "second"} {
			for _, task := range b.w.view().tasks {
				if task.Stack == stack && task.Live() && b.secrets.seen(task.ID) != want {
					t.Errorf("%s sees %q, want %q", task.Name(), b.secrets.seen(task.ID), want)
				}
			}
		}
		b.up(other)
		b.sees("second")
	})
}

func TestSecret_SetAndRotatedByManyAtOnce_NoVersionIsLost(t *testing.T) {
	simulate(t, func(b *bench) {
		b.set("shop", "word", "first")
		b.up(external(1, "word"))
		var people sync.WaitGroup
		for i := range 8 {
			people.Go(func() {
				value := fmt.Sprintf("value %d", i)
				if i%2 == 0 {
					b.set("shop", "word", value)
					return
				}
				_, err := b.roll("shop", "word", api.ContentRoll{Content: []byte(value)})
				if err != nil && !api.HasCode(problem(err), api.CodeConflict) {
					t.Error(err)
				}
			})
		}
		people.Wait()
		c, err := b.named(api.KindSecret, "shop", "word")
		if err != nil || c.Current != 9 {
			t.Fatalf("%+v, %v", c, err)
		}
		b.up(external(1, "word"))
		content, err := b.secrets.Get(c.Version(c.Current).Digest)
		if err != nil {
			t.Fatal(err)
		}
		b.sees(string(content))
	})
}

func TestSecret_InUse_IsNotRemoved_AlsoByAJob(t *testing.T) {
	simulate(t, func(b *bench) {
		b.set("shop", "word", "first")
		b.set("shop", "jobs", "first")
		st := external(1, "word")
		job := service("tick", "job:1")
		job.Secrets = []spec.FileMount{{Source: "jobs", Target: "/jobs", Mode: 0o444}}
		st.Jobs = map[string]spec.Job{"tick": {Name: "tick", Service: job}}
		st.Secrets["jobs"] = spec.File{Key: "jobs", Name: "jobs", External: true}
		b.up(st)
		for name, by := range map[string]string{"word": "shop/web", "jobs": "shop/tick"} {
			p := problem(b.removeContent(api.KindSecret, "shop", name))
			if p.Code != api.CodeInUse || p.Detail != "secret "+name+" is used by "+by {
				t.Errorf("%+v", p)
			}
		}
		b.mustRoll("shop", "jobs", api.ContentRoll{Content: []byte("second")})
		_, rev := b.w.stack("shop")
		if got, err := b.secrets.Get(rev.Stack.Secrets["jobs"].Digest); err != nil || string(got) != "second" {
			t.Errorf("the next run has %q, %v", got, err)
		}
	})
}

// TestSecret_ClockGoesBack: the order of versions is not that of the clock.
func TestSecret_ClockGoesBack_VersionsStayInTheirOrder(t *testing.T) {
	simulate(t, func(b *bench) {
		b.set("shop", "word", "first")
		b.pass(time.Hour)
		b.set("shop", "word", "second")
		err := b.db.Update(func(tx store.Tx) error { // as if it had been set before the clock was put right
			key := store.ContentKey(api.KindSecret, "shop", "word")
			c, err := store.Get[store.Content](tx, store.Contents, key)
			if err != nil {
				return err
			}
			for i := range c.Versions {
				c.Versions[i].Created = time.Now().Add(24 * time.Hour)
			}
			return store.Put(tx, store.Contents, key, c)
		})
		if err != nil {
			t.Fatal(err)
		}
		if c := b.set("shop", "word", "third"); c.Current != 3 {
			t.Errorf("%+v", c)
		}
		b.up(external(1, "word"))
		b.sees("third")
		b.mustRoll("shop", "word", api.ContentRoll{Back: true})
		b.sees("second")
	})
}

// damagedSecrets has contents that can't be read.
type damagedSecrets struct {
	*fakeSecrets
	digest string
}

func (d *damagedSecrets) Get(digest string) ([]byte, error) {
	if digest == d.digest {
		return nil, fmt.Errorf("deliver: %w", &secrets.DamagedError{Digest: digest})
	}
	return d.fakeSecrets.Get(digest)
}

func (d *damagedSecrets) Rekey() error {
	_, err := d.Get(d.digest)
	return err
}

func TestSecret_Damaged_IsNamed_AndNothingIsTouched(t *testing.T) {
	simulate(t, func(b *bench) {
		b.set("shop", "word", "first")
		b.up(external(1, "word"))
		c := b.set("shop", "word", "second")
		digest := c.Version(2).Digest
		b.Agent.secrets = &damagedSecrets{b.secrets, digest}
		before := b.ps()
		p := b.mustFail(api.CodeInternal, external(2, "word"))
		want := "secret word, version 2, can't be read: " + b.cfg.Root + "/secrets/content/" + digest + ".age is damaged, or of another machine"
		if p.Detail != want || p.Hint != "put that file back from a backup, or store its value again: berth secret set -p shop word" {
			t.Errorf("%s\n%s", p.Detail, p.Hint)
		}
		if b.ps() != before {
			t.Errorf("there were\n%sand are\n%s", before, b.ps())
		}
		b.sees("first")
		for what, f := range map[string]func() error{
			"export": func() error { _, err := b.exported(); return err },
			"rekey":  func() error { return b.nameDamaged(b.Agent.secrets.Rekey()) },
		} {
			if p := problem(f()); p.Detail != want {
				t.Errorf("%s: %s", what, p.Detail)
			}
		}
		b.mustRoll("shop", "word", api.ContentRoll{Back: true}) // helps, too
		b.sees("first")
	})
}

func TestSecret_DiskFull_TheOldValueIsServed(t *testing.T) {
	simulate(t, func(b *bench) {
		b.set("shop", "word", "first")
		b.up(external(1, "word"))
		before := b.ps()
		for _, what := range []string{"put", "write"} {
			b.calls.fail(what, errDisk)
			_, err := b.roll("shop", "word", api.ContentRoll{Content: []byte("second")})
			if !errors.Is(err, errDisk) {
				t.Errorf("%s: %v", what, err)
			}
			b.calls.heal(what)
			b.pass(time.Second)
			b.sees("first")
			if now := b.ps(); now != before {
				t.Errorf("%s: there were\n%sand are\n%s", what, before, now)
			}
		}
		if c, err := b.named(api.KindSecret, "shop", "word"); err != nil || c.Current != 1 {
			t.Errorf("%+v, %v", c, err)
		}
		b.mustRoll("shop", "word", api.ContentRoll{Content: []byte("second")})
		b.sees("second")
	})
}

// secretsModel says what of the store is needed, in the simplest way.
type secretsModel struct {
	b         *bench
	current   map[string]int               // version, by name
	versions  map[string][]modelVersion    // those that are not forgotten, by name
	revisions map[uint64]map[string]string // the values that a revision has, by name
	at        uint64                       // the wanted revision
}

type modelVersion struct {
	number, before int
	value          string
}

func (m *secretsModel) version(name string, number int) *modelVersion {
	i := slices.IndexFunc(m.versions[name], func(v modelVersion) bool { return v.number == number })
	if i < 0 {
		return nil
	}
	return &m.versions[name][i]
}

func (m *secretsModel) set(name, value string) {
	cur := m.version(name, m.current[name])
	if cur != nil && cur.value == value {
		return
	}
	next := 1
	if list := m.versions[name]; len(list) > 0 {
		next = list[len(list)-1].number + 1
	}
	m.versions[name] = append(m.versions[name], modelVersion{next, m.current[name], value})
	m.current[name] = next
}

// note remembers what the wanted revision has, if it is new: the current
// versions, but where one is rolled the others as they were.
func (m *secretsModel) note(rolled string) {
	_, rev := m.b.w.stack("shop")
	if rev == nil {
		return
	}
	was := m.revisions[m.at]
	m.at = rev.Number
	if m.revisions[rev.Number] != nil {
		return
	}
	m.revisions[rev.Number] = map[string]string{}
	for name := range rev.Stack.Secrets {
		m.revisions[rev.Number][name] = m.version(name, m.current[name]).value
		if rolled != "" && rolled != name {
			m.revisions[rev.Number][name] = was[name]
		}
	}
}

// collected are the values that are needed; the model forgets the others.
func (m *secretsModel) collected() []string {
	needed := map[string]bool{}
	list, err := m.b.history("shop")
	if err != nil && !api.HasCode(problem(err), api.CodeNotFound) {
		m.b.t.Fatal(err)
	}
	for _, r := range list {
		for _, value := range m.revisions[r.Number] {
			needed[value] = true
		}
	}
	byRevision := maps.Clone(needed)
	for name, list := range m.versions {
		cur := m.version(name, m.current[name])
		m.versions[name] = slices.DeleteFunc(slices.Clone(list), func(v modelVersion) bool {
			keep := byRevision[v.value] || v.number == cur.number || v.number == cur.before || v.number > cur.number
			if keep {
				needed[v.value] = true
			}
			return !keep
		})
	}
	return slices.Sorted(maps.Keys(needed))
}

// step does something that people do, and says what was rolled by it.
func (m *secretsModel) step(rng *rand.Rand) (did, rolled string) {
	b, name := m.b, []string{"word", "key"}[rng.IntN(2)]
	value := name + fmt.Sprint(rng.IntN(12)) // also values that were there before
	_, rev := b.w.stack("shop")
	switch what := rng.IntN(20); {
	case what < 5:
		b.set("shop", name, value)
		m.set(name, value)
		return "set " + value, ""
	case what < 9 && m.current[name] > 0:
		b.mustRoll("shop", name, api.ContentRoll{Content: []byte(value)})
		m.set(name, value)
		return "rotate " + value, name
	case what < 11 && m.current[name] > 0:
		before := m.version(name, m.version(name, m.current[name]).before)
		_, err := b.roll("shop", name, api.ContentRoll{Back: true})
		if (err == nil) != (before != nil) {
			b.t.Fatalf("rollback of %s: %v, want %v", name, err, before)
		}
		if before != nil {
			m.current[name] = before.number
		}
		return "rollback " + name, name
	case what < 16:
		var uses []string
		for _, name := range []string{"key", "word"} {
			if m.current[name] > 0 && rng.IntN(5) > 0 {
				uses = append(uses, name)
			}
		}
		b.up(external(rng.IntN(1000), uses...))
		return "up with " + strings.Join(uses, " and "), ""
	case what == 16 && rev != nil:
		_, err := b.rollback(b.t.Context(), "shop", &api.RollbackRequest{Wait: true}, func(api.Progress) {})
		if err != nil && !api.HasCode(problem(err), api.CodeConflict) && !api.HasCode(problem(err), api.CodeNotFound) {
			b.t.Fatal(err)
		}
		return "rollback of the stack", ""
	case what == 17 && rev != nil:
		b.takeDown("shop", api.DownRequest{})
		clear(m.revisions)
		return "down", ""
	case what == 18 && m.current[name] > 0:
		if err := b.removeContent(api.KindSecret, "shop", name); err == nil {
			delete(m.current, name)
			delete(m.versions, name)
		} else if !api.HasCode(problem(err), api.CodeInUse) {
			b.t.Fatal(err)
		}
		return "rm " + name, ""
	default:
		b.crash(nil)
		return "crash", ""
	}
}

// there are the values that the store has.
func (b *bench) there() []string {
	b.secrets.mu.Lock()
	defer b.secrets.mu.Unlock()
	var out []string
	for _, content := range b.secrets.contents {
		out = append(out, string(content))
	}
	slices.Sort(out)
	return out
}

// TestSecret_VersionsAreKept_ExactlyAsLongAsTheyAreNeeded: by a revision that
// can be gone back to, or as the current or the former one.
func TestSecret_VersionsAreKept_ExactlyAsLongAsTheyAreNeeded(t *testing.T) {
	const seeds, steps = 20, 40
	collected := 0
	for seed := range uint64(seeds) {
		simulate(t, func(b *bench) {
			rng := rand.New(rand.NewPCG(seed, 5))
			m := &secretsModel{b, map[string]int{}, map[string][]modelVersion{}, map[uint64]map[string]string{}, 0}
			var done []string
			before := 0
			for range steps {
				did, rolled := m.step(rng)
				done = append(done, did)
				m.note(rolled)
				b.pass(time.Minute)
				if err := b.sweepSecrets(); err != nil {
					t.Fatal(err)
				}
				needed, there := m.collected(), b.there()
				if !slices.Equal(needed, there) {
					t.Fatalf("seed %d: after\n  %s\nthere are %v, and needed %v", seed, strings.Join(done, "\n  "), there, needed)
				}
				if len(there) < before {
					collected++
				}
				before = len(there)
			}
		})
	}
	if collected < seeds {
		t.Errorf("contents were collected %d times only", collected)
	}
}
