package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"berth/api"
	"berth/reconciler"
)

func TestTaskID_IsNeverDigitsOnly(t *testing.T) {
	for id, want := range map[string]string{"939360237598": "d39360237598", "000000000000": "a00000000000", "93936023759a": "93936023759a"} {
		if got := withLetter(id); got != want {
			t.Errorf("%s became %s, want %s", id, got, want)
		}
	}
	for attempt := range 5000 { // one id in 280 would be
		if id := taskID("uid", "web", 1, attempt); len(id) != 12 || strings.Trim(id, "0123456789") == "" {
			t.Fatalf("attempt %d: id %q", attempt, id)
		}
	}
}

// A Ctrl-C fell between a plan and its tasks: one was made and started after
// `stop` had said that all were stopped.
func TestRecordTasks_OfAServiceThatWasStoppedSince_MakesNone(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(shop())
		b.action("shop", api.ActionRequest{Action: api.ActionStop})
		out := b.recordTasks(&reconciler.Plan{Stack: "shop", Revision: 1}, []reconciler.Action{
			{Kind: reconciler.CreateTask, Service: "web", Slot: 1, Attempt: 2},
		})
		if len(out) != 1 || !out[0].stale || out[0].err != nil {
			t.Errorf("recorded %+v", out)
		}
		b.expectTasks("db/1.1 exited 143", "web/1.1 exited 143")
	})
}

func TestStartReason_SaysWhatToDo(t *testing.T) {
	plain := errors.New("no space left on device")
	if got := startReason(plain); got != plain.Error() {
		t.Errorf("%q", got)
	}
	hinted := fmt.Errorf("deliver: %w", &api.Error{Detail: "secret word is damaged", Hint: "store it again"})
	if got, want := startReason(hinted), "deliver: secret word is damaged; store it again"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
