package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/api"
	"berth/spec"
	"berth/store"
)

// probed gives a service an HTTP probe, every 10 s, that fails after three
// failures.
func probed(which test, change func(*spec.Probe)) func(*spec.Service) {
	return func(s *spec.Service) {
		p := &spec.Probe{
			Kind: spec.ProbeHTTP, Port: 8080, Path: "/" + string(which), Scheme: "http",
			Interval: 10 * time.Second, Timeout: time.Second, Failures: 3, Successes: 1,
		}
		if change != nil {
			change(p)
		}
		if which == livenessTest {
			s.Liveness = p
		} else {
			s.Readiness = p
		}
	}
}

// answers are what tasks say to probes over the network, by path and, if it
// begins with one, by label of the task: "web/1.2 /readiness". Silence is
// success.
type answers struct {
	b     *bench
	mu    sync.Mutex
	say   map[string]string
	asked []time.Time
}

func answering(b *bench) *answers {
	a := &answers{b: b, say: map[string]string{}}
	b.probes.ask = a.ask
	return a
}

func (a *answers) set(what, problem string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.say[what] = problem
}

func (a *answers) ask(_ context.Context, addr netip.Addr, p *spec.Probe) answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, time.Now())
	problem := a.say[p.Path]
	for _, t := range a.b.w.view().tasks {
		if slices.ContainsFunc(t.Endpoints, func(e store.Endpoint) bool { return e.IPv4 == addr }) {
			if own, ok := a.say[a.b.label(t.ID)+" "+p.Path]; ok {
				problem = own
			}
		}
	}
	return answer{problem, strings.TrimSpace(problem)}
}

func TestReadiness_AProbeThatFails_LeavesTheTrafficAndReturns(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		b.up(stackOf("shop", service("web", "web:1", probed(readinessTest, nil))))
		b.pass(2 * time.Second) // once more while it was fresh, then every 10 s
		b.calls.reset()
		a.set("/readiness", " answers 503")
		b.pass(25 * time.Second) // at most two failures
		b.expectTasks("web/1.1 running published")
		b.pass(10 * time.Second)
		b.expectTasks("web/1.1 running")
		task := b.apiTask(b.w.view(), b.w.task(b.id("web/1.1")))
		if !strings.HasPrefix(task.Reason, "readiness GET :8080/readiness answers 503 (3 times since ") || task.Readiness != unhealthy {
			t.Errorf("%+v", task)
		}
		b.pass(time.Hour) // it is not ready, not broken
		a.set("/readiness", "")
		b.pass(11 * time.Second)
		b.expectTasks("web/1.1 running published")
		b.expectCalls("create signal")
	})
}

func TestReadiness_UntilItsFirstSuccess_IsAskedEverySecond(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		a.set("/readiness", ": connection refused")
		time.AfterFunc(40500*time.Millisecond, func() { a.set("/readiness", "") })
		begun := time.Now()
		b.up(stackOf("shop", service("web", "web:1", probed(readinessTest, nil))))
		if d := b.w.task(b.id("web/1.1")).ReadyAt.Sub(begun); d < 40*time.Second || d > 42*time.Second {
			t.Errorf("ready after %s", d)
		}
		if first := a.asked[0].Sub(begun); first > time.Second {
			t.Errorf("first asked after %s", first)
		}
	})
}

func TestReadiness_InitialDelayAndSuccesses(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		begun := time.Now()
		b.up(stackOf("shop", service("web", "web:1", probed(readinessTest, func(p *spec.Probe) {
			p.InitialDelay, p.Successes = 5*time.Second, 3
		}))))
		task := b.w.task(b.id("web/1.1"))
		if first := a.asked[0].Sub(task.Started); first != 5*time.Second {
			t.Errorf("first asked after %s", first)
		}
		if d := task.ReadyAt.Sub(begun); d < 7*time.Second || d > 8*time.Second {
			t.Errorf("ready after %s", d)
		}
	})
}

func TestReadiness_BesideAHealthcheck_BothMustPass(t *testing.T) {
	simulate(t, func(b *bench) {
		a, fails := answering(b), failing(b)
		b.up(stackOf("shop", service("web", "web:1", checked(2*time.Second, 3), unrestarted, probed(readinessTest, nil))))
		a.set("/readiness", " answers 503")
		b.pass(31 * time.Second)
		b.expectTasks("web/1.1 running")
		a.set("/readiness", "")
		b.pass(11 * time.Second)
		b.expectTasks("web/1.1 running published")
		fails.Store(true)
		b.pass(8 * time.Second)
		b.expectTasks("web/1.1 running")
	})
}

func TestReadiness_AChangedProbe_TakesEffectInPlace(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		b.up(stackOf("shop", service("web", "web:1")))
		b.calls.reset()
		b.up(stackOf("shop", service("web", "web:1", probed(readinessTest, nil), probed(livenessTest, nil))))
		b.pass(time.Second)
		if task := b.w.task(b.id("web/1.1")); task.Readiness != healthy || task.Liveness != healthy {
			t.Errorf("readiness %q, liveness %q", task.Readiness, task.Liveness)
		}
		a.set("/other", " answers 404")
		b.up(stackOf("shop", service("web", "web:1", probed(readinessTest, func(p *spec.Probe) { p.Path = "/other" }))))
		b.pass(31 * time.Second)
		b.expectTasks("web/1.1 running")
		if task := b.w.task(b.id("web/1.1")); task.Liveness != "" {
			t.Errorf("liveness %q after it was taken away", task.Liveness)
		}
		b.up(stackOf("shop", service("web", "web:1")))
		b.pass(time.Second)
		b.expectTasks("web/1.1 running published")
		b.expectCalls("create start signal")
	})
}

