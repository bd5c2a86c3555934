package agent

import (
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/overlaynet"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

func TestExit_Failed_RestartsWithBackOffAndCounts(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		var gaps []time.Duration
		last := time.Now()
		for i := 1; i <= 4; i++ {
			b.containers.exit(b.id(label("web", 1, i)), 3)
			died := time.Now()
			b.pass(0)
			for b.w.task(taskID(b.w.stacks["shop"].UID, "web", 1, i+1)) == nil {
				b.pass(10 * time.Millisecond)
			}
			gaps, last = append(gaps, time.Since(died)), time.Now()
			b.pass(50 * time.Millisecond)
		}
		_ = last
		for i, want := range []time.Duration{100, 200, 400, 800} {
			if got := gaps[i]; got < want*time.Millisecond || got > want*time.Millisecond+50*time.Millisecond {
				t.Errorf("restart %d after %s, want %d ms", i+1, got, want)
			}
		}
		task := b.w.task(b.id("web/1.5"))
		if task.Restarts != 4 || task.Failures != 4 {
			t.Errorf("restarts %d, failures %d", task.Restarts, task.Failures)
		}
		b.pass(11 * time.Second)
		b.containers.exit(task.ID, 3)
		b.pass(time.Second)
		if next := b.w.task(b.id("web/1.6")); next.Failures != 0 || next.Restarts != 5 {
			t.Errorf("after a long run: restarts %d, failures %d; want the failures forgotten", next.Restarts, next.Failures)
		}
	})
}

func label(service string, slot, attempt int) string {
	return service + "/" + string(rune('0'+slot)) + "." + string(rune('0'+attempt))
}

func TestExit_AnExitedTask_LeavesTheTrafficAtOnce(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", replicas(2))))
		b.calls.reset()
		b.containers.exit(b.id("web/1.1"), 1)
		b.pass(90 * time.Millisecond)
		b.expectCalls("sync create", "sync web=web/2.1")
	})
}

func TestExit_AnExitWhileItIsPublished_LeavesNoDeadBackend(t *testing.T) {
	simulate(t, func(b *bench) {
		release := b.calls.hold("sync web=web/1.1")
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:1")), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(time.Second)
		b.containers.exit(b.id("web/1.1"), 0)
		b.pass(0)
		release()
		b.pass(time.Second)
		for _, s := range b.networks.current().Services {
			if len(s.Backends) != 0 {
				t.Errorf("a dead task is in the rules: %+v", s)
			}
		}
		b.expectTasks("web/1.1 exited 0")
	})
}

func TestExit_OfAOneShot_Completes_AndIsNotRepeated(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop",
			service("job", "job:1", func(s *spec.Service) { s.OneShot = true }),
			service("web", "web:1", dependsOn("job", spec.DependsCompleted)))
		b.containers.onStart = func(id string, p *process) {
			if p.c.Args[0] == "/job:1" {
				b.containers.exit(id, 0) // before Start returns
			}
		}
		b.up(st)
		b.pass(time.Minute)
		b.up(st)
		b.expectTasks("job/1.1 exited 0", "web/1.1 running published")
		task := b.w.task(b.id("job/1.1"))
		if task.Health != "" || task.Started.After(task.Finished) {
			t.Errorf("health %q, started %s, finished %s", task.Health, task.Started, task.Finished)
		}
	})
}

func TestExit_OfAOneShotThatFails_StopsWhatWaitsForIt(t *testing.T) {
	simulate(t, func(b *bench) {
		b.containers.onStart = func(id string, p *process) {
			if p.c.Args[0] == "/job:1" {
				b.containers.write(id, runtime.LogLine{Text: "no such table"})
				b.containers.exit(id, 4)
			}
		}
		_, done, err := b.tryUp(stackOf("shop",
			service("job", "job:1", func(s *spec.Service) { s.OneShot = true }),
			service("web", "web:1", dependsOn("job", spec.DependsCompleted))))
		if err != nil || done.Outcome != api.OutcomeFailed || !strings.Contains(done.Detail, "exited 4") {
			t.Errorf("%+v, %v", done, err)
		}
		b.expectTasks("job/1.1 exited 4")
	})
}

func TestExit_AContainerThatVanished_IsLost_AndReplacedWithoutACount(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.containers.vanish(b.id("web/1.1"))
		b.pass(realityEvery + time.Second)
		b.expectTasks("web/1.2 running published")
		if task := b.w.task(b.id("web/1.2")); task.Failures != 0 || task.Restarts != 1 {
			t.Errorf("failures %d, restarts %d", task.Failures, task.Restarts)
		}
	})
}

