package agent

import (
	"errors"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"berth/api"
	"berth/images"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

func shop() spec.Stack {
	return stackOf("shop", service("db", "db:1"), service("web", "web:1", dependsOn("db", spec.DependsStarted)))
}

func TestStopAndStart_ActOnTheNamedServicesOnly(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(shop())
		b.action("shop", api.ActionRequest{Action: api.ActionStop, Services: []string{"web"}})
		b.expectTasks("db/1.1 running published", "web/1.1 exited 143")
		b.pass(time.Minute)
		b.expectTasks("db/1.1 running published", "web/1.1 exited 143")
		b.action("shop", api.ActionRequest{Action: api.ActionStart, Services: []string{"web"}})
		b.expectTasks("db/1.1 running published", "web/1.2 running published")
		if _, r := b.w.stack("shop"); r.Number != 1 {
			t.Errorf("revision %d: an action makes none", r.Number)
		}
	})
}

func TestRestart_GivesEveryTaskASuccessor_AndHonoursItsTimeout(t *testing.T) {
	simulate(t, func(b *bench) {
		b.containers.onStart = func(_ string, p *process) { p.onSignal = func(runtime.Signal) {} }
		b.up(stackOf("shop", service("web", "web:1")))
		b.calls.reset()
		second := time.Second
		begun := time.Now()
		b.action("shop", api.ActionRequest{Action: api.ActionRestart, Timeout: &second})
		if d := time.Since(begun); d > 3*time.Second {
			t.Errorf("restarted after %s with a timeout of 1 s", d)
		}
		b.expectCalls("start signal", "start web/1.2", "signal web/1.1 SIGTERM", "signal web/1.1 SIGKILL")
	})
}

func TestKill_WithAnotherSignal_OnlySendsIt(t *testing.T) {
	simulate(t, func(b *bench) {
		var got []string
		b.containers.onStart = func(_ string, p *process) {
			p.onSignal = func(s runtime.Signal) { got = append(got, s.String()) }
		}
		b.up(shop())
		b.action("shop", api.ActionRequest{Action: api.ActionKill, Services: []string{"web"}, Signal: "HUP"})
		b.pass(time.Second)
		b.expectTasks("db/1.1 running published", "web/1.1 running published")
		if !slices.Equal(got, []string{"hangup"}) {
			t.Errorf("signals %v", got)
		}
	})
}

func TestKill_EndsForGood(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(shop())
		b.action("shop", api.ActionRequest{Action: api.ActionKill, Services: []string{"web"}})
		b.expectTasks("db/1.1 running published", "web/1.1 exited 137") // when it says so, it is so
		b.pass(time.Minute)
		b.expectTasks("db/1.1 running published", "web/1.1 exited 137")
		_, err := b.act(b.t.Context(), "shop", &api.ActionRequest{Action: api.ActionKill, Services: []string{"web"}}, func(api.Progress) {})
		if problem(err).Code != api.CodeConflict {
			t.Errorf("killing nobody: %v", err)
		}
	})
}

func TestRemove_TakesStoppedTasksAway_AndLeavesRunningOnes(t *testing.T) {
	simulate(t, func(b *bench) {
		b.img.image("db:1", "db:1", v1.Config{Cmd: []string{"/db"}, Volumes: map[string]struct{}{"/var/lib/db": {}}})
		b.up(shop())
		volume := b.w.task(b.id("db/1.1")).Anonymous["/var/lib/db"]
		b.action("shop", api.ActionRequest{Action: api.ActionRemove})
		b.expectTasks("db/1.1 running published", "web/1.1 running published")
		b.action("shop", api.ActionRequest{Action: api.ActionRemove, Services: []string{"db"}, Stop: true, Volumes: true})
		b.pass(time.Second)
		b.expectTasks("web/1.1 running published")
		if b.volumeExists(volume) {
			t.Errorf("volume %s is still there", volume)
		}
		b.action("shop", api.ActionRequest{Action: api.ActionStart})
		b.expectTasks("db/1.2 running published", "web/1.1 running published")
	})
}

func TestPause_AndUnpause_AreIdempotent_AndAPausedTaskCanBeStopped(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.calls.reset()
		for _, action := range []string{api.ActionPause, api.ActionPause, api.ActionUnpause, api.ActionUnpause, api.ActionPause} {
			b.action("shop", api.ActionRequest{Action: action})
			b.pass(time.Second)
		}
		b.expectCalls("pause resume", "pause web/1.1", "resume web/1.1", "pause web/1.1")
		b.expectTasks("web/1.1 paused published")
		b.action("shop", api.ActionRequest{Action: api.ActionStop})
		b.expectTasks("web/1.1 exited 143")
	})
}

