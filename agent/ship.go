package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/google/renameio/v2"

	"berth/runtime"
	"berth/spec"
	"berth/store"
)

// shippers send what containers log on to syslog or journald. Each follows the
// log file of its task, so a container never waits for the other side, and an
// agent that starts goes on where the last one was: the position is kept in
// Root and written once a second, so that a killed agent's successor may repeat
// the lines of the last second and leaves none out.
type shippers struct {
	a    *Agent
	mu   sync.Mutex
	busy map[string]chan struct{} // by task; closed at its end
}

func newShippers(a *Agent) *shippers { return &shippers{a: a, busy: map[string]chan struct{}{}} }

// sink is where lines go.
type sink interface {
	// send delivers one line. After an error the connection is made anew.
	send(ctx context.Context, l runtime.LogLine) error
	close()
}

// place is how far a task's log has been sent: Lines lines that have the time
// At are gone, and all before.
type place struct {
	At    time.Time `json:"at"`
	Lines int       `json:"lines"`
	Done  bool      `json:"done,omitempty"` // the log has ended
}

func (s *shippers) path(id string) string { return filepath.Join(s.a.cfg.Root, "shipped", id) }

func (s *shippers) read(id string) (p place) {
	data, err := os.ReadFile(s.path(id))
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.a.log.Warn("read how far a log was sent; it is sent from its beginning", "task", id, "err", err)
		return place{}
	}
	return p
}

func (s *shippers) write(id string, p place) {
	data, err := json.Marshal(p)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.path(id)), 0o700)
	}
	if err == nil {
		err = renameio.WriteFile(s.path(id), data, 0o600)
	}
	if err != nil {
		s.a.log.Error("note how far a log was sent", "task", id, "err", err)
	}
}

