package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"berth/api"
	"berth/spec"
)

// file is what people have in their editor: the stack, service by service.
type file struct {
	rng interface {
		IntN(int) int
	}
	services map[string]spec.Service
	edits    int
}

func (s *sim) newFile() file {
	f := file{rng: s.rng, services: map[string]spec.Service{}}
	for _, name := range []string{"db", "web", "api"} {
		f.services[name] = f.some(name)
	}
	return f
}

func (f *file) chance(percent int) bool { return f.rng.IntN(100) < percent }

func pick[T any](f *file, list ...T) T { return list[f.rng.IntN(len(list))] }

func ptr[T any](v T) *T { return &v }

// some is a version of a service.
func (f *file) some(name string) spec.Service {
	f.edits++
	image := "web"
	if name == "db" || name == "job" {
		image = name
	}
	tag := pick(f, "1", "2")
	if f.chance(30) {
		switch image {
		case "web":
			tag = pick(f, "crash", "late", "never", "sick", "nostart", "3", "gone")
		case "db":
			tag = pick(f, "crash", "never")
		case "job":
			tag = "bad"
		}
	}
	svc := service(name, image+":"+tag, env("EDIT", fmt.Sprint(f.edits%5)))
	svc.Restart.Condition = spec.RestartAlways
	svc.Drain, svc.StopGracePeriod = ptr(2*time.Second), ptr(time.Second)
	svc.ProgressDeadline = 6 * time.Second
	if f.chance(50) || tag == "never" || tag == "sick" {
		checked(500*time.Millisecond, 1+f.rng.IntN(3))(&svc)
	}
	svc.Update = f.update()
	if f.chance(20) {
		svc.Rollback = f.update()
	}
	if f.chance(20) {
		svc.MinReady = 700 * time.Millisecond
	}
	switch name {
	case "db":
		svc.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "data", Target: "/data", NoCopy: true}}
	case "web":
		svc.Replicas = 1 + f.rng.IntN(3)
		svc.Ports = []spec.Port{tcp(uint16(8080+f.rng.IntN(2)), 80)}
	case "api":
		svc.Replicas = 1 + f.rng.IntN(2)
		if f.chance(20) {
			svc.Update.Order = "stop-first"
		}
		if f.chance(20) {
			svc.Restart = spec.RestartPolicy{Condition: spec.RestartOnFailure, MaxAttempts: 3}
		}
	case "side":
		svc.NetworkMode, svc.Networks = "service:web", nil
	case "fix":
		svc.Networks[0].IPv4 = "10.210.0.77"
	case "job":
		svc.Restart, svc.Healthcheck, svc.OneShot = spec.RestartPolicy{}, nil, true
	}
	return svc
}

func (f *file) update() *spec.UpdateConfig {
	u := &spec.UpdateConfig{Monitor: ptr(time.Duration(1+f.rng.IntN(3)) * time.Second)}
	if f.chance(50) {
		u.Parallelism = ptr(f.rng.IntN(3))
	}
	if f.chance(20) {
		u.Delay = ptr(time.Second)
	}
	if f.chance(20) {
		u.MaxFailureRatio = .5
	}
	if f.chance(40) {
		u.FailureAction = pick(f, "rollback", "pause", "pause", "continue")
	}
	return u
}

// edit changes one or more services.
func (f *file) edit() {
	for range 1 + f.rng.IntN(2) {
		name := pick(f, "db", "web", "web", "web", "api", "api", "job", "side", "fix")
		switch _, there := f.services[name]; {
		case there && name != "web" && name != "db" && f.chance(30):
			delete(f.services, name)
		default:
			f.services[name] = f.some(name)
		}
	}
}

// good makes every service one that works.
func (f *file) good() {
	for _, name := range sortedKeys(f.services) {
		svc := f.some(name)
		svc.Image = map[string]string{"db": "db:1", "job": "job:1"}[name]
		if svc.Image == "" {
			svc.Image = "web:1"
		}
		f.services[name] = svc
	}
}

// stack is the file as a whole, with what depends on what.
func (f *file) stack() spec.Stack {
	var list []spec.Service
	_, job := f.services["job"]
	for _, name := range sortedKeys(f.services) {
		svc := f.services[name]
		svc.DependsOn = nil
		need := func(other, condition string, restart bool) {
			svc.DependsOn = append(svc.DependsOn, spec.Dependency{Service: other, Condition: condition, Required: true, Restart: restart})
		}
		switch name {
		case "web":
			condition := spec.DependsStarted
			if f.services["db"].Healthcheck != nil {
				condition = spec.DependsHealthy
			}
			need("db", condition, false)
			if job {
				need("job", spec.DependsCompleted, false)
			}
		case "api":
			need("db", spec.DependsStarted, f.services["db"].Healthcheck != nil)
		case "side":
			need("web", spec.DependsStarted, false)
		}
		list = append(list, svc)
	}
	st := stackOf("shop", list...)
	st.Volumes = map[string]spec.Volume{"data": {Key: "data", Name: "shop_data"}}
	return st
}

