package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/api"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

// hooked is a service with hooks of both events.
func hooked(s *spec.Service) {
	s.PostStart = []spec.Hook{{Command: []string{"warm", "up"}, User: "app", Environment: map[string]string{"K": "v"}}, {Command: []string{"register"}}}
	s.PreStop = []spec.Hook{{Command: []string{"leave"}, Privileged: true, WorkingDir: "/srv"}}
}

// script answers execs: by the first argument, how long it takes and its code.
type script struct {
	mu    sync.Mutex
	takes map[string]time.Duration
	codes map[string]int
	ran   []string
}

func (s *script) exec(ctx context.Context, _ string, e runtime.Exec) (int, error) {
	s.mu.Lock()
	s.ran = append(s.ran, fmt.Sprintf("%s %s %v %v %s", strings.Join(e.Args, " "), e.User, e.Env, e.Privileged, e.WorkingDir))
	d, code := s.takes[e.Args[0]], s.codes[e.Args[0]]
	s.mu.Unlock()
	if code != 0 {
		fmt.Fprintf(e.Stderr, "trying\nno luck with %s\n", e.Args[0])
	}
	select {
	case <-time.After(d):
		return code, nil
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

func (s *script) verbs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.ran {
		verb, _, _ := strings.Cut(r, " ")
		out = append(out, verb)
	}
	return out
}

func newScript(b *bench) *script {
	s := &script{takes: map[string]time.Duration{}, codes: map[string]int{}}
	b.containers.answer(s.exec)
	return s
}

func TestHooks_RunInOrder_BeforeReadyAndBeforeTheSignal(t *testing.T) {
	simulate(t, func(b *bench) {
		s := newScript(b)
		s.takes["warm"], s.takes["leave"] = 3*time.Second, 2*time.Second
		st := stackOf("shop", service("web", "web:1", hooked), service("api", "web:1", func(s *spec.Service) {
			s.DependsOn = []spec.Dependency{{Service: "web", Condition: spec.DependsStarted, Required: true}}
		}))
		if _, _, err := b.tryUp(st, func(r *api.ApplyRequest) { r.Wait = false }); err != nil {
			t.Fatal(err)
		}
		b.pass(2 * time.Second)
		b.expectTasks("web/1.1 running") // and api waits for it to be started
		b.pass(2 * time.Second)
		b.expectTasks("api/1.1 running published", "web/1.1 running published")
		want := []string{"warm up app [K=v] false ", "register  [] false "}
		if !slices.Equal(s.ran, want) {
			t.Errorf("ran %q, want %q", s.ran, want)
		}
		b.calls.reset()
		begun := time.Now()
		b.action("shop", api.ActionRequest{Action: api.ActionStop, Services: []string{"web"}})
		if d := time.Since(begun); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("stopped after %s", d)
		}
		if got := s.ran[2:]; !slices.Equal(got, []string{"leave  [] true /srv"}) {
			t.Errorf("ran %q before the stop", got)
		}
		b.expectCalls("signal", "signal web/1.1 SIGTERM")
	})
}

func TestHooks_APostStartThatFails_FailsTheStart_AndIsNamed(t *testing.T) {
	simulate(t, func(b *bench) {
		s := newScript(b)
		s.codes["register"] = 7
		_, done, err := b.tryUp(stackOf("shop", service("web", "web:1", hooked)))
		want := `post_start hook 2 of 2 (register) exited 7: "no luck with register"`
		if err != nil || done.Outcome != api.OutcomeFailed || !strings.Contains(done.Detail, want) {
			t.Errorf("%+v, %v", done, err)
		}
		b.expectTasks("web/1.1 exited 137")
		e, err := b.explain(b.t.Context(), "shop", "web")
		if err != nil || !strings.Contains(e.Tasks[0].Text, want) {
			t.Errorf("%+v, %v", e, err)
		}
		past, _, _ := b.events.read(time.Unix(0, 1)).take()
		if !slices.ContainsFunc(past, func(e api.Event) bool { return e.Action == "hook_failed" && e.Message == want }) {
			t.Error("no event names the hook")
		}
	})
}

func TestHooks_AfterARestart_AFailureFollowsThePolicy(t *testing.T) {
	simulate(t, func(b *bench) {
		s := newScript(b)
		b.up(stackOf("shop", service("web", "web:1", hooked)))
		s.mu.Lock()
		s.codes["warm"] = 1
		s.mu.Unlock()
		b.containers.end(b.id("web/1.1"), 1, false)
		b.pass(2 * time.Second)
		s.mu.Lock()
		s.codes["warm"] = 0
		s.mu.Unlock()
		b.pass(time.Minute)
		task := b.w.task(newestOf(b, "web"))
		if task == nil || !task.Published || task.Attempt < 3 {
			t.Errorf("%+v", task)
		}
	})
}

func newestOf(b *bench, service string) (id string) {
	attempt := 0
	for _, t := range b.w.view().tasks {
		if t.Service == service && t.Attempt > attempt {
			id, attempt = t.ID, t.Attempt
		}
	}
	return id
}

func TestHooks_APreStopThatHangs_EndsWithTheGrace_AndOneThatFailsStopsNothing(t *testing.T) {
	simulate(t, func(b *bench) {
		s := newScript(b)
		s.takes["leave"] = time.Hour
		b.up(stackOf("shop", service("web", "web:1", hooked)))
		begun := time.Now()
		b.action("shop", api.ActionRequest{Action: api.ActionStop})
		if d := time.Since(begun); d < defaultGrace || d > defaultGrace+time.Second {
			t.Errorf("stopped after %s", d)
		}
		b.expectCalls("signal", "signal web/1.1 SIGKILL")
		b.pass(2 * time.Hour)
	})
	simulate(t, func(b *bench) {
		s := newScript(b)
		s.codes["leave"] = 3
		b.up(stackOf("shop", service("web", "web:1", hooked)))
		b.action("shop", api.ActionRequest{Action: api.ActionStop})
		b.expectCalls("signal", "signal web/1.1 SIGTERM")
		if f := b.w.task(b.id("web/1.1")).HookFailed; !strings.Contains(f, "pre_stop hook (leave) exited 3") {
			t.Errorf("noted %q", f)
		}
	})
}

func TestHooks_AnAgentThatDiesInTheMiddle_RunsThemAgain(t *testing.T) {
	simulate(t, func(b *bench) {
		s := newScript(b)
		s.takes["register"], s.takes["leave"] = 5*time.Second, 5*time.Second
		if _, _, err := b.tryUp(stackOf("shop", service("web", "web:1", hooked)), func(r *api.ApplyRequest) { r.Wait = false }); err != nil {
			t.Fatal(err)
		}
		b.pass(time.Second)
		b.crash(nil)
		b.pass(6 * time.Second)
		b.expectTasks("web/1.1 running published")
		if got := s.verbs(); !slices.Equal(got, []string{"warm", "register", "warm", "register"}) {
			t.Errorf("ran %q", got)
		}
		if _, err := b.changeStack("shop", "test", func(s *store.Stack) { s.Stopped["web"] = true }); err != nil {
			t.Fatal(err)
		}
		b.loop.wake()
		b.pass(time.Second)
		b.crash(nil)
		b.pass(6 * time.Second)
		b.expectTasks("web/1.1 exited 143")
		if got := s.verbs()[4:]; !slices.Equal(got, []string{"leave", "leave"}) {
			t.Errorf("ran %q", got)
		}
	})
}
