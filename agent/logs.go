package agent

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/api"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

// logs sends the lines of a stack's tasks in order of time. Past lines are
// merged exactly; when it follows, lines of different tasks are in order as
// far as they arrive within mergeWindow of each other. Tasks that begin while
// it follows join in.
func (a *Agent) logs(ctx context.Context, stack string, q api.LogQuery, send func(api.LogEntry) error) error {
	since, err := parseTime(q.Since)
	if err != nil {
		return err
	}
	until, err := parseTime(q.Until)
	if err != nil {
		return err
	}
	begin := time.Now()
	o := runtime.LogOptions{Since: since, Until: until, Tail: q.Tail}
	tasks := a.loggedTasks(stack, q)
	if err := unlogged(tasks); err != nil {
		return err
	}
	if err := a.pastLogs(ctx, tasks, o, begin, send); err != nil || !q.Follow {
		return err
	}
	return a.followLogs(ctx, stack, q, begin, until, send)
}

// loggedTasks are the tasks whose logs were asked for, removed ones included.
func (a *Agent) loggedTasks(stack string, q api.LogQuery) []*store.Task {
	var out []*store.Task
	for _, t := range a.w.view().tasks {
		if t.Stack == stack && (len(q.Services) == 0 || slices.Contains(q.Services, t.Service)) &&
			(q.Index == 0 || q.Index == t.Slot) && (q.Revision == 0 || q.Revision == t.Revision) {
			out = append(out, t)
		}
	}
	return out
}

// unlogged says of services none of which keeps a log that they don't.
func unlogged(tasks []*store.Task) error {
	for _, t := range tasks {
		if t.Spec.Logging.Driver != spec.LogNone {
			return nil
		}
	}
	if len(tasks) == 0 {
		return nil
	}
	return &api.Error{
		Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid,
		Detail: fmt.Sprintf("service %s keeps no log: its logging driver is none", tasks[0].Service),
		Hint:   "write another logging.driver, such as local",
	}
}

func entry(t *store.Task, l runtime.LogLine) api.LogEntry {
	return api.LogEntry{
		Time: l.Time, Service: t.Service, Task: t.ID, Name: t.Name(), Slot: t.Slot, Revision: t.Revision,
		Stream: l.Stream, Text: l.Text,
	}
}

