package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"berth/api"
)

// joining is how this terminal is joined to the main process of a task.
type joining struct {
	tty        bool // the process has one, and so has this one
	stdin      bool
	sigProxy   bool
	detachKeys string
	// call runs until the process has ended.
	call func(context.Context, api.Streams) (int, error)
}

// defaultDetachKeys leave a container that has a terminal.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// errDetached is the cause of an end that the detach keys asked for.
var errDetached = errors.New("detached")

// join runs j and gives the exit code. Without a terminal signals are passed
// on; the third one ends this command, and the container goes on.
func (a *app) join(ctx context.Context, j joining) (int, error) {
	keys, err := parseKeys(j.detachKeys)
	if err != nil {
		return 0, err
	}
	running, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	s := api.Streams{Stdout: a.stdout, Stderr: a.stderr}
	if j.stdin {
		s.Stdin = a.stdin
	}
	switch {
	case j.tty:
		in, out := a.stdin.(*os.File), a.stdout.(*os.File)
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return 0, fmt.Errorf("set the terminal to raw mode: %w", err)
		}
		defer term.Restore(int(in.Fd()), before) //nolint:errcheck // nothing is left to be done about it
		resize, stop := watchSize(out, true)
		defer stop()
		s.Resize = resize
		if j.stdin {
			s.Stdin = &detachReader{r: a.stdin, keys: keys, detached: func() { cancel(errDetached) }}
		}
	case j.sigProxy:
		names, stop := passSignals(3, func() { cancel(exit{code: exitInterrupted}) })
		defer stop()
		s.Signals = names
	default:
		stop := context.AfterFunc(ctx, func() { cancel(exit{code: exitInterrupted}) })
		defer stop()
	}
	code, err := j.call(running, s)
	if errors.Is(err, errDetached) {
		fmt.Fprint(a.stderr, "\r\ndetached; the container goes on\r\n")
		return 0, nil
	}
	return code, err
}

// detachReader reads until keys were typed in a row. What may be their
// beginning is held back until the next key shows that it is not.
type detachReader struct {
	r        io.Reader
	keys     []byte
	detached func()
	matched  int
	pending  []byte // read, and to be handed on
}

// Read hands on what was typed, without the keys.
func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.pending) == 0 {
		n, err := d.r.Read(p)
		for _, b := range p[:n] {
			d.take(b)
			if len(d.keys) > 0 && d.matched == len(d.keys) {
				d.detached()
				return 0, io.EOF
			}
		}
		if err != nil {
			if len(d.pending) == 0 {
				return 0, err
			}
			break
		}
	}
	n := copy(p, d.pending)
	d.pending = d.pending[n:]
	return n, nil
}

func (d *detachReader) take(b byte) {
	if d.matched < len(d.keys) && b == d.keys[d.matched] {
		d.matched++
		return
	}
	d.pending = append(d.pending, d.keys[:d.matched]...)
	d.matched = 0
	if len(d.keys) > 0 && b == d.keys[0] {
		d.matched = 1
		return
	}
	d.pending = append(d.pending, b)
}

// parseKeys reads keys as Docker writes them: letters, and ctrl- with a letter
// or one of @ [ \ ] ^ _, separated by commas.
func parseKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		rest, ctrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case !ctrl && len(key) == 1:
			keys = append(keys, key[0])
		case ctrl && len(rest) == 1 && rest[0] >= 'a' && rest[0] <= 'z':
			keys = append(keys, rest[0]-'a'+1)
		case ctrl && len(rest) == 1 && strings.IndexByte(`@[\]^_`, rest[0]) >= 0:
			keys = append(keys, rest[0]-'@')
		default:
			return nil, hinted{fmt.Errorf("--detach-keys %q: no such key: %q", text, key), "write them as " + defaultDetachKeys}
		}
	}
	return keys, nil
}
