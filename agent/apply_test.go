package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"berth/api"
	"berth/images"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

func TestUp_FirstTime_MakesNetworksAddressesAndTasksInDependencyOrder(t *testing.T) {
	simulate(t, func(b *bench) {
		b.containers.onStart = func(id string, p *process) {
			if p.c.Args[0] == "/job:1" {
				b.containers.exit(id, 0)
			}
		}
		applied := b.up(stackOf("shop",
			service("db", "db:1"),
			service("migrate", "job:1", dependsOn("db", spec.DependsStarted), func(s *spec.Service) { s.OneShot = true }),
			service("web", "web:1", dependsOn("migrate", spec.DependsCompleted)),
		))
		if !applied.Changed || applied.Revision != 1 {
			t.Errorf("applied %+v", applied)
		}
		b.expectCalls("ensure start", "ensure 10.210.0.0/24", "start db/1.1", "start migrate/1.1", "start web/1.1")
		b.expectTasks("db/1.1 running published", "migrate/1.1 exited 0", "web/1.1 running published")
		v := b.w.view()
		if len(v.vips) != 3 || v.networks["shop_default"] == nil {
			t.Errorf("networks %v, VIPs %v", sortedKeys(v.networks), sortedKeys(v.vips))
		}
	})
}

func TestUp_TheSameAgain_ChangesNothing(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("web", "web:1"))
		b.up(st)
		b.calls.reset()
		st.Files = []string{"/elsewhere/compose.yaml"}
		st.Positions = nil
		if applied := b.up(st); applied.Changed || applied.Revision != 1 {
			t.Errorf("applied %+v, want revision 1 unchanged", applied)
		}
		b.expectCalls("create start sync signal delete")
	})
}

func TestUp_ANewImage_StartsFirst_AndKeepsTheOldOneUntilTheNewTakesTraffic(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.calls.reset()
		b.up(stackOf("shop", service("web", "web:2")))
		b.pass(time.Second)
		b.expectCalls("create start sync signal delete",
			"create web/1.2", "start web/1.2",
			"sync web=web/1.1,web/1.2", // published
			"sync web=web/1.2",         // the old one withdrawn
			"signal web/1.1 SIGTERM", "delete web/1.1")
		b.expectTasks("web/1.2 running published")
	})
}

func TestUp_AServiceWithAVolume_StopsFirst(t *testing.T) {
	simulate(t, func(b *bench) {
		volume := func(s *spec.Service) {
			s.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "data", Target: "/data"}}
		}
		with := func(image string) spec.Stack {
			st := stackOf("shop", service("db", image, volume))
			st.Volumes = map[string]spec.Volume{"data": {Key: "data", Name: "shop_data"}}
			return st
		}
		b.up(with("web:1"))
		b.calls.reset()
		b.up(with("web:2"))
		b.expectCalls("create start signal", "signal db/1.1 SIGTERM", "create db/1.2", "start db/1.2")
		if !b.volumeExists("shop_data") {
			t.Error("the volume was not made")
		}
	})
}

func TestUp_ManyReplicas_AreReplacedOneAtATime(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", replicas(3))))
		b.calls.reset()
		b.up(stackOf("shop", service("web", "web:2", replicas(3))))
		for _, line := range b.calls.of("sync") {
			if n := strings.Count(line, "web/"); n < 3 {
				t.Errorf("only %d tasks in the traffic: %s", n, line)
			}
		}
		b.expectCalls("start", "start web/1.2", "start web/2.2", "start web/3.2")
	})
}

func TestUp_OtherLimits_AreAppliedInPlace(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.calls.reset()
		b.up(stackOf("shop", service("web", "web:1", func(s *spec.Service) { s.Resources.Memory = 64 << 20 })))
		b.pass(time.Second)
		b.expectCalls("create start update signal", "update web/1.1")
		if got := b.containers.all[b.id("web/1.1")].c.Resources.Memory; got != 64<<20 {
			t.Errorf("memory limit %d", got)
		}
	})
}

