package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"berth/api"
)

// begin is when the stories of these tests begin.
var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// story feeds news to a live renderer that nobody draws, and gives its block
// as it looks seconds after the last of them.
func story(t *testing.T, cols, rows int, later time.Duration, news ...api.Progress) string {
	t.Helper()
	var board board
	for _, n := range news {
		switch {
		case n.Applied != nil:
			board.title = title(*n.Applied)
		case n.Service != nil:
			board.service(*n.Service, begin)
		case n.Pull != nil:
			board.pull(*n.Pull, begin)
		}
	}
	p := &liveProgress{board: board}
	return strings.Join(p.lines(begin.Add(later), cols, rows), "\n") + "\n"
}

func service(name, phase string, replicas, updated, ready, old int, change, reason string, elapsed time.Duration) api.Progress {
	return api.Progress{Service: &api.ServiceStatus{
		Service: name, Phase: phase, Replicas: replicas, Updated: updated, Ready: ready, Old: old, Change: change, Reason: reason, Elapsed: elapsed,
	}}
}

func layer(ref, id, status string, current, total int64) api.Progress {
	return api.Progress{Pull: &api.PullProgress{Reference: ref, Layer: id, Status: status, Current: current, Total: total}}
}

func compare(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestLive_Rollout_EachServiceSaysWhereItIs(t *testing.T) {
	got := story(t, 80, 24, 4*time.Second,
		api.Progress{Applied: &api.Applied{Stack: "shop", Revision: 8, Changed: true}},
		service("db", api.PhaseReady, 1, 1, 1, 0, "replaced", "", 1900*time.Millisecond),
		service("web", api.PhaseStarting, 3, 1, 3, 2, "replaced", "web-3: draining, 4 connections", 2*time.Second),
		service("api", api.PhaseStarting, 2, 0, 0, 0, "created", "api-1 is being created", 0),
		service("worker", api.PhaseWaiting, 1, 0, 0, 0, "created", "waits for db (healthy)", 0),
		service("cache", api.PhaseReady, 1, 1, 1, 0, "unchanged", "", time.Second),
		service("seed", api.PhaseCompleted, 1, 1, 0, 0, "created", "", 12400*time.Millisecond),
		service("bad", api.PhaseFailed, 1, 1, 0, 0, "created", "exited 3: \"no\x1b[2J\"", 65*time.Second),
		service("old", api.PhaseRemoved, 0, 0, 0, 0, "removed", "stopping", 0),
		service("idle", api.PhaseStopped, 0, 0, 0, 0, "", "stopped in 2 s", 0),
	)
	compare(t, got, `shop: revision 8
  db      ✓ replaced in 1.9 s
  web     1 of 3 new, 3 ready, 2 old  web-3: draining, 4 connections  6 s
  api     0 of 2 ready                api-1 is being created
  worker  waits for db (healthy)
  cache   ✓ unchanged
  seed    ✓ completed in 12 s
  bad     ✗ failed: exited 3: "no\x1b[2J" in 1 min 5 s
  old     removed
  idle    stopped in 2 s
`)
}

func TestLive_ReadyButStillDraining_IsNotSettled(t *testing.T) {
	got := story(t, 80, 24, 0, service("web", api.PhaseReady, 2, 2, 2, 1, "replaced", "web-1: draining", time.Second))
	compare(t, got, "  web  2 of 2 new, 2 ready, 1 old  web-1: draining  1 s\n")
}

func TestLive_OldTasksOfAServiceThatGoesOn_AreCounted_AndThoseThatAreWatched(t *testing.T) {
	draining := service("web", api.PhaseStopping, 3, 3, 3, 1, "replaced", "web-3: draining", 0)
	draining.Service.Available = 1
	watched := service("api", api.PhaseReady, 2, 2, 2, 0, "replaced", "is watched for 9 s", 0)
	got := story(t, 80, 24, 0, draining, watched,
		service("off", api.PhaseStopping, 1, 0, 1, 0, "", "off-1 is stopping", 0))
	compare(t, got, `  web  3 of 3 new, 3 ready, 1 available, 1 old  web-3: draining
  api  2 of 2 new, 2 ready                      is watched for 9 s
  off  stopping: off-1 is stopping
`)
}

func TestLive_WhatRunsOut_RunsOutOnTheScreen(t *testing.T) {
	for reason, want := range map[string]string{
		"is watched for 9.5 s":                       "is watched for 6 s",
		"web-1 is ready, and takes traffic in 2.0 s": "web-1 is ready, and takes traffic in 0 s",
		"web-3: draining, 4 connections, 12 s left":  "web-3: draining, 4 connections, 8 s left",
		"web-1 exited 3 after 9.5 s":                 "web-1 exited 3 after 9.5 s",
		"":                                           "",
	} {
		if got := countDown(reason, 3900*time.Millisecond); got != want {
			t.Errorf("%q: %q, want %q", reason, got, want)
		}
	}
	got := story(t, 80, 24, 4*time.Second, service("web", api.PhaseStarting, 3, 3, 3, 1, "replaced", "web-3: draining, 4 connections, 12 s left", 0))
	compare(t, got, "  web  3 of 3 new, 3 ready, 1 old  web-3: draining, 4 connections, 8 s left\n")
}

func TestPlain_AClockInTheReason_IsNoNews(t *testing.T) {
	var out strings.Builder
	p := newPlainProgress(Screen{Writer: &out})
	for _, reason := range []string{
		"web-3: draining, 4 connections, 12 s left", "web-3: draining, 1 connection, 9.8 s left",
		"web-2: draining, 1 connection, 9.8 s left",
	} {
		p.Handle(service("web", api.PhaseStarting, 3, 1, 3, 2, "", reason, time.Second))
	}
	compare(t, out.String(), `web: 1 of 3 new, 3 ready, 2 old: web-3: draining, 4 connections, 12 s left
web: 1 of 3 new, 3 ready, 2 old: web-2: draining, 1 connection, 9.8 s left
`)
}

func TestLive_Pull_BarPerLayer_ThenOneLine(t *testing.T) {
	news := []api.Progress{
		layer("nginx:1.28", "aaaaaaaaaaaa", "exists", 0, 0),
		layer("nginx:1.28", "bbbbbbbbbbbb", "downloading", 10e6, 40e6),
		layer("nginx:1.28", "cccccccccccc", "unpacking", 0, 16e6),
		layer("nginx:1.28", "dddddddddddd", "waiting", 0, 0),
	}
	compare(t, story(t, 80, 24, 0, news...), `  nginx:1.28  pulling, 26MB of 56MB, 1 of 4 layers
    bbbbbbbbbbbb ━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 10MB / 40MB
    cccccccccccc unpacking
`)
	news = append(news,
		layer("nginx:1.28", "bbbbbbbbbbbb", "done", 0, 0),
		layer("nginx:1.28", "cccccccccccc", "done", 0, 0),
		layer("nginx:1.28", "", "done", 0, 0))
	compare(t, story(t, 80, 24, 0, news...), "  nginx:1.28  pulled, 56MB in 0 s\n")
	compare(t, story(t, 80, 24, 0, layer("redis:7", "", "exists", 0, 0)), "  redis:7  is here already\n")
}

func TestLive_NarrowScreen_LinesAreCut(t *testing.T) {
	got := story(t, 30, 24, 0, service("web", api.PhaseWaiting, 1, 0, 0, 0, "", "waits for a service with a long name", 0))
	compare(t, got, "  web  waits for a service wi…\n")
}

func TestLive_LowScreen_WhatMovesIsShownAndTheRestCounted(t *testing.T) {
	news := []api.Progress{{Applied: &api.Applied{Stack: "big", Revision: 1, Changed: true}}}
	for _, name := range []string{"a", "b", "c", "d"} {
		news = append(news, service(name, api.PhaseReady, 1, 1, 1, 0, "created", "", time.Second))
	}
	news = append(news,
		service("e", api.PhaseFailed, 1, 0, 0, 0, "created", "exited 1", 0),
		service("f", api.PhaseStarting, 1, 0, 0, 0, "created", "", 0))
	compare(t, story(t, 80, 5, 0, news...), `big: revision 1
  e  ✗ failed: exited 1
  f  0 of 1 ready
  … and 4 more services
`)
}

func TestLive_OnAScreen_BlockIsDrawnOverAndNotesScrollAway(t *testing.T) {
	var out strings.Builder
	p := &liveProgress{screen: Screen{Writer: &out, Live: true}, stop: make(chan struct{}), done: make(chan struct{})}
	close(p.done)
	p.Handle(api.Progress{Applied: &api.Applied{Stack: "shop", Revision: 1, Changed: true}})
	p.Handle(service("web", api.PhaseStarting, 1, 0, 0, 0, "", "", 0))
	p.draw(begin)
	p.draw(begin.Add(time.Millisecond))
	p.Handle(api.Progress{Warning: "port 80 is blocked"})
	p.Handle(service("web", api.PhaseReady, 1, 1, 1, 0, "created", "", time.Second))
	p.Close()
	p.Close()
	compare(t, out.String(), "shop: revision 1\n  web  0 of 1 ready\n"+
		"\x1b[2A\r\x1b[J"+"warning: port 80 is blocked\nshop: revision 1\n  web  ✓ created in 1 s\n")
}

func TestPlain_SaysAChangeOnce(t *testing.T) {
	var out strings.Builder
	p, err := NewProgress(Screen{Writer: &out}, ProgressAuto)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p.Handle(service("web", api.PhaseStarting, 2, 1, 1, 0, "", "", time.Second))
		p.Handle(layer("nginx", "aaaa", "downloading", 1, 2))
	}
	p.Handle(api.Progress{Applied: &api.Applied{Stack: "shop", Revision: 3}})
	p.Close()
	compare(t, out.String(), "web: 1 of 2 ready\nnginx: pulling\nshop: revision 3, unchanged\n")
}

