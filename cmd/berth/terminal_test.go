package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/api"
	"berth/cli"
)

// terminal opens a pseudo-terminal of 30 rows and 100 columns: what a program
// sees, and the other side, on which a person sits.
func terminal(t *testing.T) (tty, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	resizeTo(t, person, 30, 100)
	return tty, person
}

func resizeTo(t *testing.T, person *os.File, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Fatal(err)
	}
}

// reads gives the next line on the person's screen that contains text.
func reads(t *testing.T, screen *bufio.Reader, text string) string {
	t.Helper()
	for {
		line, err := screen.ReadString('\n')
		if err != nil {
			t.Fatalf("the screen ended before %q: %v", text, err)
		}
		if strings.Contains(line, text) {
			return line
		}
	}
}

// scripted starts an agent that answers with these files, by path.
func scripted(t *testing.T, answers map[string]string) (*scriptedAgent, globals) {
	t.Helper()
	dir, run := t.TempDir(), t.TempDir()
	for path, text := range answers {
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	agent, stop, err := startAgent(dir, run)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return agent, globals{run: run, project: "shop", ansi: cli.AnsiAuto, progress: cli.ProgressAuto}
}

func termios(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *settings
}

func TestExec_OnATerminal_RawWhileItRuns_RestoredAfter(t *testing.T) {
	_, g := scripted(t, map[string]string{
		"GET/v1/stacks/shop.1": `{"name":"shop","tasks":[{"id":"a1","service":"web","slot":1,"state":"running"}]}`,
	})
	tty, person := terminal(t)
	before := termios(t, tty)
	a := &app{stdin: tty, stdout: tty, stderr: tty, global: g}
	ended := make(chan error, 1)
	go func() {
		ended <- a.exec(t.Context(), execOptions{tty: true, interactive: true}, "web", []string{"sh", "7"})
	}()

	screen := bufio.NewReader(person)
	if request := reads(t, screen, "args"); !strings.Contains(request, `"tty":true,"stdin":true,"rows":30,"cols":100`) {
		t.Errorf("request: %s", request)
	}
	if during := termios(t, tty); during.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Errorf("the terminal is not in raw mode: %+v", during)
	}
	resizeTo(t, person, 40, 120)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	reads(t, screen, `{"rows":40,"cols":120}`)
	if _, err := person.WriteString("\x03q"); err != nil { // Ctrl-C is a byte here, not a signal
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		var e exit
		if !errors.As(err, &e) || e.code != 7 || e.err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("exec does not end")
	}
	if after := termios(t, tty); after != before {
		t.Errorf("the terminal was %+v, is %+v", before, after)
	}
}

func TestDown_OnATerminal_IsDrawnOverItself(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	t.Setenv("CI", "")
	agent, g := scripted(t, map[string]string{
		"POST/v1/stacks/shop/down.1": `{"service":{"service":"web","phase":"stopping","elapsed":1000000}}
@until GET /v1/go
{"service":{"service":"web","phase":"removed"}}
{"done":{"outcome":"done"}}
`,
	})
	tty, person := terminal(t)
	a := &app{stdin: tty, stdout: tty, stderr: tty, global: g}
	ended := make(chan error, 1)
	go func() { ended <- a.down(t.Context(), downOptions{}, nil, nil) }()

	screen := bufio.NewReader(person)
	if line := reads(t, screen, "stopping"); line != "  web  \x1b[2mstopping\x1b[0m\r\n" {
		t.Errorf("first: %q", line)
	}
	agent.add("GET /v1/go")
	if line := reads(t, screen, "removed"); line != "\x1b[1A\r\x1b[J  web  \x1b[2mremoved\x1b[0m\r\n" {
		t.Errorf("last: %q", line)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAgreed_AsksOnATerminalOnly(t *testing.T) {
	tty, person := terminal(t)
	screen := bufio.NewReader(person)
	for answer, want := range map[string]bool{"y\n": true, "yes\n": true, "n\n": false, "\n": false, "yep\n": false} {
		a := &app{stdin: tty, stdout: tty, stderr: tty}
		if _, err := person.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		if got := a.agreed(false, "Sure?"); got != want {
			t.Errorf("%q: %v", answer, got)
		}
		if !a.agreed(true, "Sure?") {
			t.Error("--force is asked")
		}
		fmt.Fprintln(tty, "end")
		reads(t, screen, "end")
	}
	if a := (&app{stdin: strings.NewReader(""), stderr: tty}); !a.agreed(false, "Sure?") {
		t.Error("without a terminal nobody can be asked")
	}
}

func TestRunningTask_DuringARollout_TheNewerOfASlot(t *testing.T) {
	now := time.Now()
	stack := api.StackStatus{Tasks: []api.Task{
		{ID: "old", Service: "web", Slot: 1, State: api.TaskRunning, CreatedAt: now.Add(-time.Hour)},
		{ID: "new", Service: "web", Slot: 1, State: api.TaskRunning, CreatedAt: now},
		{ID: "two", Service: "web", Slot: 2, State: api.TaskRunning, CreatedAt: now},
	}}
	for index, want := range map[int]string{0: "new", 1: "new", 2: "two"} {
		if task, err := runningTask(stack, "web", index); err != nil || task.ID != want {
			t.Errorf("index %d: %s, %v", index, task.ID, err)
		}
	}
}