func TestExit_ForWantOfMemory_SaysSo(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", func(s *spec.Service) { s.Restart.Condition = spec.RestartNo })))
		b.containers.end(b.id("web/1.1"), 137, true)
		b.pass(time.Second)
		task := b.apiTask(b.w.view(), b.w.task(b.id("web/1.1")))
		if task.Reason != "out of memory" || !task.OOMKilled || task.ExitCode != 137 {
			t.Errorf("%+v", task)
		}
		past, _, _ := b.events.read(time.Unix(0, 1)).take()
		if last := past[len(past)-1]; last.Action != "die" || last.Message != "out of memory" {
			t.Errorf("last event %+v", last)
		}
	})
}

func TestStart_ACommandThatIsNotThere_IsExit127WithAReason_AndNothingIsLeft(t *testing.T) {
	simulate(t, func(b *bench) {
		b.calls.fail("start", &runtime.StartError{Reason: runtime.ReasonNotFound, Command: "/nope"})
		_, done, err := b.tryUp(stackOf("shop", service("web", "web:1", func(s *spec.Service) { s.Restart.Condition = spec.RestartNo })))
		if err != nil || done.Outcome != api.OutcomeFailed || !strings.Contains(done.Detail, "executable not found in the image") {
			t.Errorf("%+v, %v", done, err)
		}
		b.expectTasks("web/1.1 exited 127")
		if len(b.containers.all) != 0 || len(b.networks.netns) != 0 {
			t.Error("a container or namespace was left")
		}
	})
}

func TestStart_ThatFailsOnce_IsTriedAgain(t *testing.T) {
	simulate(t, func(b *bench) {
		b.calls.failOnce("mount", errDisk)
		b.up(stackOf("shop", service("web", "web:1")))
		b.expectTasks("web/1.2 running published")
		if task := b.w.task(b.id("web/1.2")); task.Lost || task.Failures != 1 {
			t.Errorf("%+v", task)
		}
	})
}

func TestStop_AProgramThatIgnoresTheSignal_IsKilledAfterItsGrace(t *testing.T) {
	simulate(t, func(b *bench) {
		grace := 3 * time.Second
		b.containers.onStart = func(_ string, p *process) { p.onSignal = func(runtime.Signal) {} }
		b.up(stackOf("shop", service("web", "web:1", func(s *spec.Service) {
			s.StopSignal, s.StopGracePeriod = "SIGQUIT", &grace
		})))
		b.calls.reset()
		begun := time.Now()
		b.action("shop", api.ActionRequest{Action: api.ActionStop})
		if d := time.Since(begun); d < grace || d > grace+time.Second {
			t.Errorf("stopped after %s", d)
		}
		b.expectCalls("signal", "signal web/1.1 SIGQUIT", "signal web/1.1 SIGKILL")
		b.expectTasks("web/1.1 exited 137")
	})
}

func TestReplace_ATaskWithConnections_DrainsFirst(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		addr := b.w.task(b.id("web/1.1")).Endpoints[0].IPv4
		b.networks.flows[addr] = overlaynet.Flow{Count: 2}
		b.calls.reset()
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:2")), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(defaultMonitor - time.Second) // the first new task is watched before it takes traffic
		b.expectTasks("web/1.1 running published", "web/1.2 running")
		b.pass(5 * time.Second)
		b.expectTasks("web/1.1 running", "web/1.2 running published")
		b.networks.mu.Lock()
		b.networks.flows[addr] = overlaynet.Flow{}
		b.networks.mu.Unlock()
		b.pass(time.Second)
		b.expectTasks("web/1.2 running published")
	})
}

func TestAction_ThatFails_IsTriedAgainWithBackOff(t *testing.T) {
	simulate(t, func(b *bench) {
		b.calls.fail("ensure", errDisk)
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:1")), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(4 * time.Second)
		if n := len(b.calls.of("ensure")); n < 4 || n > 6 {
			t.Errorf("%d tries in 4 s", n)
		}
		st, err := b.stackStatus("shop")
		if err != nil || st.Services[0].Phase != api.PhaseFailing || !strings.Contains(st.Services[0].Reason, "input/output error") {
			t.Errorf("%+v, %v", st.Services, err)
		}
		b.calls.heal("ensure")
		b.pass(10 * time.Second)
		b.expectTasks("web/1.1 running published")
	})
}

func TestRemovedTasks_KeepThreeLogsASlot(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("web", "web:1"))
		for range 6 {
			b.up(st, func(r *api.ApplyRequest) { r.ForceRecreate = true })
			b.pass(time.Second)
		}
		removed := 0
		for _, task := range b.w.view().tasks {
			if task.State == store.StateRemoved {
				removed++
			}
		}
		if removed != keptLogs {
			t.Errorf("%d records of removed tasks, want %d", removed, keptLogs)
		}
		b.expectTasks("web/1.6 running published")
	})
}
