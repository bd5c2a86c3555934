package agent

import (
	"iter"
	"strings"
	"testing"
	"time"

	"berth/api"
)

// drained reads a stream of progress to its end, and gives that.
func drained(t *testing.T, stream iter.Seq2[api.Progress, error]) (*api.Done, error) {
	t.Helper()
	for p, err := range stream {
		if err != nil || p.Done != nil {
			return p.Done, err
		}
	}
	t.Fatal("the stream ended without an end")
	return nil, nil
}

func TestServer_RolloutsHistoryAndExplain_OverTheClient(t *testing.T) {
	_, c, _ := serve(t)
	ctx := t.Context()
	applied(t, c, stackOf("shop", service("web", "web:1"), service("db", "db:1")))

	done, err := drained(t, c.Scale(ctx, "shop", api.ScaleRequest{Services: map[string]int{"web": 2}, Wait: true, Actor: "alice@tower"}))
	if err != nil || done.Outcome != api.OutcomeDone {
		t.Fatalf("scale: %+v, %v", done, err)
	}
	r, err := c.Rollout(ctx, "shop")
	if err != nil || r.Revision != 2 || len(r.Services) != 2 || r.Services[1].Replicas != 2 {
		t.Errorf("rollout: %+v, %v", r, err)
	}
	list, err := c.History(ctx, "shop")
	if err != nil || len(list) != 2 || list[0].Number != 2 || list[0].Actor != "alice@tower" || list[1].Images["web"].Reference != "web:1" {
		t.Errorf("history: %+v, %v", list, err)
	}
	if _, err := drained(t, c.Rollback(ctx, "shop", api.RollbackRequest{Revision: 1, ExpectRevision: 1})); !api.HasCode(err, api.CodeConflict) {
		t.Errorf("a rollback of what has moved on: %v", err)
	}
	done, err = drained(t, c.Rollback(ctx, "shop", api.RollbackRequest{Revision: 1, Wait: true}))
	if err != nil || done.Outcome != api.OutcomeDone {
		t.Errorf("rollback: %+v, %v", done, err)
	}
	e, err := c.Explain(ctx, "shop", "web")
	if err != nil || e.Summary != "1 of 1 tasks ready" || len(e.Tasks) != 1 || !e.Tasks[0].Well {
		t.Errorf("explain: %+v, %v", e, err)
	}
	if _, err := drained(t, c.ActOnRollout(ctx, "shop", api.RolloutRequest{Action: api.RolloutPromote})); !api.HasCode(err, api.CodeConflict) {
		t.Errorf("promote without a canary: %v", err)
	}
	for name, call := range map[string]func() error{
		"rollout": func() error { _, err := c.Rollout(ctx, "nope"); return err },
		"history": func() error { _, err := c.History(ctx, "nope"); return err },
		"explain": func() error { _, err := c.Explain(ctx, "shop", "nope"); return err },
		"scale":   func() error { _, err := drained(t, c.Scale(ctx, "nope", api.ScaleRequest{})); return err },
	} {
		if err := call(); !api.HasCode(err, api.CodeNotFound) {
			t.Errorf("%s of what is not there: %v", name, err)
		}
	}
}

func TestLogs_OfARevision_AreThoseOfTheTasksThatItStarted_RemovedOnesIncluded(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1"), service("db", "db:1")))
		b.say("web/1.1", "old")
		b.say("db/1.1", "stays")
		b.up(stackOf("shop", service("web", "web:2"), service("db", "db:1")))
		b.pass(time.Minute)
		b.say("web/1.2", "new")
		if ps := b.ps(); strings.Contains(ps, "web/1.1") {
			t.Fatalf("the first task is still there:\n%s", ps)
		}
		for revision, want := range map[uint64][]string{
			1: {"web-1 stdout: old", "db-1 stdout: stays"}, 2: {"web-1 stdout: new"}, 3: nil,
		} {
			var got readLogs
			if err := b.logs(b.t.Context(), "shop", api.LogQuery{Tail: -1, Revision: revision}, got.add); err != nil {
				t.Errorf("revision %d: %v", revision, err)
			}
			got.expect(t, want...)
		}
	})
}
