package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

func TestRecover_RunningTasks_AreLeftAlone_AndStayInTheTraffic(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", replicas(2), published(tcp(8080, 80)))))
		before := ruleText(b, b.networks.current())
		var first string
		b.crash(func() { b.networks.last = "" })
		if got := b.calls.of("sync"); len(got) > 0 {
			first = got[0]
		}
		if first != "sync web=web/1.1,web/2.1" {
			t.Errorf("the first rules are %q", first)
		}
		b.pass(time.Minute)
		if after := ruleText(b, b.networks.current()); after != before {
			t.Errorf("rules before\n%s\nafter\n%s", before, after)
		}
		b.expectCalls("create start signal delete attach mount detach unmount update")
		b.expectTasks("web/1.1 running published", "web/2.1 running published")
		if got := b.host.list(); !slices.Equal(got, []string{"8080/tcp"}) {
			t.Errorf("held %v", got)
		}
	})
}

func TestRecover_ATaskThatExitedMeanwhile_IsRestarted(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1"), service("db", "db:1")))
		b.crash(func() { b.containers.exit(b.id("web/1.1"), 1) })
		b.pass(5 * time.Second)
		b.expectTasks("db/1.1 running published", "web/1.2 running published")
	})
}

func TestRecover_AnExitThatNobodyDelivers_IsFoundByComparing(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.crash(func() {
			b.containers.exit(b.id("web/1.1"), 1)
			<-b.containers.exits
		})
		b.pass(realityEvery + 5*time.Second)
		b.expectTasks("web/1.2 running published")
	})
}

func TestRecover_AHalfMadeTask_IsTakenBackAndMadeAnew(t *testing.T) {
	simulate(t, func(b *bench) {
		b.calls.hold("create")
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:1")), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(time.Second)
		b.expectTasks("web/1.1 pending")
		b.crash(func() { clear(b.calls.gates) })
		if got := b.calls.of("delete", "detach", "unmount"); !slices.Contains(got, "delete web/1.1") || !slices.Contains(got, "detach web/1.1") {
			t.Errorf("calls %v", got)
		}
		b.pass(time.Second)
		b.expectTasks("web/1.2 running published")
		if task := b.w.task(b.id("web/1.2")); task.Failures != 0 {
			t.Errorf("failures %d: it was the agent's fault", task.Failures)
		}
	})
}

// forgetStart makes the record of a task what it was before its start.
func (b *bench) forgetStart(id string) {
	b.t.Helper()
	err := b.w.commit(func(c *change) error {
		next := *c.w.tasks[id]
		next.State, next.Published, next.Rotation, next.Started = "pending", false, false, time.Time{}
		c.putTask(next)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestRecover_ATaskWhoseStartWasNotNoted_IsAdopted(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		id := b.id("web/1.1")
		b.crash(func() {
			b.forgetStart(id)
		})
		b.pass(time.Second)
		b.expectTasks("web/1.1 running published")
		b.expectCalls("create start delete")
	})
}

// Whether its program runs is not known: were the task taken back, a one-shot
// could run twice.
func TestRecover_ATaskWhoseStartWasCutOff_IsStartedOnce(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		id := b.id("web/1.1")
		b.crash(func() {
			status := &b.containers.all[id].status
			status.State, status.Pid = runtime.StateCreated, 0
			b.forgetStart(id)
		})
		b.pass(time.Second)
		b.expectTasks("web/1.1 running published")
		b.expectCalls("create delete")
		if got := b.calls.of("start"); !slices.Equal(got, []string{"start web/1.1"}) {
			t.Errorf("starts: %v", got)
		}
	})
}

func TestRecover_AContainerThatNobodyClaims_IsRemoved(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.crash(func() {
			c := runtime.Container{ID: "feedbeef"}
			if err := b.containers.Create(b.t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if _, err := b.networks.Attach(b.t.Context(), "feedbeef", nil); err != nil {
				t.Fatal(err)
			}
		})
		b.expectCalls("delete", "delete feedbeef")
		if len(b.containers.all) != 1 || len(b.networks.netns) != 1 {
			t.Errorf("%d containers, %d namespaces", len(b.containers.all), len(b.networks.netns))
		}
	})
}

func TestRecover_AfterAReboot_EverythingComesBackInDependencyOrder(t *testing.T) {
	simulate(t, func(b *bench) {
		b.containers.onStart = func(id string, p *process) {
			if p.c.Args[0] == "/job:1" {
				b.containers.exit(id, 0)
			}
		}
		b.up(stackOf("shop",
			service("db", "db:1", checked(time.Second, 3)),
			service("job", "job:1", dependsOn("db", spec.DependsHealthy), func(s *spec.Service) { s.OneShot = true }),
			service("web", "web:1", dependsOn("db", spec.DependsHealthy), dependsOn("job", spec.DependsCompleted))))
		b.crash(func() {
			clear(b.containers.all)
			clear(b.networks.netns)
			clear(b.networks.bridges)
		})
		b.pass(5 * time.Second)
		b.expectCalls("ensure start", "ensure 10.210.0.0/24", "start db/1.2", "start web/1.2")
		b.expectTasks("db/1.2 running published", "job/1.1 exited 0", "web/1.2 running published")
	})
}

func TestRecover_WhatTheUserStopped_StaysStopped(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1"), service("db", "db:1")))
		b.action("shop", api.ActionRequest{Action: api.ActionStop, Services: []string{"web"}})
		b.crash(func() { clear(b.containers.all) })
		b.pass(5 * time.Second)
		b.expectTasks("db/1.2 running published", "web/1.1 exited 143")
	})
}

func TestRecover_ARemovalThatWasCutOff_GoesOn(t *testing.T) {
	simulate(t, func(b *bench) {
		b.containers.onStart = func(_ string, p *process) { p.onSignal = func(runtime.Signal) {} }
		b.up(stackOf("shop", service("web", "web:1")))
		if _, err := b.changeStack("shop", "test", func(s *store.Stack) { s.Removing = &store.Removal{} }); err != nil {
			t.Fatal(err)
		}
		b.loop.wake()
		b.pass(time.Second)
		b.crash(nil)
		b.pass(30 * time.Second)
		if s, _ := b.w.stack("shop"); s != nil {
			t.Errorf("the stack is still there:\n%s", b.ps())
		}
	})
}

func TestRecover_OneNetworkThatCanNotBeMade_KeepsNobodyElseDown(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("one", service("web", "web:1")))
		b.up(stackOf("two", service("db", "db:1")))
		b.calls.fail("ensure 10.210.0.0/24", errDisk)
		b.crash(nil)
		if got := ruleText(b, b.networks.current()); !strings.Contains(got, "two/db") {
			t.Errorf("rules:\n%s", got)
		}
		b.calls.heal("ensure 10.210.0.0/24")
		b.pass(time.Minute)
		if got := ruleText(b, b.networks.current()); !strings.Contains(got, "one/web") {
			t.Errorf("rules:\n%s", got)
		}
	})
}