func TestUp_OtherPorts_TakeEffectWithoutATask(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", published(tcp(8080, 80)))))
		b.calls.reset()
		b.up(stackOf("shop", service("web", "web:1", published(tcp(8081, 80), tcp(8082, 80)))))
		b.expectCalls("create start signal")
		var got []uint16
		for _, p := range b.networks.current().Ports {
			got = append(got, p.Port)
		}
		if want := []uint16{8081, 8082}; !slices.Equal(got, want) {
			t.Errorf("published %v, want %v", got, want)
		}
		if got := b.host.list(); !slices.Equal(got, []string{"8081/tcp", "8082/tcp"}) {
			t.Errorf("held %v", got)
		}
	})
}

func TestUp_WithoutVIP_GivesTheNameToTheTasks(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.up(stackOf("shop", service("web", "web:1", func(s *spec.Service) { s.EndpointMode = "dnsrr" })))
		b.expectCalls("start", "start web/1.1")
		if s := b.networks.current().Services; len(s) != 0 {
			t.Errorf("services %+v, want no VIP", s)
		}
		task := b.w.task(b.id("web/1.1"))
		names := b.traffic.snapshot.Networks[0].Names
		if got := names["web"].Addrs; len(got) != 1 || got[0] != task.Endpoints[0].IPv4 {
			t.Errorf("web is %v, want %v", got, task.Endpoints[0].IPv4)
		}
	})
}

func TestUp_AnotherContentOfAConfigOrSecret_Replaces(t *testing.T) {
	simulate(t, func(b *bench) {
		with := func(config, secret string) spec.Stack {
			st := stackOf("shop", service("web", "web:1", func(s *spec.Service) {
				s.Configs = []spec.FileMount{{Source: "conf", Target: "/conf", Mode: 0o444}}
				s.Secrets = []spec.FileMount{{Source: "key", Target: "/run/secrets/key", UID: "7", Mode: 0o400}}
			}), service("db", "db:1"))
			st.Configs = map[string]spec.File{"conf": {Key: "conf", Name: "conf", Content: []byte(config)}}
			st.Secrets = map[string]spec.File{"key": {Key: "key", Name: "key", Content: []byte(secret)}}
			return st
		}
		b.up(with("a", "s3cret"))
		if files := b.secrets.delivered[b.id("web/1.1")]; len(files) != 2 || files[1].UID != 7 || files[1].Mode != 0o400 {
			t.Errorf("delivered %+v", files)
		}
		_, r := b.w.stack("shop")
		if r.Stack.Secrets["key"].Content != nil || r.Stack.Configs["conf"].Content != nil {
			t.Error("the record holds contents")
		}
		b.calls.reset()
		b.up(with("b", "s3cret"))
		b.up(with("b", "other"))
		b.expectCalls("start", "start web/1.2", "start web/1.3")
	})
}

func TestUp_Scale_AddsAndTakesAwayTheHighestSlots(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("web", "web:1"), service("db", "db:1"))
		b.up(st)
		b.up(st, func(r *api.ApplyRequest) { r.Scale = map[string]int{"web": 3} })
		b.expectTasks("db/1.1 running published", "web/1.1 running published", "web/2.1 running published", "web/3.1 running published")
		b.calls.reset()
		b.up(st, func(r *api.ApplyRequest) { r.Scale = map[string]int{"web": 1} })
		b.pass(time.Second)
		b.expectTasks("db/1.1 running published", "web/1.1 running published")
		b.expectCalls("start create")
	})
}

func TestUp_Scale_OfAServiceThatStaysAsItIs_Counts(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("web", "web:1"), service("db", "db:1"))
		b.up(st)
		newer := stackOf("shop", service("web", "web:2"), service("db", "db:1"))
		b.up(newer, func(r *api.ApplyRequest) { r.NoRecreate, r.Scale = true, map[string]int{"web": 2} })
		b.expectTasks("db/1.1 running published", "web/1.1 running published", "web/2.1 running published")
		if img := b.w.task(b.id("web/2.1")).Image; img != "web:1" {
			t.Errorf("the new task runs %s: with --no-recreate the service stays as it is", img)
		}
	})
}

