package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"berth/api"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

// runRequest asks for a task of a service of st.
func runRequest(st spec.Stack, service string) *api.RunRequest {
	return &api.RunRequest{Stack: st, Spec: st.Services[service], Name: "once", Start: true}
}

// oneOff makes a one-off task and gives it.
func (b *bench) oneOff(req *api.RunRequest) *store.Task {
	b.t.Helper()
	var id string
	_, err := b.runOneOff(b.t.Context(), req, func(p api.Progress) {
		if p.Task != nil {
			id = p.Task.ID
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return b.w.task(id)
}

func TestOneOff_IsNoReplica_AndIsNotRestarted(t *testing.T) {
	simulate(t, func(b *bench) {
		st := shop()
		b.up(st)
		once := b.oneOff(runRequest(st, "web"))
		b.pass(time.Minute)
		b.expectTasks("db/1.1 running published", "web/0.1 running", "web/1.1 running published")
		if text := ruleText(b, b.networks.current()); strings.Contains(text, "web/0.1") {
			t.Errorf("it takes traffic:\n%s", text)
		}
		b.containers.exit(once.ID, 3)
		b.pass(time.Minute)
		b.expectTasks("db/1.1 running published", "web/0.1 exited 3", "web/1.1 running published")
		done, err := b.awaitEnd(b.t.Context(), once)
		if err != nil || done.ExitCode != 3 {
			t.Errorf("waited: %v, %v", done, err)
		}
		b.up(st)
		b.pass(time.Minute)
		b.expectTasks("db/1.1 running published", "web/0.1 exited 3", "web/1.1 running published")
	})
}

func TestOneOff_WithoutAStack_BringsUpOnlyWhatItDependsOn(t *testing.T) {
	simulate(t, func(b *bench) {
		st := shop()
		b.oneOff(runRequest(st, "web"))
		b.pass(time.Second)
		b.expectTasks("db/1.1 running published", "web/0.1 running")
	})
}

func TestOneOff_NoDeps_StartsNothingElse(t *testing.T) {
	simulate(t, func(b *bench) {
		req := runRequest(shop(), "web")
		req.NoDeps = true
		b.oneOff(req)
		b.pass(time.Minute)
		b.expectTasks("web/0.1 running")
		// What was made for it is nothing that a rollout could go back to.
		st := stackOf("shop", service("web", "web:1"))
		b.up(st)
		if s, _ := b.w.stack("shop"); s.Rollout.From != 0 {
			t.Errorf("a failure would go back to revision %d", s.Rollout.From)
		}
	})
}

func TestOneOff_ADependencyThatFails_IsTheError(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("init", "db:1"), service("web", "web:1", dependsOn("init", spec.DependsCompleted)))
		set(&st, "init", func(s *spec.Service) { s.OneShot = true })
		b.containers.onStart = func(id string, _ *process) { b.containers.exit(id, 7) }
		_, err := b.runOneOff(b.t.Context(), runRequest(st, "web"), func(api.Progress) {})
		if err == nil || !strings.Contains(err.Error(), "init did not complete") {
			t.Errorf("%v", err)
		}
	})
}

func TestOneOff_Remove_LeavesNothing(t *testing.T) {
	simulate(t, func(b *bench) {
		b.img.image("web:1", "web:1", v1.Config{Cmd: []string{"/web"}, Volumes: map[string]struct{}{"/data": {}}})
		st := stackOf("shop", service("web", "web:1"))
		b.up(st)
		req := runRequest(st, "web")
		req.Remove = true
		req.Spec.Ports = []spec.Port{tcp(8080, 80)}
		once := b.oneOff(req)
		if len(once.Anonymous) != 1 || once.Anonymous["/data"] == b.w.task(b.id("web/1.1")).Anonymous["/data"] {
			t.Errorf("its anonymous volumes are %v", once.Anonymous)
		}
		if got := b.host.list(); !slices.Equal(got, []string{"8080/tcp"}) {
			t.Errorf("held %v", got)
		}
		if rules := b.networks.current(); len(rules.Ports) != 1 || rules.Ports[0].Backends[0].TaskID != once.ID {
			t.Errorf("ports %v", rules.Ports)
		}
		release := b.oneOffs.hold(once.ID)
		b.containers.exit(once.ID, 0)
		b.pass(time.Second)
		if b.w.task(once.ID) == nil {
			t.Fatal("it went while somebody looked at it")
		}
		release()
		b.pass(time.Second)
		if b.w.task(once.ID) != nil || len(b.host.list()) > 0 || b.volumeExists(once.Anonymous["/data"]) {
			t.Errorf("left: record %v, ports %v", b.w.task(once.ID), b.host.list())
		}
		b.expectTasks("web/1.1 running published")
	})
}

