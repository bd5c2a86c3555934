package runtime

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// syncBuffer is a bytes.Buffer for two goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestExec_OutputAndCode(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "sleep"))
		var out, errout bytes.Buffer
		for _, c := range []struct {
			e    Exec
			code int
			out  string
			err  string
		}{
			{e: Exec{Args: []string{"/probe", "print", "x"}}, out: "x\n"},
			{e: Exec{Args: []string{"/probe", "eprint", "y"}}, err: "y\n"},
			{e: Exec{Args: []string{"/probe", "exit", "9"}}, code: 9},
			{e: Exec{Args: []string{"/probe", "cat"}, Stdin: strings.NewReader("in")}, out: "in"},
			{e: Exec{Args: []string{"/probe", "cat"}}},
		} {
			out.Reset()
			errout.Reset()
			c.e.Stdout, c.e.Stderr = &out, &errout
			code, err := b.Exec(t.Context(), "a1", c.e)
			if err != nil || code != c.code || out.String() != c.out || errout.String() != c.err {
				t.Errorf("%v: code %d, err %v, stdout %q, stderr %q", c.e.Args, code, err, out.String(), errout.String())
			}
		}
	})
}

func TestExec_WhatCannotRun_SaysWhy(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		c := b.container("a1", "sleep")
		writeRoot(t, c, "notexec", "data", 0o644)
		b.run(c)
		for args, want := range map[string]Reason{
			"/missing": ReasonNotFound, "missing": ReasonNotFound, "/notexec": ReasonPermission,
		} {
			_, err := b.Exec(t.Context(), "a1", Exec{Args: []string{args}})
			var se *StartError
			if !errors.As(err, &se) || se.Reason != want || !errors.Is(err, ErrStart) {
				t.Errorf("%s: %v, want %v", args, err, want)
			}
		}
		if _, err := b.Exec(t.Context(), "zz", Exec{Args: []string{"x"}}); !errors.Is(err, ErrNotFound) {
			t.Errorf("no such container: %v", err)
		}
		if err := b.Signal(t.Context(), "a1", unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.exit("a1")
		if _, err := b.Exec(t.Context(), "a1", Exec{Args: []string{"/probe", "exit", "0"}}); !errors.Is(err, ErrNotRunning) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A probe that times out must leave nothing in the container.
func TestExec_ContextEnds_ProcessTreeIsKilled(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "sleep"))
		idle := len(b.cg.pids(b.cgroup("a1")))
		ctx, cancel := context.WithCancel(t.Context())
		var out syncBuffer
		done := make(chan error, 1)
		go func() {
			_, err := b.Exec(ctx, "a1", Exec{Args: []string{"/probe", "ignore"}, Stdout: &out})
			done <- err
		}()
		eventually(t, "it runs", func() bool { return strings.Contains(out.String(), "ignoring") })
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("Exec did not return")
		}
		eventually(t, "nothing of it is left", func() bool { return len(b.cg.pids(b.cgroup("a1"))) == idle })
	})
}

func TestExec_BackgroundChildHoldsThePipe_Returns(t *testing.T) {
	b := newBench(t, "")
	b.run(b.container("a1", "sleep"))
	var out syncBuffer
	begun := time.Now()
	code, err := b.Exec(t.Context(), "a1", Exec{Args: []string{"/probe", "daemon"}, Stdout: &out})
	if err != nil || code != 0 || !strings.HasPrefix(out.String(), "daemon ") {
		t.Errorf("code %d, err %v, output %q", code, err, out.String())
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestExec_ManyLines_AllArrive(t *testing.T) {
	b := newBench(t, "")
	b.run(b.container("a1", "sleep"))
	var out bytes.Buffer
	slow := writerFunc(func(p []byte) (int, error) {
		<-time.After(200 * time.Microsecond) // slower than the process, on purpose
		return out.Write(p)
	})
	code, err := b.Exec(t.Context(), "a1", Exec{Args: []string{"/probe", "lines", "20000"}, Stdout: slow})
	if n := strings.Count(out.String(), "\n"); err != nil || code != 0 || n != 20000 {
		t.Errorf("code %d, err %v, %d lines", code, err, n)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestExec_Terminal_SizeChangesReachTheProgram(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "sleep"))
		resize := make(chan WindowSize, 1)
		resize <- WindowSize{Rows: 33, Cols: 77}
		var out syncBuffer
		done := make(chan int, 1)
		go func() {
			code, err := b.Exec(t.Context(), "a1", Exec{Args: []string{"/probe", "size"}, TTY: true, Stdout: &out, Resize: resize})
			if err != nil {
				t.Error(err)
			}
			done <- code
		}()
		eventually(t, "the first size", func() bool { return strings.Contains(out.String(), "size 33x77") })
		resize <- WindowSize{Rows: 50, Cols: 100}
		select {
		case code := <-done:
			if code != 5 || !strings.Contains(out.String(), "size 50x100") {
				t.Errorf("code %d, output %q", code, out.String())
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no end; output %q", out.String())
		}
	})
}

func TestAttach_StdinAndOutput(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		c := b.container("a1", "echo")
		c.Stdin = true
		if err := b.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		in, feed := io.Pipe()
		var out syncBuffer
		done := make(chan error, 1)
		go func() { done <- b.Attach(t.Context(), "a1", Streams{Stdin: in, Stdout: &out, Stderr: &out}) }()
		if err := b.Start(t.Context(), "a1"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(feed, "one\n"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the echo", func() bool { return strings.Contains(out.String(), "echo one") })
		if _, err := io.WriteString(feed, "bye\n"); err != nil {
			t.Fatal(err)
		}
		if s := b.exit("a1"); s.ExitCode != 4 {
			t.Errorf("got %+v", s)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("attach: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Attach did not end with the container")
		}
	})
}

// conmon blocks on a client that does not read, and with it the container.
func TestAttach_ReaderStalls_ContainerGoesOn(t *testing.T) {
	b := newBench(t, "")
	c := b.container("a1", "lines", "100000")
	c.LogMaxSize = 100 << 20
	if err := b.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	attached := make(chan struct{})
	var once sync.Once
	stalled := writerFunc(func(p []byte) (int, error) {
		once.Do(func() { close(attached) })
		<-release
		return len(p), nil
	})
	done := make(chan error, 1)
	go func() { done <- b.Attach(t.Context(), "a1", Streams{Stdout: stalled}) }()
	// The connection is there before the first line is printed.
	eventually(t, "attached", func() bool { return connected(t) })
	if err := b.Start(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	<-attached
	if s := b.exit("a1"); s.ExitCode != 0 {
		t.Errorf("got %+v", s)
	}
	close(release)
	if err := <-done; !errors.Is(err, ErrSlowReader) {
		t.Errorf("attach: %v", err)
	}
	if n := strings.Count(b.output("a1"), "\n"); n != 100000 {
		t.Errorf("%d lines logged", n)
	}
}

// connected says whether conmon has accepted a client, from the list of unix
// sockets: a listener and a connection have the same path.
func connected(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "/attach") >= 2
}

func TestTerminal_Container_OutputAndSize(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		c := b.container("a1", "size")
		c.TTY = true
		b.run(c)
		resize := make(chan WindowSize, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- b.Attach(ctx, "a1", Streams{Stdout: io.Discard, Resize: resize}) }()
		eventually(t, "the program looks at its size", func() bool { return strings.Contains(b.output("a1"), "size ") })
		resize <- WindowSize{Rows: 50, Cols: 91}
		if s := b.exit("a1"); s.ExitCode != 5 {
			t.Errorf("got %+v, output %q", s, b.output("a1"))
		}
		<-done
	})
}
