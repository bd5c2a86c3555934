package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"berth/api"
	"berth/spec"
)

// planText is a plan, one line a change.
func planText(p *api.Plan) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s revision %d -> %d changed=%t\n", p.Stack, p.Revision, p.Next, p.Changed)
	for _, s := range p.Services {
		fmt.Fprintf(&out, "  %s %s: %d tasks (%d -> %d) %s %q\n", s.Verb, s.Service, s.Tasks, s.From, s.To, s.Order, s.Reason)
		for _, c := range s.Changes {
			at := ""
			if c.Position != nil {
				at = " at " + c.Position.String()
			}
			fmt.Fprintf(&out, "    %s: %q -> %q%s\n", c.Path, short(c.Old), short(c.New), at)
		}
	}
	for _, r := range append(p.Networks, p.Volumes...) {
		fmt.Fprintf(&out, "  %s %s %q\n", r.Verb, r.Name, r.Reason)
	}
	for _, i := range p.Images {
		fmt.Fprintf(&out, "  pull %s\n", i)
	}
	return out.String()
}

// short cuts digests, so that they can be read.
func short(s string) string {
	if strings.HasPrefix(s, "sha256:") {
		return s[:15]
	}
	return s
}

// rich is a stack with something of everything.
func rich() spec.Stack {
	st := stackOf("shop",
		service("db", "db:1", func(s *spec.Service) {
			s.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "data", Target: "/data"}}
		}),
		service("web", "web:1", replicas(2), env("A", "1"), published(tcp(8080, 80)), func(s *spec.Service) {
			s.DependsOn = []spec.Dependency{{Service: "db", Condition: spec.DependsStarted, Required: true, Restart: true}}
			s.Configs = []spec.FileMount{{Source: "conf", Target: "/conf"}}
		}),
	)
	st.Volumes = map[string]spec.Volume{"data": {Key: "data", Name: "shop_data"}}
	st.Configs = map[string]spec.File{"conf": {Key: "conf", Content: []byte("a")}}
	st.Positions["services.web.environment.A"] = spec.Position{File: st.Files[0], Line: 24, Col: 7}
	return st
}

func TestPlan_SaysWhatUpWouldDo_AndUpDoesThat(t *testing.T) {
	same := func(*spec.Stack) {}
	for _, c := range []struct {
		name   string
		change func(*spec.Stack)
		ask    func(*api.ApplyRequest)
		starts string // what up starts then
	}{
		{"nothing", same, nil, ""},
		{"environment", func(st *spec.Stack) { set(st, "web", env("A", "2")) }, nil, "web/1.2 web/2.2"},
		{"image", func(st *spec.Stack) { set(st, "web", func(s *spec.Service) { s.Image = "web:2" }) }, nil, "web/1.2 web/2.2"},
		{"config", func(st *spec.Stack) {
			st.Configs = map[string]spec.File{"conf": {Key: "conf", Content: []byte("b")}}
		}, nil, "web/1.2 web/2.2"},
		{"stop-first, and a dependent that restarts with it", func(st *spec.Stack) { set(st, "db", env("A", "2")) }, nil, "db/1.2 web/1.2 web/2.2"},
		{"ports and limits", func(st *spec.Stack) {
			set(st, "web", published(tcp(8081, 80)))
			set(st, "db", func(s *spec.Service) { s.Resources.Memory = 64 << 20 })
		}, nil, ""},
		{"scale", same, func(r *api.ApplyRequest) { r.Scale = map[string]int{"web": 3} }, "web/3.1"},
		{"a service less and one more", func(st *spec.Stack) {
			delete(st.Services, "web")
			st.Services["job"] = service("job", "job:1")
		}, nil, "job/1.1"},
		{"a network's settings", func(st *spec.Stack) {
			st.Networks["default"] = spec.Network{Key: "default", Name: "shop_default", Internal: true}
		}, nil, "db/1.2 web/1.2 web/2.2"},
		{"force", same, func(r *api.ApplyRequest) { r.ForceRecreate, r.Services = true, []string{"web"} }, "web/1.2 web/2.2"},
		{"some services", func(st *spec.Stack) {
			set(st, "web", env("A", "2"))
			set(st, "db", env("A", "2"))
		}, func(r *api.ApplyRequest) { r.Services = []string{"web"} }, "web/1.2 web/2.2"},
		{"no recreate", func(st *spec.Stack) { set(st, "web", env("A", "2")) }, func(r *api.ApplyRequest) { r.NoRecreate = true }, ""},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			simulate(t, func(b *bench) {
				b.up(rich())
				b.pass(time.Second)
				b.img.local["web:2"] = b.img.remote["web:2"]
				b.img.local["job:1"] = b.img.remote["job:1"]
				st := rich()
				c.change(&st)
				req := &api.ApplyRequest{Stack: st}
				if c.ask != nil {
					c.ask(req)
				}
				b.calls.reset()
				p, err := b.plan(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				b.pass(time.Minute)
				if calls := b.calls.of(); len(calls) != 0 {
					t.Errorf("a plan is not to do anything: %v", calls)
				}
				golden(t, "plan_"+strings.NewReplacer(" ", "_", ",", "", "'", "").Replace(c.name), planText(p))

				applied := b.up(st, func(r *api.ApplyRequest) {
					if c.ask != nil {
						c.ask(r)
					}
				})
				if applied.Changed != p.Changed || applied.Revision != p.Next {
					t.Errorf("plan said revision %d, changed %t; up did %+v", p.Next, p.Changed, applied)
				}
				b.pass(time.Minute)
				var started []string
				for _, s := range b.calls.of("start") {
					started = append(started, strings.TrimPrefix(s, "start "))
				}
				if got := strings.Join(sortedStrings(started), " "); got != c.starts {
					t.Errorf("started %q, want %q", got, c.starts)
				}
			})
		})
	}
}

