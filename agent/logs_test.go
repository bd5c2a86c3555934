package agent

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/api"
	"berth/runtime"
)

// readLogs collects what logs sends.
type readLogs struct {
	mu    sync.Mutex
	lines []string
}

func (r *readLogs) add(e api.LogEntry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("%s-%d %s: %s", e.Service, e.Slot, e.Stream, e.Text))
	return nil
}

func (r *readLogs) expect(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := strings.Join(r.lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("lines:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func (b *bench) say(task, text string) {
	b.t.Helper()
	b.containers.write(b.id(task), runtime.LogLine{Text: text})
	b.pass(time.Millisecond)
}

func TestLogs_OfManyTasks_AreMergedByTime(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", replicas(2)), service("db", "db:1")))
		b.say("web/1.1", "one")
		b.say("db/1.1", "two")
		b.say("web/2.1", "three")
		b.say("web/1.1", "four")
		for _, c := range []struct {
			q    api.LogQuery
			want []string
		}{
			{api.LogQuery{Tail: -1}, []string{"web-1 stdout: one", "db-1 stdout: two", "web-2 stdout: three", "web-1 stdout: four"}},
			{api.LogQuery{Tail: -1, Services: []string{"web"}}, []string{"web-1 stdout: one", "web-2 stdout: three", "web-1 stdout: four"}},
			{api.LogQuery{Tail: -1, Services: []string{"web"}, Index: 2}, []string{"web-2 stdout: three"}},
			{api.LogQuery{Tail: 1}, []string{"db-1 stdout: two", "web-2 stdout: three", "web-1 stdout: four"}},
			{api.LogQuery{Tail: 0}, nil},
			{api.LogQuery{Tail: -1, Revision: 7}, nil},
		} {
			var got readLogs
			if err := b.logs(b.t.Context(), "shop", c.q, got.add); err != nil {
				t.Errorf("%+v: %v", c.q, err)
			}
			got.expect(t, c.want...)
		}
	})
}

func TestLogs_PartsOfALine_AreJoined_AndALineWithoutAnEndIsShown(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		id := b.id("web/1.1")
		for _, l := range []runtime.LogLine{
			{Text: "a long ", Partial: true},
			{Text: "on the other stream", Stream: "stderr"},
			{Text: "line"},
			{Text: "password: ", Partial: true},
		} {
			b.containers.write(id, l)
			b.pass(time.Millisecond)
		}
		var got readLogs
		if err := b.logs(b.t.Context(), "shop", api.LogQuery{Tail: -1}, got.add); err != nil {
			t.Fatal(err)
		}
		got.expect(t, "web-1 stderr: on the other stream", "web-1 stdout: a long line", "web-1 stdout: password: ")
	})
}

func TestLogs_Followed_PickUpNewTasks_InOrder_AndEndWithTheStack(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.say("web/1.1", "before")
		var got readLogs
		ended := make(chan error, 1)
		go func() { ended <- b.logs(b.t.Context(), "shop", api.LogQuery{Tail: -1, Follow: true}, got.add) }()
		b.pass(time.Second)
		b.up(stackOf("shop", service("web", "web:1"), service("db", "db:1")))
		b.pass(time.Second)
		// The reader of the second task is behind: the lines are still in order.
		now := time.Now()
		b.containers.write(b.id("web/1.1"), runtime.LogLine{Text: "later", Time: now.Add(2 * time.Millisecond)})
		b.containers.write(b.id("db/1.1"), runtime.LogLine{Text: "sooner", Time: now.Add(time.Millisecond)})
		b.pass(time.Second)
		got.expect(t, "web-1 stdout: before", "db-1 stdout: sooner", "web-1 stdout: later")
		b.takeDown("shop", api.DownRequest{})
		b.pass(time.Second)
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("it follows a stack that is gone")
		}
	})
}

func TestLogs_Followed_EndAtUntil_OrWithTheReader(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		var got readLogs
		until := time.Now().Add(time.Minute).Format(time.RFC3339Nano)
		if err := b.logs(b.t.Context(), "shop", api.LogQuery{Tail: 0, Follow: true, Until: until}, got.add); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(b.t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.logs(ctx, "shop", api.LogQuery{Tail: 0, Follow: true}, got.add) }()
		b.pass(time.Second)
		cancel()
		if err := <-ended; err == nil {
			t.Error("no error for a reader that left")
		}
	})
}

func TestParseTime_Forms(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		in   string
		want time.Time
	}{
		{"", time.Time{}},
		{"2026-01-31T12:00:00Z", time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)},
		{"2026-01-31T12:00:00.5+02:00", time.Date(2026, 1, 31, 10, 0, 0, 5e8, time.UTC)},
		{"2026-01-31", time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local)},
		{"1700000000", time.Unix(1700000000, 0)},
		{"1700000000.25", time.Unix(1700000000, 25e7)},
		{"0", time.Unix(0, 0)},
	} {
		if got, err := parseTime(c.in); err != nil || !got.Equal(c.want) {
			t.Errorf("%q: %s, %v; want %s", c.in, got, err, c.want)
		}
	}
	for _, s := range []string{"10m", "-10m"} {
		if got, err := parseTime(s); err != nil || got.Sub(now.Add(-10*time.Minute)).Abs() > time.Minute {
			t.Errorf("%q: %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"yesterday", "10 m", "2026-13-01"} {
		if got, err := parseTime(s); err == nil || problem(err).Code != api.CodeInvalid {
			t.Errorf("%q: %s, %v", s, got, err)
		}
	}
}

func TestParseTail_Forms(t *testing.T) {
	for in, want := range map[string]int{"all": -1, "0": 0, "100": 100} {
		if got, err := parseTail(in); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"-1", "ten", "99999999999999999999"} {
		if got, err := parseTail(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
}

func TestEvents_Since_AndWhatFollows(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.pass(time.Second)
		middle := time.Now()
		b.action("shop", api.ActionRequest{Action: api.ActionStop})
		read := func(since, until time.Time, follow bool) (out []string) {
			err := b.streamEvents(b.t.Context(), since, until, follow, func(e api.Event) bool { return e.Type == "task" }, func(v any) error {
				out = append(out, v.(api.Event).Action)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return out
		}
		if got := strings.Join(read(time.Unix(0, 1), time.Time{}, false), " "); got != "create start publish withdraw kill die" && got != "create start publish withdraw die" {
			t.Errorf("events %s", got)
		}
		if got := strings.Join(read(time.Unix(0, 1), middle, false), " "); got != "create start publish" {
			t.Errorf("events until the stop: %s", got)
		}
		if got := read(time.Time{}, time.Time{}, false); got != nil {
			t.Errorf("events from now on: %v", got)
		}
		time.AfterFunc(time.Second, func() { b.events.emit(api.Event{Type: "task", Action: "new"}) })
		if got := strings.Join(read(time.Time{}, time.Now().Add(time.Minute), true), " "); got != "new" {
			t.Errorf("followed events: %s", got)
		}
	})
}

func TestEvents_AReaderThatIsTooSlow_IsToldHowManyItLost(t *testing.T) {
	e := newEvents()
	r := e.read(time.Time{})
	for range 3 * keptEvents {
		e.emit(api.Event{})
	}
	list, lost, _ := r.take()
	if lost == 0 || lost+len(list) != 3*keptEvents || len(list) < keptEvents {
		t.Errorf("%d events, %d lost", len(list), lost)
	}
	e.emit(api.Event{Action: "next"})
	if list, lost, _ := r.take(); lost != 0 || len(list) != 1 || list[0].Action != "next" {
		t.Errorf("then %v, %d lost", list, lost)
	}
}