// TestReadiness_OfTheNewVersion_IsNotAskedOfTheOld: a new version may answer
// at a path that the old one does not know.
func TestReadiness_OfTheNewVersion_IsNotAskedOfTheOld(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		moved := probed(readinessTest, func(p *spec.Probe) { p.Path, p.Failures, p.Interval = "/v2", 1, time.Second })
		b.up(stackOf("shop", service("web", "web:1", probed(readinessTest, nil))))
		a.set("/v2", " answers 404")
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:2", moved)), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(30 * time.Second)
		b.expectTasks("web/1.1 running published", "web/1.2 running")
		if old := b.w.task(b.id("web/1.1")); old.Readiness != healthy || old.Spec.Readiness.Path != "/readiness" {
			t.Errorf("the old task is %s at %s", old.Readiness, old.Spec.Readiness.Path)
		}
		a.set("/v2", "")
		b.pass(time.Minute)
		b.expectTasks("web/1.2 running published")
	})
}

func TestLiveness_ATaskThatFails_IsReplaced(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		b.up(stackOf("shop", service("web", "web:1", probed(livenessTest, nil))))
		// Past the watched part of the rollout, and not at the very time of a probe.
		b.pass(time.Minute + 3*time.Second)
		a.set("web/1.1 /liveness", " answers 500")
		b.pass(25 * time.Second)
		b.expectTasks("web/1.1 running published")
		b.pass(time.Minute)
		b.expectTasks("web/1.2 running published")
	})
}

// TestLiveness_ASlowStart_IsNotEnded: being eager makes nothing unhealthy
// sooner than three failures of 10 s each.
func TestLiveness_ASlowStart_IsNotEnded(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		a.set("/liveness", ": connection refused")
		time.AfterFunc(29*time.Second, func() { a.set("/liveness", "") })
		b.up(stackOf("shop", service("web", "web:1", probed(livenessTest, nil))))
		b.pass(time.Minute)
		b.expectTasks("web/1.1 running published")
		b.expectCalls("start signal", "start web/1.1")
	})
}

func TestProbes_OverARestartOfTheAgent_NothingLeavesTheTraffic(t *testing.T) {
	simulate(t, func(b *bench) {
		answering(b)
		b.up(stackOf("shop", service("web", "web:1", probed(readinessTest, nil), probed(livenessTest, nil))))
		since := b.w.task(b.id("web/1.1")).ReadySince
		b.crash(nil)
		answering(b)
		b.pass(time.Minute)
		b.expectTasks("web/1.1 running published")
		b.expectCalls("create start signal withdraw")
		if task := b.w.task(b.id("web/1.1")); !task.ReadySince.Equal(since) {
			t.Errorf("ready since %s, was %s", task.ReadySince, since)
		}
	})
}

// TestProbes_OverARestartOfTheAgent_ATaskThatWasReadyIsNotNew: it is asked in
// its interval, not every second.
func TestProbes_OverARestartOfTheAgent_ATaskThatWasReadyIsNotNew(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		b.up(stackOf("shop", service("web", "web:1", probed(readinessTest, nil))))
		a.set("/readiness", " answers 503")
		b.pass(time.Minute)
		b.crash(nil)
		a = answering(b)
		a.set("/readiness", " answers 503")
		b.pass(time.Minute)
		if n := len(a.asked); n < 6 || n > 8 {
			t.Errorf("asked %d times in a minute", n)
		}
	})
}

func TestProbes_Inspect_TellsEachTest(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		b.up(stackOf("shop", service("web", "web:1", checked(time.Second, 3), probed(readinessTest, nil), probed(livenessTest, nil))))
		a.set("/readiness", " answers 503")
		b.pass(15 * time.Second)
		last := map[string]api.ProbeResult{}
		for _, r := range b.inspect(b.t.Context(), b.w.task(b.id("web/1.1"))).Probes {
			last[r.Test] = r
		}
		if len(last) != 3 || last["readiness"].ExitCode != 1 || last["readiness"].Output != "answers 503" || last["liveness"].ExitCode != 0 {
			t.Errorf("%+v", last)
		}
	})
}

// A version that turns bad while it is watched is asked every second, however
// long its interval, and does not take traffic on the way to its third failure.
func TestReadiness_WhileItIsWatched_IsAskedEverySecond_AndDoubtKeepsItOut(t *testing.T) {
	simulate(t, func(b *bench) {
		a := answering(b)
		b.up(stackOf("shop", service("web", "web:1", probed(readinessTest, nil))))
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:2", probed(readinessTest, nil))), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(defaultMonitor - 1500*time.Millisecond)
		a.set("web/1.2 /readiness", " answers 500")
		b.pass(2 * time.Second) // the watch is over, and two answers were bad
		b.expectTasks("web/1.1 running published", "web/1.2 running")
		b.pass(10 * time.Second)
		b.expectTasks("web/1.1 running published")
		if s, _ := b.w.stack("shop"); s.Rollout.State != api.RolloutRolledBack {
			t.Errorf("the rollout is %s", s.Rollout.State)
		}
	})
}