func TestUp_Scale_OfNoService_IsRefused(t *testing.T) {
	simulate(t, func(b *bench) {
		b.mustFail(api.CodeInvalid, stackOf("shop", service("web", "web:1")), func(r *api.ApplyRequest) { r.Scale = map[string]int{"wbe": 2} })
	})
}

func TestUp_OfSomeServices_LeavesTheOthersAsTheyAre(t *testing.T) {
	simulate(t, func(b *bench) {
		config := func(s *spec.Service) { s.Configs = []spec.FileMount{{Source: "conf", Target: "/conf"}} }
		with := func(image, content string, more ...spec.Service) spec.Stack {
			st := stackOf("shop", append(more, service("web", image), service("db", image, config))...)
			st.Configs = map[string]spec.File{"conf": {Key: "conf", Name: "conf", Content: []byte(content)}}
			return st
		}
		b.up(with("web:1", "a"))
		b.calls.reset()
		b.up(with("web:2", "b", service("new", "job:1")), func(r *api.ApplyRequest) { r.Services = []string{"web"} })
		b.pass(time.Second)
		b.expectCalls("start", "start web/1.2")
		_, r := b.w.stack("shop")
		if _, ok := r.Stack.Services["new"]; ok {
			t.Error("a service that was not named was added")
		}
		if got := r.Stack.Services["db"].Image; got != "web:1" {
			t.Errorf("db is %s now", got)
		}
	})
}

func TestUp_NoRecreate_AddsWhatIsNewAndTouchesNothingElse(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.calls.reset()
		b.up(stackOf("shop", service("web", "web:2"), service("db", "db:1")), func(r *api.ApplyRequest) { r.NoRecreate = true })
		b.expectCalls("start", "start db/1.1")
	})
}

func TestUp_ForceRecreate_ReplacesWhatIsUnchanged(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("web", "web:1"), service("db", "db:1"))
		b.up(st)
		b.calls.reset()
		b.up(st, func(r *api.ApplyRequest) { r.ForceRecreate, r.Services = true, []string{"web"} })
		b.expectCalls("start", "start web/1.2")
	})
}

func TestUp_RenewVolumes_GivesFreshAnonymousVolumes(t *testing.T) {
	simulate(t, func(b *bench) {
		b.img.image("db:1", "db:1", v1.Config{Cmd: []string{"/db"}, Volumes: map[string]struct{}{"/var/lib/db": {}}})
		st := stackOf("shop", service("db", "db:1"))
		b.up(st)
		first := b.w.task(b.id("db/1.1")).Anonymous["/var/lib/db"]
		b.up(st, func(r *api.ApplyRequest) { r.ForceRecreate = true })
		if got := b.w.task(b.id("db/1.2")).Anonymous["/var/lib/db"]; got != first || first == "" {
			t.Errorf("recreated on %q, want the same volume %q", got, first)
		}
		b.up(st, func(r *api.ApplyRequest) { r.RenewVolumes = true })
		if got := b.w.task(b.id("db/1.3")).Anonymous["/var/lib/db"]; got == first || got == "" {
			t.Errorf("renewed on %q, want another volume", got)
		}
	})
}

func TestUp_AServiceThatLeftTheFile_Ends(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1"), service("db", "db:1")))
		b.calls.reset()
		b.up(stackOf("shop", service("web", "web:1")))
		b.pass(time.Second)
		b.expectCalls("signal delete", "signal db/1.1 SIGTERM", "delete db/1.1")
		b.expectTasks("web/1.1 running published")
		if vips := sortedKeys(b.w.view().vips); len(vips) != 1 {
			t.Errorf("VIPs %v", vips)
		}
	})
}