// pastLogs merges what was written before begin with a heap over one reader a
// task, so that no log is held in memory whole.
func (a *Agent) pastLogs(ctx context.Context, tasks []*store.Task, o runtime.LogOptions, begin time.Time, send func(api.LogEntry) error) error {
	if o.Tail == 0 {
		return nil
	}
	if o.Until.IsZero() || o.Until.After(begin) {
		o.Until = begin
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var h logHeap
	for _, t := range tasks {
		src := &logSource{lines: make(chan api.LogEntry, 256), err: make(chan error, 1)}
		wg.Go(func() {
			defer close(src.lines)
			src.err <- a.readLog(ctx, t, o, src.lines)
		})
		if ok, err := src.next(); err != nil {
			return err
		} else if ok {
			h = append(h, src)
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		src := h[0]
		if err := send(src.head); err != nil {
			return err
		}
		ok, err := src.next()
		if err != nil {
			return err
		}
		if ok {
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
	}
	return nil
}

// readLog sends the lines of one task, parts joined. A log that is gone is an
// empty one.
func (a *Agent) readLog(ctx context.Context, t *store.Task, o runtime.LogOptions, lines chan<- api.LogEntry) error {
	each, flush := runtime.JoinPartial(joinMost, func(l runtime.LogLine) error {
		select {
		case lines <- entry(t, l):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	err := a.containers.Logs(ctx, t.ID, o, each)
	if err == nil {
		err = flush() // what it wrote last may have no newline
	}
	if errors.Is(err, runtime.ErrNotFound) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// shownLine bounds the last line of a failed task, in bytes.
const shownLine = 200

// lastLine is the last line that a task logged; "" if there is none.
func (a *Agent) lastLine(ctx context.Context, id string) string {
	text := ""
	err := a.containers.Logs(ctx, id, runtime.LogOptions{Tail: 1}, func(l runtime.LogLine) error {
		text = strings.ToValidUTF8(a.cfg.Redact.Text(strings.TrimSpace(l.Text)), "?")
		return nil
	})
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		a.log.Warn("read the last line of a log", "task", id, "err", err)
	}
	if len(text) > shownLine {
		text = strings.ToValidUTF8(text[:shownLine], "") + "…"
	}
	return text
}

// joinMost bounds a line that never ends.
const joinMost = 1 << 20

type logSource struct {
	lines chan api.LogEntry
	err   chan error
	head  api.LogEntry
}

// next moves to the next line; false at the end.
func (s *logSource) next() (bool, error) {
	e, ok := <-s.lines
	if !ok {
		return false, <-s.err
	}
	s.head = e
	return true, nil
}

type logHeap []*logSource

func (h logHeap) Len() int           { return len(h) }
func (h logHeap) Less(i, j int) bool { return h[i].head.Time.Before(h[j].head.Time) }
func (h logHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *logHeap) Push(x any)        { *h = append(*h, x.(*logSource)) }
func (h *logHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// mergeWindow is how long followed lines are held to be put in order.
const mergeWindow = 50 * time.Millisecond

// follower reads the logs of tasks that run and of those that will.
type follower struct {
	a         *Agent
	stack     string
	q         api.LogQuery
	options   runtime.LogOptions
	lines     chan api.LogEntry
	following map[string]bool
	wg        sync.WaitGroup
}

// join starts to read every task that is not read yet.
func (f *follower) join(ctx context.Context) {
	for _, t := range f.a.loggedTasks(f.stack, f.q) {
		ended := t.State == store.StateRemoved || t.State == store.StateExited && t.Finished.Before(f.options.Since)
		if f.following[t.ID] || ended || t.State == store.StatePending {
			continue
		}
		f.following[t.ID] = true
		f.wg.Go(func() {
			if err := f.a.readLog(ctx, t, f.options, f.lines); err != nil && ctx.Err() == nil {
				f.a.log.Warn("follow a log", "task", t.Name(), "err", err)
			}
		})
	}
}

// followLogs sends lines as they come. It ends at until, with the stack, or
// with ctx.
func (a *Agent) followLogs(ctx context.Context, stack string, q api.LogQuery, begin, until time.Time, send func(api.LogEntry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{
		a: a, stack: stack, q: q, lines: make(chan api.LogEntry, 1024), following: map[string]bool{},
		options: runtime.LogOptions{Since: begin, Until: until, Tail: -1, Follow: true},
	}
	defer f.wg.Wait()
	defer cancel()
	var end <-chan time.Time
	if !until.IsZero() {
		end = time.After(time.Until(until))
	}
	var held []api.LogEntry
	var due <-chan time.Time
	_, changed := a.loop.plan(stack)
	f.join(ctx)
	for {
		select {
		case e := <-f.lines:
			held = append(held, e)
			if due == nil {
				due = time.After(mergeWindow)
			}
		case <-due:
			if err := sendSorted(held, send); err != nil {
				return err
			}
			held, due = held[:0], nil
		case <-changed:
			_, changed = a.loop.plan(stack)
			f.join(ctx)
			if s, _ := a.w.stack(stack); s == nil && len(held) == 0 {
				return nil // the stack is gone: no more lines will come
			}
		case <-end:
			return sendSorted(held, send)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func sendSorted(held []api.LogEntry, send func(api.LogEntry) error) error {
	slices.SortStableFunc(held, func(x, y api.LogEntry) int { return x.Time.Compare(y.Time) })
	for _, e := range held {
		if err := send(e); err != nil {
			return err
		}
	}
	return nil
}
