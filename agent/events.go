package agent

import (
	"slices"
	"sync"
	"time"

	"berth/api"
	"berth/store"
)

type apiEvent = api.Event

// keptEvents is how many events are remembered for `events --since`.
const keptEvents = 4096

// events remembers what happened, for whoever reads. A reader that does not
// keep up loses events and is told how many.
type events struct {
	mu      sync.Mutex
	kept    []api.Event
	first   int // the number of kept[0]
	changed *signal
}

func newEvents() *events { return &events{changed: newSignal()} }

func (e *events) emit(ev api.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	e.kept = append(e.kept, ev)
	if n := len(e.kept) - keptEvents; n >= keptEvents/4 { // seldom, as it copies
		e.kept, e.first = slices.Clone(e.kept[n:]), e.first+n
	}
	e.changed.broadcast()
}

// task reports something about a task.
func (e *events) task(t *store.Task, action, message string) {
	if t == nil {
		return
	}
	e.emit(api.Event{
		Type: "task", Action: action, Stack: t.Stack, Service: t.Service, Task: t.ID, Name: t.Name(),
		Revision: t.Revision, Message: message, Attrs: map[string]string{"image": t.Image},
	})
}

// eventReader reads events in order.
type eventReader struct {
	e    *events
	next int // the number of the next event
}

// read begins with the first event since a time, or, if that is zero, with
// what is still to come.
func (e *events) read(since time.Time) *eventReader {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := len(e.kept)
	if !since.IsZero() {
		i = slices.IndexFunc(e.kept, func(ev api.Event) bool { return !ev.Time.Before(since) })
		if i < 0 {
			i = len(e.kept)
		}
	}
	return &eventReader{e: e, next: e.first + i}
}

// take gives the events that are there, how many were lost before them, and a
// channel that closes when there are more.
func (r *eventReader) take() (list []api.Event, lost int, more <-chan struct{}) {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	lost = max(0, r.e.first-r.next)
	list = slices.Clone(r.e.kept[max(0, r.next-r.e.first):])
	r.next = r.e.first + len(r.e.kept)
	return list, lost, r.e.changed.wait()
}
