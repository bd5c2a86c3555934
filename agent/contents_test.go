package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/api"
	"berth/runtime"
	"berth/secrets"
	"berth/spec"
)

// Rewrite changes what was delivered, all or nothing.
func (f *fakeSecrets) Rewrite(id string, files []secrets.File) error {
	if err := f.task(context.Background(), "rewrite", id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delivered := slices.Clone(f.delivered[id])
	for _, file := range files {
		i := slices.IndexFunc(delivered, func(d secrets.File) bool { return d.Name == file.Name })
		if _, ok := f.contents[file.Digest]; !ok && file.Content == nil || i < 0 {
			return fmt.Errorf("no content %s for file %s", file.Digest, file.Name)
		}
		delivered[i] = file
	}
	f.delivered[id] = delivered
	return nil
}

// seen is what a task finds in its files.
func (f *fakeSecrets) seen(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, file := range f.delivered[id] {
		content := file.Content
		if content == nil {
			content = f.contents[file.Digest]
		}
		out = append(out, string(content))
	}
	return strings.Join(out, " ")
}

// configured is a stack whose service has three configs: one whose change
// signals, one whose change is ignored, one that replaces.
func configured(hup, ignored, plain string) spec.Stack {
	st := stackOf("shop", service("web", "web:1", func(s *spec.Service) {
		s.Configs = []spec.FileMount{
			{Source: "hup", Target: "/hup", Mode: 0o444, OnChange: "signal:SIGHUP"},
			{Source: "hup", Target: "/again", Mode: 0o444, OnChange: "signal:SIGHUP"},
			{Source: "ignored", Target: "/ignored", Mode: 0o444, OnChange: spec.OnChangeIgnore},
			{Source: "plain", Target: "/plain", Mode: 0o444},
		}
	}))
	st.Configs = map[string]spec.File{}
	for name, content := range map[string]string{"hup": hup, "ignored": ignored, "plain": plain} {
		st.Configs[name] = spec.File{Key: name, Name: name, Content: []byte(content)}
	}
	return st
}

// handlesHUP makes programs go on after SIGHUP.
func handlesHUP(b *bench) {
	b.containers.onStart = func(id string, p *process) {
		p.onSignal = func(s runtime.Signal) {
			if s != unix.SIGHUP {
				b.containers.exit(id, 128+int(s))
			}
		}
	}
}

func TestContents_OnChange_SignalIgnoreReplace(t *testing.T) {
	simulate(t, func(b *bench) {
		handlesHUP(b)
		b.up(configured("h1", "i1", "p1"))
		id := b.id("web/1.1")
		b.calls.reset()

		b.up(configured("h2", "i1", "p1"))
		b.expectCalls("rewrite signal create", "rewrite web/1.1", "signal web/1.1 SIGHUP")
		if got := b.secrets.seen(id); got != "h2 h2 i1 p1" {
			t.Errorf("the task sees %s", got)
		}
		b.calls.reset()
		b.up(configured("h2", "i2", "p1"))
		b.pass(time.Minute)
		b.expectCalls("rewrite signal create")
		if got := b.secrets.seen(id); got != "h2 h2 i1 p1" {
			t.Errorf("after a change that is ignored the task sees %s", got)
		}
		b.up(configured("h3", "i2", "p2"))
		b.pass(time.Minute)
		b.expectTasks("web/1.2 running published")
		if got := b.secrets.seen(b.id("web/1.2")); got != "h3 h3 i2 p2" {
			t.Errorf("the new task sees %s", got)
		}
		b.calls.reset()
		b.up(configured("h2", "i2", "p2")) // back again
		b.expectCalls("rewrite signal create", "rewrite web/1.2", "signal web/1.2 SIGHUP")
	})
}

// TestContents_ACrashBetweenWriteAndSignal: the agent can't know whether the
// signal was sent, so it does both again.
func TestContents_ACrashBetweenWriteAndSignal_IsDoneAgain(t *testing.T) {
	simulate(t, func(b *bench) {
		handlesHUP(b)
		b.up(configured("h1", "i1", "p1"))
		b.calls.fail("signal", errors.New("the agent is dying"))
		if _, _, err := b.tryUp(configured("h2", "i1", "p1"), func(r *api.ApplyRequest) { r.Wait = false }); err != nil {
			t.Fatal(err)
		}
		b.pass(100 * time.Millisecond)
		b.crash(func() { b.calls.heal("signal") })
		b.pass(time.Second)
		b.expectCalls("rewrite signal create", "rewrite web/1.1", "signal web/1.1 SIGHUP")
		if got := b.secrets.seen(b.id("web/1.1")); got != "h2 h2 i1 p1" {
			t.Errorf("the task sees %s", got)
		}
		b.calls.reset()
		b.pass(time.Hour)
		b.expectCalls("rewrite signal create")
	})
}
