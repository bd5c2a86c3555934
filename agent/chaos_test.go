package agent

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/api"
	"berth/spec"
	"berth/store"
)

// chaos does to an agent what machines and people do, in an order that a seed
// chooses.
type chaos struct {
	*bench
	rng *rand.Rand
	log []string
}

func (c *chaos) note(format string, args ...any) { c.log = append(c.log, fmt.Sprintf(format, args...)) }

// someStack is one of many versions of one stack.
func (c *chaos) someStack() spec.Stack {
	volume := func(s *spec.Service) {
		s.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "data", Target: "/data"}}
	}
	st := stackOf("shop",
		service("db", "db:1", volume, env("V", fmt.Sprint(c.rng.IntN(2)))),
		service("web", []string{"web:1", "web:2"}[c.rng.IntN(2)], replicas(1+c.rng.IntN(3)), dependsOn("db", spec.DependsStarted),
			published(tcp(uint16(8080+c.rng.IntN(2)), 80))),
	)
	if c.rng.IntN(2) == 0 {
		st.Services["side"] = service("side", "job:1", dependsOn("web", spec.DependsStarted), func(s *spec.Service) {
			s.NetworkMode, s.Networks = "service:web", nil
		})
	}
	for name := range st.Services { // with the default, exit code 0 is the end
		set(&st, name, func(s *spec.Service) { s.Restart.Condition = spec.RestartAlways })
	}
	st.Networks["default"] = spec.Network{Key: "default", Name: "shop_default", Internal: c.rng.IntN(4) == 0}
	st.Volumes = map[string]spec.Volume{"data": {Key: "data", Name: "shop_data"}}
	return st
}

// someTask is a task that is not removed, or nil.
func (c *chaos) someTask() *store.Task {
	var list []*store.Task
	for _, t := range c.w.view().tasks {
		if t.State != store.StateRemoved {
			list = append(list, t)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[c.rng.IntN(len(list))]
}

func (c *chaos) step() {
	task := c.someTask()
	switch n := c.rng.IntN(12); {
	case n < 3:
		_, _, err := c.tryUp(c.someStack(), func(r *api.ApplyRequest) { r.Wait = false })
		c.note("up: %v", err)
	case n == 3 && task != nil:
		c.note("exit %s", c.label(task.ID))
		c.containers.exit(task.ID, c.rng.IntN(3))
	case n == 4 && task != nil:
		c.note("vanish %s", c.label(task.ID))
		c.containers.vanish(task.ID)
	case n == 5 || n == 6:
		verb := []string{"create", "start", "mount", "attach", "sync", "ensure", "signal", "delete", "detach", "write", "remove-network", "update"}[c.rng.IntN(12)]
		c.note("fail %s once", verb)
		c.calls.failOnce(verb, errDisk)
	case n == 7:
		c.note("crash")
		c.calls.heal("write") // or there is no other agent
		c.crash(nil)
	case n == 8:
		c.note("reboot")
		c.calls.heal("write")
		c.crash(func() {
			clear(c.containers.all)
			clear(c.networks.netns)
			clear(c.networks.bridges)
		})
	case n == 9:
		action := []string{api.ActionStop, api.ActionStart, api.ActionRestart}[c.rng.IntN(3)]
		_, err := c.changeStack("shop", "chaos", func(s *store.Stack) {
			switch action {
			case api.ActionStop:
				s.Stopped["web"] = true
			case api.ActionStart:
				delete(s.Stopped, "web")
			default:
				s.Epochs["web"]++
			}
		})
		c.loop.wake()
		c.note("%s web: %v", action, err)
	case n == 10:
		_, err := c.changeStack("shop", "chaos", func(s *store.Stack) { s.Removing = &store.Removal{} })
		c.loop.wake()
		c.note("down: %v", err)
	}
	c.pass(time.Duration(c.rng.IntN(2000)) * time.Millisecond)
}

// settled is what is wrong once everything works again; "" if nothing is.
func (c *chaos) settled(st spec.Stack) string {
	var wrong []string
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	live, published := map[string]bool{}, 0
	for _, t := range c.w.view().tasks {
		switch {
		case t.State == store.StateRemoved:
		case t.State == store.StateRunning && t.Published && t.Image == st.Services[t.Service].Image:
			live[t.ID] = true
			if len(t.Endpoints) > 0 {
				published++
			}
		default:
			bad("%s is %s, published %t", c.label(t.ID), t.State, t.Published)
		}
	}
	want := 0
	for _, s := range st.Services {
		want += s.Replicas
	}
	if len(live) != want {
		bad("%d tasks run, want %d", len(live), want)
	}
	for id := range c.containers.all {
		if !live[id] {
			bad("container %s belongs to no running task", c.label(id))
		}
	}
	for id := range c.networks.netns {
		if !live[id] {
			bad("namespace %s belongs to no running task", c.label(id))
		}
	}
	backends := 0
	for _, s := range c.networks.current().Services {
		backends += len(s.Backends)
	}
	if backends != published {
		bad("%d backends, %d published tasks", backends, published)
	}
	if len(c.networks.bridges) != 1 || len(c.w.view().networks) != 1 {
		bad("%d bridges, networks %v", len(c.networks.bridges), sortedKeys(c.w.view().networks))
	}
	if got := c.host.list(); len(got) != 1 {
		bad("ports held: %v", got)
	}
	if err := c.w.flush(); err != nil || !sameRecords(c.w, stored(c.t, c.backend)) {
		bad("memory and store differ: %v", err)
	}
	slices.Sort(wrong)
	return strings.Join(wrong, "\n")
}

func TestChaos_WhateverHappened_TheStackComesUp_AndNothingIsLeftOver(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			c := &chaos{bench: newBench(t), rng: rand.New(rand.NewPCG(seed, 7))}
			c.begin()
			defer func() { c.end() }()
			for range 25 {
				c.step()
			}
			c.calls.mu.Lock()
			clear(c.calls.faults)
			c.calls.mu.Unlock()
			c.pass(5 * time.Minute)
			st := c.someStack()
			_, done, err := c.tryUp(st)
			var p *api.Error
			if errors.As(err, &p) && p.Code == api.CodeConflict { // it was being removed
				_, done, err = c.tryUp(st)
			}
			if err != nil || done.Outcome != api.OutcomeDone {
				c.note("the last up: %+v, %v", done, err)
			}
			c.pass(5 * time.Minute)
			if wrong := c.settled(st); wrong != "" {
				t.Errorf("seed %d: %s\nafter:\n%s", seed, wrong, strings.Join(c.log, "\n"))
			}
			c.takeDown("shop", api.DownRequest{})
			c.pass(time.Second)
			if n := len(c.containers.all) + len(c.networks.netns) + len(c.networks.bridges) + len(c.w.view().tasks); n != 0 {
				t.Errorf("seed %d: after down %d things are left: %v", seed, n, slices.Collect(maps.Keys(c.networks.bridges)))
			}
		})
		if t.Failed() {
			return
		}
	}
}