func sortedStrings(list []string) []string {
	set := map[string]bool{}
	for _, s := range list {
		set[s] = true
	}
	return sortedKeys(set)
}

func TestPlan_OfANewStack_NamesWhatItPulls_AndChangesNothing(t *testing.T) {
	simulate(t, func(b *bench) {
		p, err := b.plan(t.Context(), &api.ApplyRequest{Stack: rich()})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "plan_new", planText(p))
		if calls := b.calls.of(); len(calls) != 0 || len(b.w.view().stacks) != 0 || len(b.secrets.contents) != 0 {
			t.Errorf("calls %v", calls)
		}
	})
}

func TestPlan_WhatUpWouldRefuse_IsRefused(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(rich())
		for _, c := range []struct {
			req  api.ApplyRequest
			code string
		}{
			{api.ApplyRequest{Stack: rich(), ExpectRevision: 3}, api.CodeConflict},
			{api.ApplyRequest{Stack: rich(), Scale: map[string]int{"wbe": 1}}, api.CodeInvalid},
			{api.ApplyRequest{Stack: stackOf("Shop!")}, api.CodeInvalid},
			{api.ApplyRequest{Stack: stackOf("new", service("web", "none:1", func(s *spec.Service) { s.PullPolicy = "never" }))}, api.CodeImageNotFound},
		} {
			if _, err := b.plan(t.Context(), &c.req); err == nil || problem(err).Code != c.code {
				t.Errorf("%v: %v, want %s", c.req.Stack.Name, err, c.code)
			}
		}
	})
}

func TestPlan_ADependentOfTheImagesVolume_StopsFirst(t *testing.T) {
	simulate(t, func(b *bench) {
		b.img.image("db:1", "db:1", v1.Config{Cmd: []string{"/db"}, Volumes: map[string]struct{}{"/var/lib/db": {}}})
		b.up(stackOf("shop", service("db", "db:1")))
		p, err := b.plan(t.Context(), &api.ApplyRequest{Stack: stackOf("shop", service("db", "db:1", env("A", "1")))})
		if err != nil {
			t.Fatal(err)
		}
		if s := p.Services[0]; s.Verb != api.PlanReplace || s.Order != "stop-first" || !strings.Contains(s.Reason, "/var/lib/db has one writer") {
			t.Errorf("%+v", s)
		}
	})
}
