package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coder/websocket"

	"berth/api"
	"berth/crash"
	"berth/dataplane"
	"berth/overlaynet"
	"berth/spec"
	"berth/store"
)

// oneOffs ends what is left of one-off tasks: those that have exited and are
// not to be kept, and those that nobody started.
type oneOffs struct {
	a *Agent

	mu   sync.Mutex
	held map[string]int       // by task: how many look at it
	due  map[string]time.Time // made, and to be started until then
	busy map[string]bool
}

func newOneOffs(a *Agent) *oneOffs {
	return &oneOffs{a: a, held: map[string]int{}, due: map[string]time.Time{}, busy: map[string]bool{}}
}

// hold keeps the record of a task until release: somebody will read how it
// ended.
func (o *oneOffs) hold(id string) (release func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held[id]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.held[id]--; o.held[id] == 0 {
			delete(o.held, id)
			o.a.loop.wake()
		}
	}
}

// alone says that nobody but the caller looks at a task.
func (o *oneOffs) alone(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held[id] == 1
}

// wait gives a task that was made its time to be started.
func (o *oneOffs) wait(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.due[id] = time.Now().Add(api.StartPatience)
}

// begin says that the caller may start a task: it waits for that, and nobody
// else does.
func (o *oneOffs) begin(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, waits := o.due[id]
	delete(o.due, id)
	return waits
}

// sync takes away what has ended. It returns when to look again.
func (o *oneOffs) sync(ctx context.Context, wg *sync.WaitGroup, v view) (next time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for _, t := range v.tasks {
		if t.OneOff == nil || o.held[t.ID] > 0 || o.busy[t.ID] {
			continue
		}
		due := o.due[t.ID]
		switch {
		case t.State == store.StatePending && due.After(now):
			if next.IsZero() || due.Before(next) {
				next = due
			}
			continue
		case t.State == store.StatePending: // nobody started it
		case t.State == store.StateExited && t.OneOff.Remove:
		case t.State == store.StateExited && t.OneOff.Job == "":
			o.a.ports.release(ofTask + t.Name())
			continue
		default:
			continue
		}
		o.busy[t.ID] = true
		delete(o.due, t.ID)
		o.a.spawn(wg, func() {
			err := o.a.removeOneOff(ctx, t)
			if err != nil && ctx.Err() == nil {
				o.a.log.Error("remove a one-off task", "task", t.Name(), "err", err)
				select { // a pass in between would try again at once
				case <-time.After(retryFirst):
				case <-ctx.Done():
				}
			}
			o.mu.Lock()
			delete(o.busy, t.ID)
			o.mu.Unlock()
			o.a.loop.wake()
		})
	}
	return next
}

// removeOneOff takes away everything of a one-off task: also its anonymous
// volumes, its log and its record. Idempotent; the record goes last.
func (a *Agent) removeOneOff(ctx context.Context, t *store.Task) error {
	if err := a.unmake(ctx, t); err != nil {
		return err
	}
	crash.At("oneoff.unmade")
	for _, name := range t.Anonymous {
		if err := a.volumes.Remove(name); err != nil {
			return fmt.Errorf("remove %s: %w", t.Name(), err)
		}
	}
	a.ships.drained(ctx, t.ID)
	if err := a.removeLog(t.ID); err != nil {
		return fmt.Errorf("remove the log of %s: %w", t.Name(), err)
	}
	a.ports.release(ofTask + t.Name())
	crash.At("oneoff.emptied")
	err := a.w.commit(func(c *change) error {
		if c.w.tasks[t.ID] != nil {
			c.dropTask(t.ID)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", t.Name(), err)
	}
	crash.At("oneoff.removed")
	a.events.task(t, "destroy", "")
	if err := a.traffic.sync(ctx); err != nil && ctx.Err() == nil { // its name
		a.log.Error("bring rules and names up to date", "err", err)
	}
	return nil
}

// startInteractive attaches the client to a one-off task, starts it, and ends
// with its exit code.
func (a *Agent) startInteractive(w http.ResponseWriter, r *http.Request) {
	t, err := a.findTask(r.PathValue("task"))
	if err == nil && (t.OneOff == nil || t.State != store.StatePending) {
		err = conflict("", "%s does not wait to be started", t.Name())
	}
	if err != nil {
		refuse(w, err)
		return
	}
	defer a.oneOffs.hold(t.ID)()
	a.upgrade(w, r, func(ctx context.Context, c *websocket.Conn) (int, error) {
		var failed error
		err := a.attach(ctx, c, t, func() { _, failed = a.startOneOff(ctx, t) })
		if failed != nil {
			return 0, failed
		}
		if err != nil {
			return 0, err
		}
		end, err := a.awaitEnd(ctx, t)
		if err != nil {
			return 0, err
		}
		if end.OneOff.Remove && a.oneOffs.alone(t.ID) {
			// Who reads the code finds it gone; what fails now is tried again.
			if err := a.removeOneOff(context.WithoutCancel(ctx), end); err != nil {
				a.log.Error("remove a one-off task", "task", t.Name(), "err", err)
			}
		}
		return end.ExitCode, nil
	})
}

// holdOneOff takes the host ports of a one-off task and gives its ports as they
// are then: each with one number.
func (a *Agent) holdOneOff(t *store.Task) ([]spec.Port, error) {
	if len(t.Spec.Ports) == 0 {
		return nil, nil
	}
	svc := t.Spec
	svc.Replicas = 1
	st := &spec.Stack{Services: map[string]spec.Service{t.Service: svc}}
	chosen, err := a.ports.hold(ofTask+t.Name(), st, nil)
	if err != nil {
		return nil, err
	}
	out := make([]spec.Port, len(svc.Ports))
	for i, p := range svc.Ports {
		if n := chosen[portKey(t.Service, i)]; n != 0 {
			p.Published, p.PublishedEnd = n, 0
		}
		out[i] = p
	}
	return out, nil
}

// oneOffPorts adds what one-off tasks publish to the rules: each its own.
func (a *Agent) oneOffPorts(v view, r *overlaynet.Rules, snap *dataplane.Snapshot) {
	for _, t := range v.tasks {
		if t.OneOff == nil || !t.Live() || !publishes(&t.Spec) {
			continue
		}
		var targets []overlaynet.Backend
		for _, e := range t.Endpoints {
			if e.Default {
				targets = append(targets, overlaynet.Backend{TaskID: t.ID, Addr4: e.IPv4, Addr6: e.IPv6})
			}
		}
		if len(targets) == 0 {
			continue
		}
		for i, p := range t.Spec.Ports {
			host, _ := netip.ParseAddr(p.HostIP)
			r.Ports = append(r.Ports, overlaynet.PublishedPort{
				ID: fmt.Sprintf("%s/%d", t.ID, i), HostIP: host, Port: p.Published, Protocol: p.Protocol, Target: p.Target, Backends: targets,
			})
			if p.Protocol == "tcp" && (!host.IsValid() || host.IsUnspecified() || host == netip.IPv6Loopback()) {
				snap.Loopback = append(snap.Loopback, loopback(p.Published, p, targets))
			}
		}
	}
}