func TestUp_AServiceThatLeftTheFile_HasItsOwnGracePeriod(t *testing.T) {
	simulate(t, func(b *bench) {
		minute := time.Minute
		b.containers.onStart = func(id string, p *process) {
			p.onSignal = func(runtime.Signal) {
				time.AfterFunc(40*time.Second, func() { b.containers.exit(id, 0) })
			}
		}
		b.up(stackOf("shop", service("web", "web:1"), service("db", "db:1", func(s *spec.Service) { s.StopGracePeriod = &minute })))
		b.calls.reset()
		b.up(stackOf("shop", service("web", "web:1")))
		b.pass(time.Second)
		b.expectCalls("signal", "signal db/1.1 SIGTERM")
	})
}

func TestUp_ExpectRevision_RefusesWhenTheStackHasMovedOn(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("web", "web:1"))
		b.up(st)
		p := b.mustFail(api.CodeConflict, st, func(r *api.ApplyRequest) { r.ExpectRevision = 7 })
		if !strings.Contains(p.Detail, "at revision 1, not 7") {
			t.Error(p.Detail)
		}
		b.up(st, func(r *api.ApplyRequest) { r.ExpectRevision = 1 })
	})
}

func TestUp_AtTheSameTime_SaysWhoIsChangingTheStackAndSinceWhen(t *testing.T) {
	simulate(t, func(b *bench) {
		release := b.calls.hold("pull")
		st := stackOf("shop", service("web", "web:1"))
		ended := make(chan error, 1)
		go func() {
			_, _, err := b.tryUp(st)
			ended <- err
		}()
		since := time.Now().Format("15:04:05")
		b.pass(0)
		p := b.mustFail(api.CodeConflict, st)
		if want := "being changed by alice@tty since " + since; !strings.Contains(p.Detail, want) {
			t.Errorf("%q does not say %q", p.Detail, want)
		}
		release()
		if err := <-ended; err != nil {
			t.Error("the first up:", err)
		}
	})
}

