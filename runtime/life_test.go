package runtime

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLife_ExitCode_IsDelivered(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		before := time.Now().Add(-20 * time.Millisecond)
		b.run(b.container("a1", "exit", "7"))
		s := b.exit("a1")
		if s.State != StateExited || s.ExitCode != 7 {
			t.Errorf("got %+v, want exit code 7", s)
		}
		if s.StartedAt.Before(before) || s.FinishedAt.Before(s.StartedAt) {
			t.Errorf("times: before %v, started %v, finished %v", before, s.StartedAt, s.FinishedAt)
		}
	})
}

func TestLife_Output_IsLogged(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "print", "hello", "there"))
		b.exit("a1")
		if got := b.output("a1"); got != "hello there\n" {
			t.Errorf("log %q", got)
		}
	})
}

func TestLife_Signal_ReachesTheProcess(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "traps"))
		eventually(t, "the trap is set", func() bool { return strings.Contains(b.output("a1"), "ready") })
		if err := b.Signal(t.Context(), "a1", unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if s := b.exit("a1"); s.ExitCode != 7 {
			t.Errorf("got %+v", s)
		}
		if err := b.Signal(t.Context(), "a1", unix.SIGTERM); !errors.Is(err, ErrNotRunning) {
			t.Errorf("a signal after the end: %v", err)
		}
	})
}

func TestLife_SIGKILL_Is137(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "ignore"))
		eventually(t, "SIGTERM is ignored", func() bool { return strings.Contains(b.output("a1"), "ignoring") })
		if err := b.Signal(t.Context(), "a1", unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if s, err := b.Status(t.Context(), "a1"); err != nil || s.State != StateRunning || s.Pid == 0 {
			t.Errorf("status %+v, %v", s, err)
		}
		if err := b.Signal(t.Context(), "a1", unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if s := b.exit("a1"); s.ExitCode != 137 || s.OOMKilled {
			t.Errorf("got %+v", s)
		}
	})
}
