package agent

import (
	"strings"
	"testing"
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
