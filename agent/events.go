package agent

import (
	"maps"
	"slices"
	"sync"
	"time"

	"berth/api"
	"berth/store"
)

type apiEvent = api.Event

// keptEvents is how many events are remembered for `events --since`.
const keptEvents = 4096

// events remembers what happened and tells whoever listens. A listener that
// falls further behind than its buffer loses events: nobody waits for it.
type events struct {
	mu   sync.Mutex
	kept []api.Event
	subs map[chan api.Event]bool
}

func newEvents() *events { return &events{subs: map[chan api.Event]bool{}} }

func (e *events) emit(ev api.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	e.kept = append(e.kept, ev)
	if len(e.kept) > keptEvents {
		e.kept = slices.Clone(e.kept[len(e.kept)-keptEvents:])
	}
	for ch := range maps.Keys(e.subs) {
		select {
		case ch <- ev:
		default: // too slow
		}
	}
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

// subscribe returns the events since a time and those to come.
func (e *events) subscribe(since time.Time) (past []api.Event, live <-chan api.Event, cancel func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.kept {
		if !since.IsZero() && !ev.Time.Before(since) {
			past = append(past, ev)
		}
	}
	ch := make(chan api.Event, 256)
	e.subs[ch] = true
	return past, ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subs, ch)
	}
}
