package agent

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"pgregory.net/rapid"

	"berth/api"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

func TestVerdict_EagerProbesNeverMakeASlowStartUnhealthySooner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &check{
			interval:    time.Duration(rapid.IntRange(1, 60).Draw(t, "interval")) * time.Second,
			startPeriod: time.Duration(rapid.IntRange(0, 60).Draw(t, "start period")) * time.Second,
			retries:     rapid.IntRange(1, 5).Draw(t, "retries"),
		}
		begun := time.Unix(1000, 0)
		v := verdict{state: starting, started: begun}
		allowed := c.startPeriod + time.Duration(c.retries)*c.interval
		for now := begun; v.state == starting; now = now.Add(v.next(c, false)) {
			v.add(false, now, c)
			if v.state == unhealthy && now.Sub(begun) < allowed {
				t.Fatalf("unhealthy after %s, the file allows %s", now.Sub(begun), allowed)
			}
			if now.Sub(begun) > allowed+c.interval {
				t.Fatalf("still starting after %s", now.Sub(begun))
			}
		}
	})
}

func TestVerdict_AfterASuccess_FailuresInARowCount(t *testing.T) {
	c := &check{interval: time.Second, retries: 3}
	v := verdict{state: starting, started: time.Now()}
	var got []string
	for _, ok := range []bool{true, false, false, true, false, false, false, true} {
		v.add(ok, time.Now(), c)
		got = append(got, v.state[:1])
	}
	if s := strings.Join(got, ""); s != "hhhhhhuh" {
		t.Errorf("states %s", s)
	}
}