func TestUp_WhatCanNotWork_IsOneProblemWithItsPlace_AndNothingChanges(t *testing.T) {
	web := service("web", "web:1")
	for _, c := range []struct {
		name, code string
		change     func(b *bench, st *spec.Stack)
		line       int
		detail     string
	}{
		{"no such image", api.CodeImageNotFound, func(_ *bench, st *spec.Stack) { set(st, "db", func(s *spec.Service) { s.Image = "nope:1" }) }, 21, "nope:1"},
		{"registry down", api.CodeRegistry, func(b *bench, _ *spec.Stack) { b.calls.fail("pull db:1", images.ErrUnreachable) }, 21, "unreachable"},
		{"only build", api.CodeInvalid, func(_ *bench, st *spec.Stack) {
			set(st, "db", func(s *spec.Service) { s.Image, s.Build = "", &spec.Build{Context: "."} })
		}, 20, "the image of service db, shop-db, is not built yet"},
		{"external network", api.CodeInvalid, func(_ *bench, st *spec.Stack) {
			st.Networks["proxy"] = spec.Network{Key: "proxy", Name: "proxy", External: true}
			st.Positions["networks.proxy"] = spec.Position{File: "x", Line: 99}
		}, 99, "berth network create proxy"},
		{"external volume", api.CodeInvalid, func(_ *bench, st *spec.Stack) {
			st.Volumes = map[string]spec.Volume{"data": {Key: "data", Name: "data", External: true}}
			st.Positions["volumes.data"] = spec.Position{File: "x", Line: 98}
		}, 98, "berth volume create data"},
		{"healthy without a test", api.CodeInvalid, func(_ *bench, st *spec.Stack) {
			set(st, "db", dependsOn("web", spec.DependsHealthy))
		}, 20, "web has no healthcheck"},
		{"port of somebody else", api.CodePortInUse, func(b *bench, st *spec.Stack) {
			b.host.taken[8080] = "nginx (pid 812)"
			set(st, "db", published(tcp(8080, 80)))
		}, 20, "in use by nginx (pid 812)"},
		{"a port twice", api.CodePortInUse, func(_ *bench, st *spec.Stack) {
			set(st, "db", published(tcp(8080, 80)))
			set(st, "web", published(tcp(8080, 81)))
		}, 10, "8080/tcp is published by service db"},
		{"a container that nobody knows", api.CodeInvalid, func(_ *bench, st *spec.Stack) {
			set(st, "db", func(s *spec.Service) { s.NetworkMode, s.Networks = "container:x", nil })
		}, 20, "no container x of Berth's runs"},
		{"subnet in use", api.CodeInvalid, func(b *bench, st *spec.Stack) {
			b.up(stackOf("other", web))
			st.Networks["default"] = spec.Network{Key: "default", Name: "shop_default", IPAM: []spec.IPAMPool{{Subnet: "10.210.0.0/25"}}}
			st.Positions["networks.default"] = spec.Position{File: "x", Line: 97}
		}, 97, "overlap"},
		{"disk full", api.CodeInternal, func(b *bench, _ *spec.Stack) { b.calls.fail("write", errDisk) }, 0, "input/output error"},
		{"a bad name", api.CodeInvalid, func(_ *bench, st *spec.Stack) { st.Name = "Shop!" }, 0, "Shop!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulate(t, func(b *bench) {
				st := stackOf("shop", web, service("db", "db:1"))
				// db stands second in the file.
				c.change(b, &st)
				p := b.mustFail(c.code, st)
				line := 0
				if p.Position != nil {
					line = p.Position.Line
				}
				if line != c.line || !strings.Contains(p.Detail, c.detail) {
					t.Errorf("line %d: %s; want line %d, %q", line, p.Detail, c.line, c.detail)
				}
				if s, _ := b.w.stack(st.Name); s != nil {
					t.Error("a record was kept")
				}
				if n := b.host.list(); len(n) != 0 {
					t.Errorf("ports %v are still held", n)
				}
				for _, task := range b.w.view().tasks {
					if task.Stack == "shop" {
						t.Error("a task was made")
					}
				}
			})
		})
	}
}

func set(st *spec.Stack, name string, f func(*spec.Service)) {
	s := st.Services[name]
	f(&s)
	st.Services[name] = s
}

func TestUp_SeveralProblems_AreToldTogether(t *testing.T) {
	simulate(t, func(b *bench) {
		p := b.mustFail(api.CodeImageNotFound, stackOf("shop", service("a", "nope:1"), service("b", "nope:2")))
		if !strings.Contains(p.Detail, "nope:1") || !strings.Contains(p.Detail, "/src/shop/compose.yaml:21:5: ") || !strings.Contains(p.Detail, "nope:2") {
			t.Errorf("%s", p.Detail)
		}
	})
}

func TestUp_ARefusedChange_LeavesPortsAndTasksAsTheyWere(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", published(tcp(8080, 80)))))
		b.calls.reset()
		b.calls.fail("write", errDisk)
		b.mustFail(api.CodeInternal, stackOf("shop", service("web", "web:2", published(tcp(9090, 80)))))
		b.calls.heal("write")
		b.pass(time.Minute)
		if got := b.host.list(); !slices.Equal(got, []string{"8080/tcp"}) {
			t.Errorf("held %v", got)
		}
		b.expectCalls("create start signal")
	})
}

func TestUp_APortOfAnotherStack_IsRefusedAndNamesIt(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("one", service("web", "web:1", published(tcp(8080, 80)))))
		p := b.mustFail(api.CodePortInUse, stackOf("two", service("web", "web:1", published(tcp(8080, 80)))))
		if !strings.Contains(p.Detail, "stack one") {
			t.Error(p.Detail)
		}
		// A range takes the next one; so does a second look.
		both := stackOf("two", service("web", "web:1", published(spec.Port{Published: 8080, PublishedEnd: 8085, Target: 80, Protocol: "tcp"})))
		b.up(both)
		b.up(both)
		if got := b.host.list(); !slices.Equal(got, []string{"8080/tcp", "8081/tcp"}) {
			t.Errorf("held %v", got)
		}
		b.takeDown("one", api.DownRequest{})
		if got := b.host.list(); !slices.Equal(got, []string{"8081/tcp"}) {
			t.Errorf("after down held %v", got)
		}
	})
}