func TestPlain_ACrashLoop_IsToldOnce_AndEachEnd(t *testing.T) {
	var out strings.Builder
	p := newPlainProgress(Screen{Writer: &out})
	for n := range 4 {
		p.Handle(service("web", api.PhaseStarting, 1, 1, 0, 0, "created", "web-1 is being created", 0))
		p.Handle(service("web", api.PhaseFailing, 1, 1, 0, 0, "created", fmt.Sprintf("web-1 exited 3; restarts in %d s", n), 0))
		p.Handle(service("web", api.PhaseFailing, 1, 1, 0, 0, "created", "web-1 exited 3; restarts now", 0))
		if n%2 == 1 {
			p.Handle(service("web", api.PhaseReady, 1, 1, 1, 0, "created", "", time.Second))
			p.Handle(service("web", api.PhaseFailed, 1, 0, 0, 0, "created", "exited 3", 0))
		}
	}
	compare(t, out.String(), `web: 0 of 1 ready: web-1 is being created
web: ✗ failing: web-1 exited 3; restarts in 0 s
web: ✓ created in 1 s
web: ✗ failed: exited 3
web: ✓ created in 1 s
web: ✗ failed: exited 3
`)
}

func TestNewProgress_UnknownMode_IsRefused(t *testing.T) {
	if _, err := NewProgress(Screen{}, "fancy"); err == nil || !strings.Contains(err.Error(), `"fancy"`) {
		t.Errorf("got %v", err)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 340 * time.Millisecond: "0.3 s", 2 * time.Second: "2 s", 9900 * time.Millisecond: "9.9 s",
		59 * time.Second: "59 s", 125 * time.Second: "2 min 5 s",
	} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %q, want %q", d, got, want)
		}
	}
}
