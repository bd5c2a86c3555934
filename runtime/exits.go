package runtime

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// exitQueue is a channel that never makes its writer wait.
type exitQueue struct {
	out  chan Status
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	waiting []Status
	more    chan struct{} // holds one token when waiting is not empty
}

func newExitQueue() *exitQueue {
	q := &exitQueue{
		out: make(chan Status), stop: make(chan struct{}), done: make(chan struct{}),
		more: make(chan struct{}, 1),
	}
	go q.run()
	return q
}

func (q *exitQueue) put(s Status) {
	q.mu.Lock()
	q.waiting = append(q.waiting, s)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *exitQueue) run() {
	defer close(q.done)
	defer close(q.out)
	for {
		select {
		case <-q.stop:
			return
		case <-q.more:
		}
		q.mu.Lock()
		batch := q.waiting
		q.waiting = nil
		q.mu.Unlock()
		for _, s := range batch {
			select {
			case q.out <- s:
			case <-q.stop:
				return
			}
		}
	}
}

func (q *exitQueue) close() {
	close(q.stop)
	<-q.done
}

// follow watches the processes of a task that was created or found.
func (r *Runtime) follow(t *task) {
	init, conmon := t.handles()
	r.watch.follow(t.id, init, false)
	r.watch.follow(t.id, conmon, true)
}

// settle looks whether a container has exited and, the first time, tells it.
// It may be called at any time, for any id, by several goroutines.
func (r *Runtime) settle(id string) {
	if r.closed.Load() {
		return // a timer that was late: the next Open looks
	}
	t := r.find(id)
	if t == nil {
		return
	}
	s, ok := r.exited(t)
	if !ok {
		return
	}
	t.mu.Lock()
	told := t.told
	t.told = true
	t.mu.Unlock()
	if !told {
		r.exits.put(s)
	}
}

// exited reads the facts of an exit together. Where conmon is dead and left no
// exit file, nobody will ever know the code: what still runs is killed (its
// output has no reader any more) and -1 is written in conmon's stead.
func (r *Runtime) exited(t *task) (Status, bool) {
	s := Status{ID: t.id, State: StateExited, StartedAt: t.startedAt()}
	if code, at, ok := r.readExit(t.id); ok {
		s.ExitCode, s.FinishedAt = code, at
		s.OOMKilled = t.oom()
		return s, true
	}
	if t.rec.Boot != r.boot {
		s.ExitCode, s.FinishedAt = -1, bootTime()
		return s, true
	}
	init, conmon := t.handles()
	if !t.isWhole() && init == nil {
		return s, false // still being made, or never was
	}
	if conmon.alive() && (init.alive() || !r.overdue(t)) {
		return s, false
	}
	return r.lost(t, s), true
}

// overdue says whether a dead container's conmon has had its time to write the
// exit file. The first call after the death starts the clock.
func (r *Runtime) overdue(t *task) bool {
	mark := inBundle(t.bundle, "dead")
	fi, err := os.Stat(mark)
	if err != nil {
		t.note(mark, "")
		time.AfterFunc(exitGrace, func() { r.settle(t.id) })
		return false
	}
	return time.Since(fi.ModTime()) >= exitGrace-time.Second
}

func (r *Runtime) lost(t *task, s Status) Status {
	init, conmon := t.handles()
	_ = init.signal(sigKill)
	r.cg.kill(r.cgroup(t.id))
	_ = conmon.signal(sigKill)
	// Between the look at conmon and now the file may have come after all.
	if code, at, ok := r.readExit(t.id); ok {
		s.ExitCode, s.FinishedAt = code, at
	} else {
		s.ExitCode, s.FinishedAt = -1, time.Now()
		t.note(r.exitFile(t.id), "-1")
	}
	s.OOMKilled = t.oom()
	return s
}

func (r *Runtime) readExit(id string) (code int, at time.Time, ok bool) {
	path := r.exitFile(id)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, time.Time{}, false
	}
	fi, err := os.Stat(path)
	if err != nil {
		return 0, time.Time{}, false
	}
	code, err = strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		code = -1
	}
	return code, fi.ModTime(), true
}

// oom: conmon leaves a file of that name when the kernel killed for memory.
func (t *task) oom() bool {
	_, err := os.Stat(inBundle(t.bundle, "oom"))
	return err == nil
}

func bootTime() time.Time {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Now()
	}
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return time.Now()
	}
	up, err := strconv.ParseFloat(f[0], 64)
	if err != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(up * float64(time.Second)))
}
