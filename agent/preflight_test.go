package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/spec"
)

// remember gives the machine so much available memory.
func (b *bench) remember(t *testing.T, kib string) {
	t.Helper()
	b.meminfo = filepath.Join(t.TempDir(), "meminfo")
	if err := os.WriteFile(b.meminfo, []byte("MemTotal:  9000000 kB\nMemAvailable:   "+kib+" kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func reserving(mib int64) func(*spec.Service) {
	return func(s *spec.Service) { s.Resources.MemoryReservation = mib << 20 }
}

func TestUp_NewTasksThatReserveMoreThanThereIs_ChangeNothing(t *testing.T) {
	simulate(t, func(b *bench) {
		b.remember(t, "300000")
		b.up(stackOf("shop", service("web", "web:1", reserving(200))))
		b.remember(t, "100000")
		b.calls.reset()
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:2", reserving(200))))
		if err == nil || !strings.Contains(err.Error(), "reserve 200 MiB") || !strings.Contains(err.Error(), "97 MiB are available") {
			t.Errorf("err = %v", err)
		}
		b.expectCalls("create start signal")
		b.expectTasks("web/1.1 running published")
	})
}

func TestUp_StopFirst_NeedsNoMemoryBesideWhatRuns(t *testing.T) {
	simulate(t, func(b *bench) {
		order := func(s *spec.Service) { s.Update = &spec.UpdateConfig{Order: "stop-first"} }
		b.up(stackOf("shop", service("web", "web:1", reserving(200), order)))
		b.remember(t, "100000")
		b.up(stackOf("shop", service("web", "web:2", reserving(200), order)))
		b.expectTasks("web/1.2 running published")
	})
}

func TestUp_LimitsAboveWhatThereIs_AreAWarning(t *testing.T) {
	simulate(t, func(b *bench) {
		b.remember(t, "100000")
		limit := func(s *spec.Service) { s.Resources.Memory = 200 << 20 }
		warned := false
		_, err := b.apply(b.t.Context(), &api.ApplyRequest{Stack: stackOf("shop", service("web", "web:1", limit))}, func(p api.Progress) {
			warned = warned || strings.Contains(p.Warning, "up to 200 MiB")
		})
		if err != nil || !warned {
			t.Errorf("warned %t, err %v", warned, err)
		}
	})
}

func TestWeights_GiveTheCanaryItsPart(t *testing.T) {
	for _, c := range []struct{ percent, fresh, old int }{{10, 1, 1}, {10, 1, 3}, {30, 2, 5}, {99, 1, 10}} {
		f, o := weights(c.percent, c.fresh, c.old)
		part := 100 * float64(f*c.fresh) / float64(f*c.fresh+o*c.old)
		if part < float64(c.percent)-0.01 || part > float64(c.percent)+0.01 {
			t.Errorf("%+v: the canary gets %.2f %%", c, part)
		}
	}
}

func TestCanary_OneSlotWithAWeight_UntilItIsPromotedOrAborted(t *testing.T) {
	simulate(t, func(b *bench) {
		two := func(s *spec.Service) { s.Replicas = 2 }
		b.up(stackOf("shop", service("web", "web:1", two)))
		canary := func(percent int) func(*api.ApplyRequest) {
			return func(r *api.ApplyRequest) { r.Canary = &api.Canary{Service: "web", Percent: percent} }
		}
		b.up(stackOf("shop", service("web", "web:2", two)), canary(10))
		b.expectTasks("web/1.1 running published", "web/1.2 running published", "web/2.1 running published")
		got := map[string]int{}
		for _, back := range b.backends(b.w.view(), "shop", "web", "") {
			got[b.label(back.TaskID)] = back.Weight
		}
		if got["web/1.2"]*9 != got["web/1.1"]+got["web/2.1"] {
			t.Errorf("weights %v, want a tenth for web/1.2", got)
		}
		if _, err := b.rolloutAction(b.t.Context(), "shop", &api.RolloutRequest{Action: api.RolloutAbort, Wait: true}, func(api.Progress) {}); err != nil {
			t.Fatal(err)
		}
		b.pass(time.Second)
		b.expectTasks("web/1.1 running published", "web/2.1 running published")
		b.up(stackOf("shop", service("web", "web:2", two)), canary(50))
		if _, err := b.rolloutAction(b.t.Context(), "shop", &api.RolloutRequest{Action: api.RolloutPromote, Wait: true}, func(api.Progress) {}); err != nil {
			t.Fatal(err)
		}
		b.expectTasks("web/1.3 running published", "web/2.2 running published")
	})
}