// removeLog removes the log of a task that is gone, and what was noted of it.
func (a *Agent) removeLog(id string) error {
	if err := os.Remove(a.ships.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	a.ships.mu.Lock()
	delete(a.ships.busy, id)
	a.ships.mu.Unlock()
	return a.containers.RemoveLog(id)
}

// sync starts a shipper for each task that has something to be sent.
func (s *shippers) sync(ctx context.Context, wg *sync.WaitGroup, v view) {
	for _, t := range v.tasks {
		if !t.Spec.Logging.Shipped() || t.State == store.StatePending {
			continue
		}
		s.mu.Lock()
		_, busy := s.busy[t.ID]
		if !busy {
			s.busy[t.ID] = make(chan struct{})
		}
		ended := s.busy[t.ID]
		s.mu.Unlock()
		if busy {
			continue
		}
		// It stays busy once it has ended: the log of a task ends once.
		s.a.spawn(wg, func() {
			defer close(ended)
			s.ship(ctx, t)
		})
	}
}

// drained waits until the log of a task that has ended is sent, for a while.
func (s *shippers) drained(ctx context.Context, ids ...string) {
	patience := time.After(drainLogs)
	for _, id := range ids {
		s.mu.Lock()
		ended, ok := s.busy[id]
		s.mu.Unlock()
		if !ok {
			continue
		}
		select {
		case <-ended:
		case <-patience:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Times of shippers.
const (
	drainLogs  = 2 * time.Second
	notePlace  = time.Second
	shipFirst  = 100 * time.Millisecond
	shipMost   = 10 * time.Second
	shipBuffer = 1 << 20 // max-buffer-size where the file is silent, bytes
)

// shipment is one log on its way.
type shipment struct {
	s     *shippers
	t     *store.Task
	open  func() (sink, error)
	lines *lineQueue
}

func (s *shippers) ship(ctx context.Context, t *store.Task) {
	at := s.read(t.ID)
	if at.Done {
		return
	}
	size, drop := int64(shipBuffer), t.Spec.Logging.Options["mode"] == "non-blocking"
	if v := t.Spec.Logging.Options["max-buffer-size"]; v != "" {
		if n, err := units.RAMInBytes(v); err == nil && n > 0 {
			size = n
		}
	}
	sh := &shipment{s: s, t: t, open: s.opener(t), lines: newLineQueue(int(size), drop)}
	var wg sync.WaitGroup
	wg.Go(func() {
		err := sh.follow(ctx, at)
		if err != nil && ctx.Err() == nil {
			s.a.log.Warn("read a log that is to be sent", "task", t.Name(), "err", err)
		}
		sh.lines.end()
	})
	sh.deliver(ctx, at)
	sh.lines.end() // or follow waits for room
	wg.Wait()
}

// follow reads the log from at on into the queue.
func (sh *shipment) follow(ctx context.Context, at place) error {
	skip := at.Lines
	each, flush := runtime.JoinPartial(joinMost, func(l runtime.LogLine) error {
		if skip > 0 && l.Time.Equal(at.At) {
			skip--
			return nil
		}
		return sh.lines.put(ctx, l)
	})
	err := sh.s.a.containers.Logs(ctx, sh.t.ID, runtime.LogOptions{Since: at.At, Tail: -1, Follow: true}, each)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = flush()
	}
	return err
}

// deliver sends what is in the queue, in order, each line until it is taken.
func (sh *shipment) deliver(ctx context.Context, at place) {
	var to sink
	defer func() {
		if to != nil {
			to.close()
		}
	}()
	noted := time.Now()
	for {
		l, dropped, ok := sh.lines.take(ctx)
		if dropped > 0 {
			sh.s.a.events.task(sh.t, "warning", fmt.Sprintf("%d lines of its log were not sent: the buffer was full", dropped))
		}
		if !ok {
			break
		}
		if to = sh.insist(ctx, to, l); ctx.Err() != nil {
			break
		}
		if l.Time.Equal(at.At) {
			at.Lines++
		} else {
			at = place{At: l.Time, Lines: 1}
		}
		if now := time.Now(); now.Sub(noted) >= notePlace || sh.lines.empty() && now.Sub(noted) >= notePlace/10 {
			sh.s.write(sh.t.ID, at)
			noted = now
		}
	}
	at.Done = ctx.Err() == nil
	sh.s.write(sh.t.ID, at)
}

// insist sends l until it is taken or ctx ends. What keeps it from being so is
// said once.
func (sh *shipment) insist(ctx context.Context, to sink, l runtime.LogLine) sink {
	said := false
	for wait := shipFirst; ; wait = min(2*wait, shipMost) {
		var err error
		if to == nil {
			to, err = sh.open()
		}
		if err == nil {
			if err = to.send(ctx, l); err == nil {
				return to
			}
			to.close()
		}
		to = nil
		if ctx.Err() != nil {
			return nil
		}
		if !said {
			said = true
			text := fmt.Sprintf("its log can't be sent to %s: %v; `berth logs` has it", sh.t.Spec.Logging.Driver, err)
			sh.s.a.events.task(sh.t, "warning", text)
			sh.s.a.log.Warn("send a log on", "task", sh.t.Name(), "err", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// opener gives what connects to where the lines of t go.
func (s *shippers) opener(t *store.Task) func() (sink, error) {
	tag, err := s.tag(t)
	return func() (sink, error) {
		if err != nil {
			return nil, err
		}
		if t.Spec.Logging.Driver == spec.LogJournald {
			return openJournal(s.a.cfg.Journal, s.journalFields(t, tag))
		}
		return openSyslog(t.Spec.Logging.Options, tag)
	}
}

// tag renders the tag of a task's lines.
func (s *shippers) tag(t *store.Task) (string, error) {
	imageID := t.Digest
	if img, err := s.a.images.Resolve(t.Digest); err == nil {
		imageID = img.Digest
	}
	text := or(t.Spec.Logging.Options["tag"], spec.DefaultLogTag)
	return spec.LogTag{
		ID: t.ID, FullID: t.ID, Name: t.Name(), ImageID: imageID, ImageFullID: imageID, ImageName: t.Image,
		DaemonName: "berth", Stack: t.Stack, Service: t.Service, Slot: fmt.Sprint(t.Slot),
	}.Render(text)
}

// lineQueue holds lines between the file and the sink, up to a number of bytes.
type lineQueue struct {
	size int
	drop bool // what finds no room, instead of waiting

	mu      sync.Mutex
	lines   []runtime.LogLine
	bytes   int
	dropped int
	over    bool
	changed *signal
}

func newLineQueue(size int, drop bool) *lineQueue {
	return &lineQueue{size: size, drop: drop, changed: newSignal()}
}

// put adds a line. Without drop it waits for room; one line always has some.
func (q *lineQueue) put(ctx context.Context, l runtime.LogLine) error {
	for {
		q.mu.Lock()
		switch {
		case q.over:
			q.mu.Unlock()
			return context.Canceled
		case q.bytes+len(l.Text) <= q.size || len(q.lines) == 0:
			q.lines, q.bytes = append(q.lines, l), q.bytes+len(l.Text)
			q.changed.broadcast()
			q.mu.Unlock()
			return nil
		case q.drop:
			q.dropped++
			q.mu.Unlock()
			return nil
		}
		changed := q.changed.wait()
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take gives the oldest line, and how many were dropped since; not ok: there
// will be no more.
func (q *lineQueue) take(ctx context.Context) (l runtime.LogLine, dropped int, ok bool) {
	for {
		q.mu.Lock()
		if len(q.lines) > 0 || q.over {
			dropped, q.dropped = q.dropped, 0
			if ok = len(q.lines) > 0; ok {
				l, q.lines = q.lines[0], q.lines[1:]
				q.bytes -= len(l.Text)
				q.changed.broadcast()
			}
			q.mu.Unlock()
			return l, dropped, ok
		}
		changed := q.changed.wait()
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return l, 0, false
		}
	}
}

func (q *lineQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lines) == 0
}

func (q *lineQueue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.over {
		q.over = true
		q.changed.broadcast()
	}
}