func TestUp_OnlyTheNewestFiveRevisionsAreKept(t *testing.T) {
	simulate(t, func(b *bench) {
		for i := range 7 {
			b.up(stackOf("shop", service("web", "web:1", env("N", strings.Repeat("x", i)))))
		}
		var kept []uint64
		err := b.db.View(func(tx store.Tx) error {
			return store.Each(tx, store.Revisions, "shop/", func(_ string, r store.Revision) error {
				kept = append(kept, r.Number)
				return nil
			})
		})
		if err != nil || !slices.Equal(kept, []uint64{3, 4, 5, 6, 7}) {
			t.Errorf("kept %v, %v", kept, err)
		}
	})
}

func TestUp_OtherSettingsOfANetwork_MoveTheTasksAndRemoveTheOldOne(t *testing.T) {
	simulate(t, func(b *bench) {
		st := stackOf("shop", service("web", "web:1"))
		b.up(st)
		old := b.w.view().networks["shop_default"]
		st = stackOf("shop", service("web", "web:1"))
		st.Networks["default"] = spec.Network{Key: "default", Name: "shop_default", Internal: true}
		b.calls.reset()
		b.up(st)
		b.pass(time.Second)
		now := b.w.view().networks
		if len(now) != 1 || now["shop_default"].ID == old.ID || !now["shop_default"].Internal {
			t.Errorf("networks %v", sortedKeys(now))
		}
		b.expectTasks("web/1.2 running published")
		b.expectCalls("remove-network", "remove-network "+old.Subnet4.String())
		if got := b.calls.of("sync", "signal"); len(got) == 0 || strings.HasPrefix(got[0], "signal") {
			t.Errorf("the old task ended before the new one took traffic: %v", got)
		}
	})
}

func TestUp_NoStart_MakesNoTaskOfANewService(t *testing.T) {
	simulate(t, func(b *bench) {
		noStart := func(r *api.ApplyRequest) { r.NoStart = true }
		b.up(stackOf("shop", service("web", "web:1")))
		b.up(stackOf("shop", service("web", "web:1"), service("db", "db:1")), noStart)
		b.expectTasks("web/1.1 running published")
		b.up(stackOf("shop", service("web", "web:1"), service("db", "db:1")))
		b.expectTasks("db/1.1 running published", "web/1.1 running published")
	})
}

func TestUp_AnAddressThatIsTaken_IsToldAndRecoversWithAFixedFile(t *testing.T) {
	simulate(t, func(b *bench) {
		at := func(addr string) spec.Stack {
			st := stackOf("shop", service("web", "web:1", func(s *spec.Service) {
				s.Networks = []spec.Attachment{{Network: "default"}, {Network: "fixed", IPv4: addr}}
			}))
			st.Networks["fixed"] = spec.Network{Key: "fixed", Name: "shop_fixed", IPAM: []spec.IPAMPool{{Subnet: "10.99.0.0/24"}}}
			return st
		}
		_, done, err := b.tryUp(at("10.98.0.9"))
		if err == nil && !strings.Contains(done.Detail, "10.98.0.9") {
			t.Errorf("%+v does not name the address", done)
		}
		if tasks := b.w.view().tasks; len(tasks) != 0 {
			t.Errorf("a task that never got its addresses is on record: %+v", tasks[0])
		}
		begun := time.Now()
		b.up(at("10.99.0.9"))
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("the fixed file took %s: it waited out the back-off of the broken one", d)
		}
		b.expectTasks("web/1.1 running published")
	})
}