func TestHealthcheck_MergesTheServicesFieldsOverTheImages(t *testing.T) {
	image := &v1.HealthConfig{Test: []string{"CMD", "/image"}, Interval: 5 * time.Second, Retries: 7}
	for _, c := range []struct {
		name  string
		image *v1.HealthConfig
		s     *spec.Healthcheck
		want  string
	}{
		{"none at all", nil, nil, "none"},
		{"the image's", image, nil, "[/image] 5s 30s 0s 7"},
		{"the service's fields win", image, &spec.Healthcheck{Interval: time.Second, Retries: 2, StartPeriod: time.Minute}, "[/image] 1s 30s 1m0s 2"},
		{"a test of its own", image, &spec.Healthcheck{Test: []string{"CMD-SHELL", "exit 0"}}, "[/bin/sh -c exit 0] 5s 30s 0s 7"},
		{"disabled", image, &spec.Healthcheck{Disable: true}, "none"},
		{"NONE", image, &spec.Healthcheck{Test: []string{"NONE"}}, "none"},
		{"defaults", nil, &spec.Healthcheck{Test: []string{"CMD", "/x"}}, "[/x] 30s 30s 0s 3"},
		{"an empty test", nil, &spec.Healthcheck{Test: []string{"CMD"}}, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			img := b.img.image("web:1", "x", v1.Config{Healthcheck: c.image})
			b.img.local["web:1"] = img
			got := "none"
			if h := b.healthcheck(&store.Task{Digest: img.Digest, Spec: spec.Service{Healthcheck: c.s}}); h != nil {
				got = fmt.Sprintf("%v %s %s %s %d", h.args, h.interval, h.timeout, h.startPeriod, h.retries)
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// failing makes health tests fail while it is set.
func failing(b *bench) *atomic.Bool {
	var fails atomic.Bool
	b.containers.answer(func(_ context.Context, _ string, e runtime.Exec) (int, error) {
		if fails.Load() {
			_, _ = io.WriteString(e.Stdout, "connection refused\nmore\n")
			return 1, nil
		}
		return 0, nil
	})
	return &fails
}

// unrestarted leaves a task that fails as it is.
func unrestarted(s *spec.Service) { s.Restart.Condition = spec.RestartNo }

func TestHealth_AnUnhealthyTask_IsReplaced(t *testing.T) {
	simulate(t, func(b *bench) {
		fails := failing(b)
		b.up(stackOf("shop", service("web", "web:1", checked(2*time.Second, 3))))
		fails.Store(true)
		b.pass(8 * time.Second)
		fails.Store(false)
		b.pass(30 * time.Second)
		b.expectTasks("web/1.2 running published")
		b.expectCalls("start signal", "start web/1.1", "signal web/1.1 SIGTERM", "start web/1.2")
	})
}

func TestHealth_AnUnhealthyTaskThatIsNotRestarted_LeavesTheTrafficAndReturns(t *testing.T) {
	simulate(t, func(b *bench) {
		fails := failing(b)
		b.up(stackOf("shop", service("web", "web:1", checked(2*time.Second, 3), unrestarted)))
		b.expectTasks("web/1.1 running published")
		fails.Store(true)
		b.pass(3 * time.Second)
		b.expectTasks("web/1.1 running published")
		b.pass(5 * time.Second)
		b.expectTasks("web/1.1 running")
		task := b.apiTask(b.w.view(), b.w.task(b.id("web/1.1")))
		if task.Health != unhealthy || task.Ready || !strings.Contains(task.Reason, `exits 1: "connection refused"`) {
			t.Errorf("%+v", task)
		}
		fails.Store(false)
		b.pass(3 * time.Second)
		b.expectTasks("web/1.1 running published")
		b.expectCalls("start signal", "start web/1.1")
	})
}

func TestHealth_ASlowStart_IsReadyWithinASecondOfItsFirstSuccess(t *testing.T) {
	simulate(t, func(b *bench) {
		fails := failing(b)
		fails.Store(true)
		time.AfterFunc(10*time.Second, func() { fails.Store(false) })
		begun := time.Now()
		b.up(stackOf("shop", service("web", "web:1", checked(30*time.Second, 3))))
		if d := time.Since(begun); d < 10*time.Second || d > 11500*time.Millisecond {
			t.Errorf("up after %s", d)
		}
	})
}

func TestHealth_ADependentWaits_AndANewVersionThatIsNeverHealthyReplacesNothing(t *testing.T) {
	simulate(t, func(b *bench) {
		b.containers.answer(func(_ context.Context, id string, e runtime.Exec) (int, error) {
			if b.w.task(id).Image == "web:2" {
				_, _ = io.WriteString(e.Stdout, "connection refused\n")
				return 1, nil
			}
			return 0, nil
		})
		b.up(stackOf("shop", service("web", "web:1", checked(time.Second, 3))))
		_, done, err := b.tryUp(stackOf("shop",
			service("web", "web:2", checked(time.Minute, 3)), service("job", "job:1", dependsOn("web", spec.DependsHealthy))))
		if err != nil || done.Outcome == api.OutcomeDone || !strings.Contains(done.Detail, "connection refused") {
			t.Errorf("%+v, %v", done, err)
		}
		if ps := b.ps(); strings.Contains(ps, "job") || !strings.Contains(ps, "web/1.1 running") {
			t.Errorf("tasks:\n%s", ps)
		}
		if calls := b.calls.of("signal"); slices.Contains(calls, "signal web/1.1 SIGTERM") {
			t.Errorf("the old task was stopped: %v", calls)
		}
	})
}

func TestHealth_AProbeThatHangs_IsAFailureInTime(t *testing.T) {
	simulate(t, func(b *bench) {
		b.containers.answer(func(ctx context.Context, _ string, _ runtime.Exec) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:1", checked(time.Second, 3), unrestarted)), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(10 * time.Second)
		in := b.inspect(b.t.Context(), b.w.task(b.id("web/1.1")))
		if in.Health != unhealthy || len(in.Probes) != keptProbes || in.Probes[0].ExitCode != -1 || in.Probes[0].Output != "no answer within 1s" {
			t.Errorf("health %s, probes %+v", in.Health, in.Probes)
		}
	})
}

func TestHealth_ATestThatIsAddedOrTakenAway_TakesEffectInPlace(t *testing.T) {
	simulate(t, func(b *bench) {
		fails := failing(b)
		b.up(stackOf("shop", service("web", "web:1", unrestarted)))
		b.calls.reset()
		b.up(stackOf("shop", service("web", "web:1", checked(time.Second, 2), unrestarted)))
		b.pass(2 * time.Second)
		if got := b.w.task(b.id("web/1.1")).Health; got != healthy {
			t.Errorf("health %q with a new test", got)
		}
		if lines := b.calls.of("sync"); slices.Contains(lines, "sync web=") {
			t.Errorf("it left the traffic for its new test: %v", lines)
		}
		fails.Store(true)
		b.pass(5 * time.Second)
		b.expectTasks("web/1.1 running")
		b.up(stackOf("shop", service("web", "web:1", unrestarted)))
		b.pass(2 * time.Second)
		b.expectTasks("web/1.1 running published")
		b.expectCalls("create start signal")
	})
}

func TestProbes_OfARemovedTask_End(t *testing.T) {
	simulate(t, func(b *bench) {
		var probed atomic.Int32
		b.containers.answer(func(context.Context, string, runtime.Exec) (int, error) {
			probed.Add(1)
			return 0, nil
		})
		b.up(stackOf("shop", service("web", "web:1", checked(time.Second, 3))))
		b.takeDown("shop", api.DownRequest{})
		b.pass(time.Second)
		before := probed.Load()
		b.pass(time.Minute)
		if got := probed.Load(); got != before {
			t.Errorf("%d probes of nobody", got-before)
		}
		if len(b.probes.cancel)+len(b.probes.tracks) != 0 {
			t.Error("something is remembered of a task that is gone")
		}
	})
}
