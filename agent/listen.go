package agent

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/store"
)

// A task without a healthcheck or x-readiness is ready when it listens:
// published any sooner, its first clients would be refused. listenPatience is
// how long that is waited for, as a port that nobody listens on is the file's
// affair; unless a task of the service before it did listen: then one that does
// not is broken, and is never ready.
const (
	listenEvery    = 25 * time.Millisecond
	listenPatience = 10 * time.Second
	listenRarely   = 500 * time.Millisecond // when patience is over
)

// listeners watches tasks that publish TCP ports and have no test until they
// listen on one of them.
type listeners struct {
	a *Agent
	// look looks into the network namespace of a process. What can't be looked
	// at is not known, and nothing better will be known later.
	look func(pid int, ports []uint16) (listens, known bool)

	mu sync.Mutex
	ok map[string]bool // by task; false: watched, not yet
}

func newListeners(a *Agent) *listeners { return &listeners{a: a, look: look, ok: map[string]bool{}} }

// targets are the TCP ports that a task should listen on in a network of its
// own.
func targets(t *store.Task) []uint16 {
	if t.Health != "" || t.Readiness != "" || len(t.Endpoints) == 0 {
		return nil
	}
	var out []uint16
	for _, p := range t.Spec.Ports {
		if p.Protocol == "tcp" {
			out = append(out, p.Target)
		}
	}
	return out
}

// ready says whether t listens, or need not. One that was ready once, perhaps
// for an agent that died, has shown it.
func (l *listeners) ready(t *store.Task) bool {
	if t.Rotation || t.Published || t.Listened || !t.ReadyAt.IsZero() || !t.Withdrawn.IsZero() || len(targets(t)) == 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ok[t.ID]
}

// reason says why t is not ready.
func (l *listeners) reason(t *store.Task) string {
	var ports []string
	for _, port := range targets(t) {
		ports = append(ports, strconv.Itoa(int(port)))
	}
	return "it does not listen on port " + strings.Join(ports, " or ") + " yet"
}

// expected says that t must listen: an earlier task of its service did, and
// none of its own version was ready without.
func expected(v view, t *store.Task) bool {
	before := false
	for _, o := range v.tasks {
		if o.ID == t.ID || o.OneOff != nil || o.Stack != t.Stack || o.Service != t.Service || !o.Created.Before(t.Created) {
			continue
		}
		if o.Key == t.Key && !o.Listened && !o.ReadyAt.IsZero() {
			return false
		}
		before = before || o.Listened
	}
	return before
}

// sync begins to watch the tasks that run and have not shown it yet.
func (l *listeners) sync(ctx context.Context, wg *sync.WaitGroup, v view) {
	running := map[string]bool{}
	for _, t := range v.tasks {
		if t.State != store.StateRunning {
			continue
		}
		running[t.ID] = true
		if l.ready(t) {
			continue
		}
		l.mu.Lock()
		_, watched := l.ok[t.ID]
		if !watched {
			l.ok[t.ID] = false
		}
		l.mu.Unlock()
		if !watched {
			patient := expected(v, t)
			l.a.spawn(wg, func() { l.watch(ctx, t, patient) })
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.ok {
		if !running[id] {
			delete(l.ok, id)
		}
	}
}

// watch waits until t listens or ends, or has had its time; patient gives it
// all the time there is.
func (l *listeners) watch(ctx context.Context, t *store.Task, patient bool) {
	tick := time.NewTicker(listenEvery)
	defer tick.Stop()
	end := time.Now().Add(listenPatience)
	rarely := false
	for {
		listens, known := l.listens(ctx, t)
		if listens {
			l.a.w.note(t.ID, func(t *store.Task) { t.Listened = true })
		}
		if listens || !known || !patient && !time.Now().Before(end) {
			break
		}
		if !rarely && !time.Now().Before(end) {
			rarely = true
			tick.Reset(listenRarely)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	l.mu.Lock()
	if _, watched := l.ok[t.ID]; watched {
		l.ok[t.ID] = true
	}
	l.mu.Unlock()
	l.a.loop.wake()
}

func (l *listeners) listens(ctx context.Context, t *store.Task) (listens, known bool) {
	st, err := l.a.containers.Status(ctx, t.ID)
	if err != nil || st.Pid == 0 {
		return false, false
	}
	return l.look(st.Pid, targets(t))
}

func look(pid int, ports []uint16) (listens, known bool) {
	for _, table := range []string{"tcp", "tcp6"} {
		found, err := listening(fmt.Sprintf("/proc/%d/net/%s", pid, table), ports)
		switch {
		case found:
			return true, true
		case err != nil && table == "tcp":
			return false, false
		}
	}
	return false, true
}

// tcpListen is the state of a listening socket in /proc/net/tcp.
const tcpListen = "0A"

// listening says whether a table of sockets has one that listens on a port of
// the list (proc(5), /proc/net/tcp).
func listening(path string, ports []uint16) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != tcpListen {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err == nil && slices.Contains(ports, uint16(port)) {
			return true, nil
		}
	}
	return false, lines.Err()
}
