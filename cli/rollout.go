package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"berth/api"
)

// rolloutStyles are the styles of a rollout's states.
var rolloutStyles = map[string]Style{
	api.RolloutProgressing:    Plain,
	api.RolloutCanary:         Caution,
	api.RolloutPaused:         Caution,
	api.RolloutComplete:       Good,
	api.RolloutRollingBack:    Bad,
	api.RolloutRollbackPaused: Bad,
	api.RolloutRolledBack:     Bad,
}

// RolloutState is a state of a rollout in words: "rolled back".
func RolloutState(state string) string {
	if state == api.RolloutRollbackPaused {
		return "rollback paused"
	}
	return strings.ReplaceAll(Escape(state), "_", " ")
}

// WriteRollout writes how far a rollout is: what it is, what can be done about
// it, and a table of its services.
func WriteRollout(s Screen, r api.Rollout, now time.Time) error {
	var b strings.Builder
	name := Escape(r.Stack)
	head := fmt.Sprintf("%s: revision %d", name, r.Revision)
	if from := cmp.Or(r.Failed, r.From); from != 0 && from != r.Revision {
		head = fmt.Sprintf("%s: revision %d → %d", name, from, r.Revision)
	}
	b.WriteString(s.Paint(Bold, head) + "  " + s.Paint(rolloutStyles[r.State], RolloutState(r.State)) + "\n")
	fact := func(what, text string) {
		if text != "" {
			b.WriteString("  " + pad(what, 7) + "  " + text + "\n")
		}
	}
	fact("began", since(r.StartedAt, now)+by(r.Actor))
	if !r.EndedAt.IsZero() {
		fact("ended", since(r.EndedAt, now)+", after "+seconds(r.EndedAt.Sub(r.StartedAt)))
	}
	fact("reason", Escape(r.Reason))
	if c := r.Canary; c != nil {
		fact("canary", fmt.Sprintf("%s, %d%% of its new connections", Escape(c.Service), c.Percent))
	}
	fact("next", rolloutNext(r))
	if len(r.Services) == 0 {
		_, err := io.WriteString(s, b.String())
		return err
	}
	b.WriteString("\n")
	if _, err := io.WriteString(s, b.String()); err != nil {
		return err
	}
	t := Table{Head: []string{"SERVICE", "UPDATED", "READY", "AVAILABLE", "OLD", "PHASE", "REASON"}}
	for _, v := range r.Services {
		of := func(n int) string { return fmt.Sprintf("%d/%d", n, v.Replicas) }
		t.Add(v.Service, of(v.Updated), of(v.Ready), of(v.Available), strconv.Itoa(v.Old), v.Phase, v.Reason)
	}
	return t.Write(s)
}

// rolloutNext is what the user can do about a rollout that waits for that.
func rolloutNext(r api.Rollout) string {
	switch r.State {
	case api.RolloutCanary:
		return "`berth canary promote` or `berth canary abort`"
	case api.RolloutPaused:
		if r.From == 0 {
			return "`berth rollout resume`, or a mended file and `berth up`"
		}
		return "`berth rollout resume` or `berth rollout undo`"
	case api.RolloutRollbackPaused:
		return "`berth rollout resume` tries again; `berth explain SERVICE` says what is in the way"
	}
	return ""
}

// since is a time as people look for it in logs, and how long ago it was.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "not known when"
	}
	layout := "15:04:05"
	if now.Sub(t) > 12*time.Hour {
		layout = "2006-01-02 15:04:05"
	}
	return t.Local().Format(layout) + " (" + lowered(ago(t, now)) + ")"
}

// lowered is text within a sentence.
func lowered(text string) string { return strings.ToLower(text[:1]) + text[1:] }

func by(actor string) string {
	if actor == "" {
		return ""
	}
	return " by " + Escape(actor)
}