func TestAction_OnWhatIsNotThere_IsRefused(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(shop())
		for _, c := range []struct {
			stack string
			req   api.ActionRequest
			code  string
		}{
			{"nope", api.ActionRequest{Action: api.ActionStop}, api.CodeNotFound},
			{"shop", api.ActionRequest{Action: api.ActionStop, Services: []string{"wbe"}}, api.CodeNotFound},
			{"shop", api.ActionRequest{Action: "explode"}, api.CodeInvalid},
			{"shop", api.ActionRequest{Action: api.ActionKill, Signal: "NOPE"}, api.CodeInvalid},
		} {
			_, err := b.act(b.t.Context(), c.stack, &c.req, func(api.Progress) {})
			if err == nil || problem(err).Code != c.code {
				t.Errorf("%+v: %v, want %s", c.req, err, c.code)
			}
		}
	})
}

func TestDown_EndsDependentsFirst_AndLeavesNoRecord(t *testing.T) {
	simulate(t, func(b *bench) {
		st := shop()
		st.Volumes = map[string]spec.Volume{"data": {Key: "data", Name: "shop_data"}}
		set(&st, "db", func(s *spec.Service) {
			s.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "data", Target: "/data"}}
		})
		st.Secrets = map[string]spec.File{"key": {Key: "key", Content: []byte("x")}}
		b.up(st)
		b.calls.reset()
		b.takeDown("shop", api.DownRequest{})
		b.pass(time.Second)
		b.expectCalls("signal", "signal web/1.1 SIGTERM", "signal db/1.1 SIGTERM")
		for _, bucket := range []string{store.Stacks, store.Revisions, store.Tasks, store.Networks, store.VIPs} {
			err := b.db.View(func(tx store.Tx) error {
				return tx.Each(bucket, "", func(key string, _ []byte) error {
					t.Errorf("%s %s is left", bucket, key)
					return nil
				})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(b.networks.bridges) != 0 || len(b.networks.netns) != 0 || len(b.containers.all) != 0 || len(b.secrets.contents) != 0 {
			t.Error("a bridge, namespace, container or secret is left")
		}
		if !b.volumeExists("shop_data") {
			t.Error("the volume was taken too")
		}
		if len(b.networks.current().Services) != 0 {
			t.Error("rules are left")
		}
	})
}

func TestDown_WithVolumesAndImages_TakesThemUnlessSomebodyElseNeedsThem(t *testing.T) {
	simulate(t, func(b *bench) {
		st := shop()
		st.Volumes = map[string]spec.Volume{"data": {Key: "data", Name: "shop_data"}}
		set(&st, "db", func(s *spec.Service) {
			s.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "data", Target: "/data"}}
		})
		b.up(st)
		b.up(stackOf("other", service("web", "web:1")))
		b.takeDown("shop", api.DownRequest{Volumes: true, Images: "all"})
		b.pass(time.Second)
		if b.volumeExists("shop_data") {
			t.Error("the volume is left")
		}
		if _, err := b.img.Resolve("db:1"); !errors.Is(err, images.ErrNotFound) {
			t.Error("image db:1 is left")
		}
		if _, err := b.img.Resolve("web:1"); err != nil {
			t.Error("the other stack's image is gone")
		}
	})
}

func TestDown_OfServices_LeavesTheStack(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(shop())
		b.takeDown("shop", api.DownRequest{Services: []string{"web"}})
		b.pass(time.Minute)
		b.expectTasks("db/1.1 running published")
		b.up(shop())
		b.expectTasks("db/1.1 running published", "web/1.2 running published")
	})
}

func TestDown_WhileTasksAreBeingCreated_WaitsForThem(t *testing.T) {
	simulate(t, func(b *bench) {
		release := b.calls.hold("create")
		_, _, err := b.tryUp(shop(), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(time.Second)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b.takeDown("shop", api.DownRequest{})
		}()
		b.pass(time.Second)
		release()
		<-ended
		b.pass(time.Second)
		if len(b.containers.all) != 0 || len(b.w.view().tasks) != 0 {
			t.Errorf("left:\n%s", b.ps())
		}
	})
}

func TestDown_ANetworkThatAnotherStackUses_StaysAndComesBack(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		other := stackOf("other", service("job", "job:1"))
		other.Networks["default"] = spec.Network{Key: "default", Name: "shop_default", External: true}
		b.up(other)
		before := b.w.view().networks["shop_default"]
		b.takeDown("shop", api.DownRequest{})
		kept := b.w.view().networks["shop_default"]
		if len(b.networks.bridges) != 1 || kept == nil || kept.ID != before.ID || kept.Stack != "" {
			t.Fatalf("of the network is left: %+v, %d bridges", kept, len(b.networks.bridges))
		}
		b.up(stackOf("shop", service("web", "web:1")))
		if back := b.w.view().networks["shop_default"]; back.ID != before.ID || back.Stack != "shop" {
			t.Errorf("the stack's network came back as %+v", back)
		}
		b.takeDown("other", api.DownRequest{})
		b.takeDown("shop", api.DownRequest{})
		if len(b.networks.bridges) != 0 {
			t.Error("a bridge is left")
		}
	})
}

func TestDown_OfNothing_IsNotFound(t *testing.T) {
	simulate(t, func(b *bench) {
		_, err := b.down(b.t.Context(), "nope", &api.DownRequest{}, func(api.Progress) {})
		if problem(err).Code != api.CodeNotFound {
			t.Error(err)
		}
	})
}