// act is what somebody does.
func (s *sim) act() {
	st, _ := s.w.stack("shop")
	wait := s.rng.IntN(2) == 0
	n := s.rng.IntN(100)
	services := sortedKeys(s.file.services)
	one := services[s.rng.IntN(len(services))]
	switch {
	case st == nil || n < 30:
		s.file.edit()
		s.up("up "+s.file.String(), func(r *api.ApplyRequest) { r.Wait = wait })
	case n < 34:
		s.up("the same up", func(r *api.ApplyRequest) { r.Wait = wait; r.ForceRecreate = s.rng.IntN(3) == 0 })
	case n < 40:
		to := map[string]int{"web": 1 + s.rng.IntN(3)}
		s.client(fmt.Sprint("scale ", to), func(ctx context.Context, a *Agent) (*api.Done, error) {
			return a.scaleStack(ctx, "shop", &api.ScaleRequest{Services: to, Wait: wait}, quiet)
		})
	case n < 58:
		action := []string{api.ActionRestart, api.ActionRestart, api.ActionStop, api.ActionStart, api.ActionStart}[s.rng.IntN(5)]
		s.client(action+" "+one, func(ctx context.Context, a *Agent) (*api.Done, error) {
			return a.act(ctx, "shop", &api.ActionRequest{Action: action, Services: []string{one}}, quiet)
		})
	case n < 64:
		s.client("rollback", func(ctx context.Context, a *Agent) (*api.Done, error) {
			return a.rollback(ctx, "shop", &api.RollbackRequest{Wait: wait}, quiet)
		})
	case n < 78:
		action := []string{api.RolloutPause, api.RolloutResume, api.RolloutResume, api.RolloutUndo, api.RolloutPromote, api.RolloutPromote, api.RolloutAbort}[s.rng.IntN(7)]
		s.client("rollout "+action, func(ctx context.Context, a *Agent) (*api.Done, error) {
			return a.rolloutAction(ctx, "shop", &api.RolloutRequest{Action: action, Wait: wait}, quiet)
		})
	case n < 84:
		service := []string{"web", "api"}[s.rng.IntN(2)]
		if _, ok := s.file.services[service]; !ok {
			return
		}
		s.file.services[service] = s.file.some(service)
		canary := &api.Canary{Service: service, Percent: 1 + s.rng.IntN(99)}
		s.up("canary "+s.file.String(), func(r *api.ApplyRequest) { r.Wait, r.Canary = wait, canary })
	case n < 87:
		s.client("down", func(ctx context.Context, a *Agent) (*api.Done, error) {
			return a.down(ctx, "shop", &api.DownRequest{}, quiet)
		})
	case n < 90:
		s.strikeDown()
	case n < 93:
		s.mu.Lock()
		s.crashLocked("by kill -9")
		s.mu.Unlock()
	}
}

func quiet(api.Progress) {}

func (s *sim) up(what string, change func(*api.ApplyRequest)) {
	req := &api.ApplyRequest{Stack: s.file.stack(), Actor: "alice"}
	change(req)
	s.client(what, func(ctx context.Context, a *Agent) (*api.Done, error) { return a.applyAndFollow(ctx, req, quiet) })
}

// String names what runs: service=image×replicas.
func (f *file) String() string {
	out := ""
	for _, name := range sortedKeys(f.services) {
		svc := f.services[name]
		out += fmt.Sprintf(" %s=%s*%d", name, svc.Image, svc.Replicas)
		if u := svc.Update; u != nil {
			out += "/" + u.FailureAction + u.Order
		}
	}
	return out[1:]
}

// strikeDown ends a program, or takes its container away, behind the agent's
// back.
func (s *sim) strikeDown() {
	var labels []string
	s.mu.Lock()
	for id := range s.programs {
		if s.running(id) {
			labels = append(labels, s.labels[id])
		}
	}
	s.mu.Unlock()
	if len(labels) == 0 {
		return
	}
	slices.Sort(labels)
	label := labels[s.rng.IntN(len(labels))]
	vanish := s.rng.IntN(3) == 0
	s.mu.Lock()
	id := s.ids[label]
	s.checks.disturbed()
	s.programs[id].gone = time.Now()
	s.noteLocked("strike %s down, vanish %t", label, vanish)
	s.mu.Unlock()
	if vanish {
		s.containers.vanish(id)
		return
	}
	s.exit(id, 137)
}

// lastUp brings up a file in which everything works.
func (s *sim) lastUp() {
	if s.broken() {
		return
	}
	s.file.good()
	for {
		s.riseIfDead()
		rest(30 * time.Second) // what hung has ended, and who had the lock
		s.note("the last up")
		s.mu.Lock()
		s.checks.acted(s)
		s.mu.Unlock()
		req := &api.ApplyRequest{Stack: s.file.stack(), Actor: "alice"}
		_, err := s.applyAndFollow(s.agentCtx, req, quiet)
		if err == nil {
			return
		}
		s.note("the last up: %v", err)
		if time.Since(s.begun) > 24*time.Hour {
			s.mu.Lock()
			s.breach("the last up is refused: %v", err)
			s.mu.Unlock()
			return
		}
	}
}

// takeAway takes the stack down.
func (s *sim) takeAway() {
	if s.broken() {
		return
	}
	s.client("the last down", func(ctx context.Context, a *Agent) (*api.Done, error) {
		return a.down(ctx, "shop", &api.DownRequest{}, quiet)
	})
}
