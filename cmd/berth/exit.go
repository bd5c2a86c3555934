package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"berth/api"
	"berth/cli"
	"berth/redact"
)

// Exit codes of berth. exec and `up --exit-code-from` pass on a container's
// own code instead.
const (
	exitDone        = 0
	exitError       = 1
	exitChanges     = 2   // plan: something would change
	exitNotReady    = 3   // not ready in time, or paused; what was asked for may still come to pass
	exitRolledBack  = 4   // the new revision failed, the last stable one serves
	exitInterrupted = 130 // Ctrl-C or SIGTERM
)

// exit is an error that sets the exit code. With a nil err nothing is
// printed: whatever had to be said was said.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

// hinted adds what to do to an error.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// report prints err as the user is to see it and gives the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return exitDone
	}
	var e exit
	switch {
	case errors.As(err, &e):
		if e.err != nil {
			printError(a.stderr, &a.secrets, e.err)
		}
		return e.code
	case interruptedBy(ctx, err):
		return exitInterrupted
	}
	printError(a.stderr, &a.secrets, err)
	return exitError
}

// interruptedBy says that err is what the end of ctx made of the work, rather
// than a failure that came first.
func interruptedBy(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)))
}

// printError writes `error: …` and, when there is one, `hint: …`. Further
// lines of the text are facts that belong to it and stay lines.
func printError(w io.Writer, secrets *redact.Set, err error) {
	for i, line := range strings.Split(strings.TrimSpace(secrets.Text(err.Error())), "\n") {
		if i == 0 {
			line = "error: " + line
		}
		fmt.Fprintln(w, cli.Escape(line))
	}
	if hint := hintOf(err); hint != "" {
		fmt.Fprintln(w, "hint: "+cli.Escape(secrets.Text(hint)))
	}
}

func hintOf(err error) string {
	var h hinted
	if errors.As(err, &h) {
		return h.hint
	}
	var e *api.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	switch {
	case errors.Is(err, cli.ErrNeedsRoot):
		return "sudo berth …, or have root run `berth install --now` once"
	case errors.Is(err, api.ErrForbidden):
		return "sudo berth …, or join the group that owns the socket"
	case errors.Is(err, api.ErrCut):
		return "`berth ps` shows how far it came; the agent's log tells why it ended"
	}
	return ""
}

// exitStatus is the EXIT STATUS block of a command's help: the codes that
// every command has, and more, which are "CODE text" lines.
func exitStatus(more ...string) string {
	lines := []string{"0    done", "1    an error, told on stderr"}
	lines = append(lines, more...)
	lines = append(lines, "130  interrupted by Ctrl-C or SIGTERM")
	return "\n\nEXIT STATUS\n  " + strings.Join(lines, "\n  ")
}
