package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"berth/api"
	"berth/runtime"
	"berth/spec"
)

var clocks = regexp.MustCompile(`\d\d:\d\d:\d\d`)

// explained is an explanation as text, without the times of day.
func explained(b *bench, service string) string {
	b.t.Helper()
	e, err := b.explain(b.t.Context(), "shop", service)
	if err != nil {
		b.t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s: %s\n", e.Service, e.Summary)
	for i, c := range append(e.Tasks, e.Causes...) {
		mark := "!"
		if c.Well {
			mark = "="
		}
		if i >= len(e.Tasks) {
			mark = ">"
		}
		fmt.Fprintf(&out, "%s %s: %s\n", mark, c.Subject, c.Text)
		for _, d := range c.Details {
			fmt.Fprintf(&out, "    %s\n", d)
		}
		for _, l := range c.Log {
			fmt.Fprintf(&out, "    log %q\n", l)
		}
		if c.Position != nil {
			fmt.Fprintf(&out, "    at line %d\n", c.Position.Line)
		}
		if c.Hint != "" {
			fmt.Fprintf(&out, "    hint %s\n", c.Hint)
		}
	}
	return clocks.ReplaceAllString(out.String(), "TIME")
}

func expectExplained(b *bench, service, want string) {
	b.t.Helper()
	if got := explained(b, service); got != want {
		b.t.Errorf("got:\n%s\nwant:\n%s\ntasks:\n%s", got, want, b.ps())
	}
}

func TestExplain_AllWell_IsALineATask(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", replicas(2)), service("off", "web:1", replicas(0))))
		b.pass(3 * time.Hour)
		expectExplained(b, "web", `web: 2 of 2 tasks ready
= web-1: ready for 3 h
= web-2: ready for 3 h
`)
		expectExplained(b, "off", `off: 0 of 0 tasks ready
> off: no tasks are wanted: it has 0 replicas
    at line 20
    hint berth scale off=1
`)
		b.action("shop", api.ActionRequest{Action: api.ActionStop, Services: []string{"web"}})
		expectExplained(b, "web", `web: stopped
= web-1: stopped
= web-2: stopped
> web: stopped by the user
    hint berth start web
`)
		_, err := b.explain(t.Context(), "shop", "nosuch")
		if p := problem(err); p.Code != api.CodeNotFound || p.Hint != "its services are off, web" {
			t.Errorf("%+v", p)
		}
		if _, err := b.explain(t.Context(), "nosuch", "web"); problem(err).Code != api.CodeNotFound {
			t.Error(err)
		}
	})
}