func TestOneOff_ThatNobodyStarts_IsTakenBack(t *testing.T) {
	simulate(t, func(b *bench) {
		req := runRequest(shop(), "db")
		req.Start = false
		made := b.oneOff(req)
		b.pass(api.StartPatience - time.Second)
		b.expectTasks("db/0.1 pending")
		b.pass(2 * time.Second)
		b.expectTasks()
		if _, err := b.startOneOff(b.t.Context(), made); err == nil {
			t.Error("it could be started after that")
		}
	})
}

func TestOneOff_OfAnAgentThatDied_IsAdoptedIfItRan_AndElseLost(t *testing.T) {
	simulate(t, func(b *bench) {
		st := shop()
		b.up(st)
		ran := b.oneOff(runRequest(st, "db"))
		req := runRequest(st, "db")
		req.Name, req.Start = "half", false
		half := b.oneOff(req)
		req.Name, req.Remove = "gone", true
		gone := b.oneOff(req)
		b.crash(func() {})
		b.pass(time.Second)
		if got := b.w.task(ran.ID); got.State != store.StateRunning {
			t.Errorf("the one that ran is %s", got.State)
		}
		if got := b.w.task(half.ID); got == nil || got.State != store.StateExited || !got.Lost {
			t.Errorf("the one half made is %+v", got)
		}
		if got := b.w.task(gone.ID); got != nil {
			t.Errorf("the one that was not to be kept is %s", got.State)
		}
	})
}

func TestOneOff_AProgramThatIsNotThere_IsAnErrorWithAShellsCode(t *testing.T) {
	simulate(t, func(b *bench) {
		b.calls.fail("start", &runtime.StartError{Reason: runtime.ReasonNotFound, Command: "nope"})
		_, err := b.runOneOff(b.t.Context(), runRequest(stackOf("shop", service("web", "web:1")), "web"), func(api.Progress) {})
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.CodeStart || e.ExitCode != 127 {
			t.Errorf("%+v", err)
		}
	})
}

func TestOneOff_WhatCanNotBe_IsRefused_AndLeavesNothing(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("web", "web:1", published(tcp(8080, 80))))
		b.up(st)
		b.oneOff(func() *api.RunRequest { r := runRequest(st, "web"); r.Spec.Ports = nil; return r }())
		for what, change := range map[string]func(*api.RunRequest){
			"is taken by another task": func(r *api.RunRequest) { r.Spec.Ports = nil },
			"task name":                func(r *api.RunRequest) { r.Name = "../x" },
			"published by stack shop":  func(r *api.RunRequest) { r.Name = "two" },
			"no task of nobody runs":   func(r *api.RunRequest) { r.Name, r.Spec.Ports, r.Spec.NetworkMode = "three", nil, "service:nobody" },
			"neither the service nor": func(r *api.RunRequest) {
				r.Name, r.Spec.Ports, r.Spec.Entrypoint, r.Spec.Command = "four", nil, &[]string{}, nil
			},
			"the name of its service": func(r *api.RunRequest) { r.Spec.Name = "" },
			"bind source /nope/at/all do": func(r *api.RunRequest) {
				r.Name, r.Spec.Ports, r.Spec.Mounts = "five", nil, []spec.Mount{{Type: spec.MountBind, Source: "/nope/at/all", Target: "/x"}}
			},
		} {
			req := runRequest(st, "web")
			change(req)
			_, err := b.runOneOff(b.t.Context(), req, func(api.Progress) {})
			if err == nil || !strings.Contains(problem(err).Detail, what) {
				t.Errorf("%v does not say %q", err, what)
			}
		}
		b.expectTasks("web/0.1 running", "web/1.1 running published")
	})
}

func TestOneOff_DownEndsIt(t *testing.T) {
	simulate(t, func(b *bench) {
		st := shop()
		b.up(st)
		b.oneOff(runRequest(st, "web"))
		if _, err := b.down(b.t.Context(), "shop", &api.DownRequest{}, func(api.Progress) {}); err != nil {
			t.Fatal(err)
		}
		b.expectTasks()
	})
}

func TestOneOff_Aliases_TakesAPartOfTheTraffic(t *testing.T) {
	simulate(t, func(b *bench) {
		st := shop()
		b.up(st)
		req := runRequest(st, "web")
		req.Aliases = true
		once := b.oneOff(req)
		if text := ruleText(b, b.networks.current()); !strings.Contains(text, "web/0.1") {
			t.Errorf("it takes none:\n%s", text)
		}
		b.containers.exit(once.ID, 0)
		b.pass(time.Second)
		if text := ruleText(b, b.networks.current()); strings.Contains(text, "web/0.1") {
			t.Errorf("it takes traffic though it has ended:\n%s", text)
		}
	})
}