func TestExplain_NotReady_SaysWhatTheProbeAnswersAndWhatWasLogged(t *testing.T) {
	simulate(t, func(b *bench) {
		b.containers.answer(func(_ context.Context, _ string, e runtime.Exec) (int, error) {
			_, _ = io.WriteString(e.Stdout, "connection refused\ncannot reach \x1b[2Jdb\n")
			return 1, nil
		})
		b.containers.onStart = func(id string, _ *process) {
			for i := range 9 {
				b.containers.write(id, runtime.LogLine{Text: fmt.Sprintf("line %d\xff%s", i, strings.Repeat("ö", i*50))})
			}
		}
		_, _, err := b.tryUp(stackOf("shop",
			service("api", "web:1", checked(time.Minute, 3), dependsOn("db", spec.DependsStarted)), service("db", "db:1")),
			func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(3500 * time.Millisecond)
		e, err := b.explain(t.Context(), "shop", "api")
		if err != nil || len(e.Tasks) != 1 {
			t.Fatalf("%+v, %v", e, err)
		}
		c := e.Tasks[0]
		if got := clocks.ReplaceAllString(c.Text, "TIME"); got != `not ready: its health test exits 1: "connection refused" (4 times since TIME)` {
			t.Errorf("text: %s", got)
		}
		if len(c.Details) != 1 || !strings.HasPrefix(c.Details[0], "cannot reach ") || e.Summary != "0 of 1 tasks ready" {
			t.Errorf("%q, %s", c.Details, e.Summary)
		}
		if len(c.Log) != 5 || !strings.HasPrefix(c.Log[0], "line 4") {
			t.Errorf("log: %q", c.Log)
		}
		for _, line := range c.Log {
			if !utf8.ValidString(line) || len(line) > explainedLine+len("…?") {
				t.Errorf("not fit to be shown: %q", line)
			}
		}
		if len(e.Causes) != 0 {
			t.Errorf("the dependency is well: %+v", e.Causes)
		}
	})
}

func TestExplain_ADependencyThatFails_IsToldThroughAllThatWait(t *testing.T) {
	simulate(t, func(b *bench) {
		kill := true
		b.containers.onStart = func(id string, _ *process) {
			if kill && strings.HasPrefix(b.label(id), "db/") {
				b.containers.write(id, runtime.LogLine{Text: "loading"})
				time.AfterFunc(time.Second, func() { b.containers.end(id, 137, true) })
			}
		}
		_, _, err := b.tryUp(stackOf("shop",
			service("worker", "web:1", dependsOn("api", spec.DependsHealthy)),
			service("api", "web:1", checked(time.Second, 3), dependsOn("db", spec.DependsHealthy)),
			service("db", "db:1", checked(10*time.Second, 3), func(s *spec.Service) { s.Resources.Memory = 64 << 20 })),
			func(r *api.ApplyRequest) {
				r.Wait = false
				failing(b).Store(true)
			})
		if err != nil {
			t.Fatal(err)
		}
		b.pass(1550 * time.Millisecond)
		b.pass(1800 * time.Millisecond)
		expectExplained(b, "worker", `worker: 0 of 1 tasks ready
! worker-1: waits for api (healthy)
> api: 0 of 1 ready: waits for db (healthy)
    worker waits for it to be healthy
    at line 10
> db: 0 of 1 ready: db-1 out of memory: "loading"; restarts in 0.4 s
    api waits for it to be healthy
    at line 20
`)
		got := explained(b, "db")
		for _, want := range []string{"db: 0 of 1 tasks ready\n", "! db-1: out of memory 3 times in 10 min (limit 64 MiB), 3 times in a row; restarts in 0.", "    log \"loading\"\n", "    hint raise its memory limit"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	})
}

func TestExplain_WhatCanNotBeMade_SaysWhatTheAgentMeets(t *testing.T) {
	simulate(t, func(b *bench) {
		b.calls.fail("mount", errors.New("disk I/O error\nsecond line"))
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:1")), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(3 * time.Second) // after the fifth try, before the sixth
		if got := explained(b, "web"); !strings.Contains(got, "! web-1: could not be started: mount image web:1: disk I/O error, 5 times in a row; restarts in ") || !strings.Contains(got, "\n    second line\n") {
			t.Errorf("got:\n%s", got)
		}
	})
}

func TestExplain_OneShots_AndTasksThatStayDown(t *testing.T) {
	simulate(t, func(b *bench) {
		b.containers.onStart = func(id string, _ *process) {
			code := map[string]int{"job/1.1": 0, "bad/1.1": 3}
			if n, ok := code[b.label(id)]; ok {
				time.AfterFunc(2*time.Second, func() { b.containers.exit(id, n) })
			}
		}
		once := func(s *spec.Service) { s.OneShot = true }
		_, _, err := b.tryUp(stackOf("shop", service("job", "job:1", once), service("bad", "job:1", once),
			service("web", "web:1", dependsOn("bad", spec.DependsCompleted))), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(12 * time.Second)
		expectExplained(b, "job", "job: completed\n= job-1: completed 10 s ago, in 2 s\n")
		expectExplained(b, "bad", `bad: 0 of 1 tasks ready
! bad-1: exited 3 after 2 s, at TIME; it stays down
    hint `+"`berth up` tries it again\n")
		got := explained(b, "web")
		if !strings.Contains(got, "> bad: has not completed: bad-1 exited 3 after 2.0 s") {
			t.Errorf("got:\n%s", got)
		}
	})
}

func TestExplain_APortThatSomebodyElseTook(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", published(tcp(8080, 80), tcp(8081, 80)))))
		b.crash(func() { b.host.taken[8080] = "nginx (pid 7)" })
		b.pass(time.Second)
		got := explained(b, "web")
		if !strings.Contains(got, "> 8080/tcp: port 8080/tcp is in use by nginx (pid 7)") || strings.Contains(got, "> 8081") {
			t.Errorf("got:\n%s", got)
		}
		if held := b.host.list(); len(held) != 0 {
			t.Errorf("to explain took ports: %v", held)
		}
	})
}

func TestExplain_ARollback_ShowsWhyAndTheLogOfTheVersionThatFailed(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1"), service("db", "db:1")))
		b.pass(15 * time.Second)
		b.containers.onStart = func(id string, _ *process) {
			b.containers.write(id, runtime.LogLine{Text: "boom: ", Partial: true})
			b.containers.write(id, runtime.LogLine{Text: "bad version"})
			time.AfterFunc(400*time.Millisecond, func() { b.containers.exit(id, 3) })
		}
		_, done, err := b.tryUp(stackOf("shop", service("web", "web:2"), service("db", "db:1")))
		if err != nil || done.Outcome != api.OutcomeRolledBack {
			t.Fatalf("%+v, %v", done, err)
		}
		got := explained(b, "web")
		for _, want := range []string{
			"web: 1 of 1 tasks ready\n= web-1: ready for ", "> rollout: revision 2 was rolled back to 1 at TIME: web-1 ",
			"    log \"boom: bad version\"\n", "    hint berth logs web --revision 2\n",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		if got := explained(b, "db"); strings.Contains(got, "rollout") {
			t.Errorf("the rollout did not touch db:\n%s", got)
		}
	})
}

func TestExplain_APausedRollout_AndACanary(t *testing.T) {
	simulate(t, func(b *bench) {
		first := stackOf("shop", service("web", "web:1", replicas(3)))
		b.up(first)
		b.pass(15 * time.Second)
		second := stackOf("shop", service("web", "web:2", replicas(3)))
		_, _, err := b.tryUp(second, func(r *api.ApplyRequest) { r.Canary = &api.Canary{Service: "web", Percent: 10} })
		if err != nil {
			t.Fatal(err)
		}
		got := explained(b, "web")
		for _, want := range []string{"> rollout: revision 2 gets 10% of the new connections, since TIME\n", "! web-2: waits for the canary to be promoted\n", "= web-2: of revision 1, serves until it is replaced\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		done, err := b.rolloutAction(t.Context(), "shop", &api.RolloutRequest{Action: api.RolloutPause, Actor: "alice"}, func(api.Progress) {})
		if err != nil || done.Outcome != api.OutcomeDone {
			t.Fatalf("%+v, %v", done, err)
		}
		b.pass(time.Second)
		got = explained(b, "web")
		for _, want := range []string{"> rollout: of revision 2, paused: asked for by alice\n", "    hint `berth rollout resume` goes on"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	})
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 400 * time.Millisecond: "0.4 s", 8 * time.Second: "8 s", 95 * time.Second: "95 s",
		3 * time.Minute: "3 min", 3 * time.Hour: "3 h", 96 * time.Hour: "4 days",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %s, want %s", d, got, want)
		}
	}
}
