// Package initproc is what runs in a container before its command. As an init
// (Compose: init: true) it starts the command, hands signals on to it, reaps
// what its children leave behind, and ends as the command ended. As EnvName it
// adds variables that no configuration may hold, and becomes the command.
//
// It is not a program of its own: berthd is bound into the container under
// Name or EnvName, and calls Main when it finds itself called so.
package initproc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// Name is the base name of argv[0] that asks for Main.
const Name = "berth-init"

// Exit codes of a shell for a command that could not be run.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

// Called says whether this process was started as one of the two.
func Called() bool { return called(Name) || called(EnvName) }

func called(name string) bool { return len(os.Args) > 0 && filepath.Base(os.Args[0]) == name }

// Main runs the command in os.Args and exits with its code, 128+N for signal
// N. It does not return. It must run before other goroutines start processes:
// it waits for any child.
func Main() {
	if called(EnvName) {
		os.Exit(environ(os.Args[1:]))
	}
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(20)
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) == 0 {
		return fail(Name, exitCannotRun, errors.New("no command"))
	}
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return fail(Name, exitCode(err), err)
	}
	// Before the fork: a signal that arrives in between is kept, not lost.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)

	// Outside a pid namespace of its own, orphans would go to the host's init.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	child, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   childAttr(),
	})
	if err != nil {
		return fail(Name, exitCode(err), fmt.Errorf("run %s: %w", args[0], err))
	}
	return serve(child, signals)
}

// childAttr gives the child a process group of its own, and with a terminal the
// foreground: keys such as Ctrl-C reach it without this process between.
func childAttr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		a.Foreground, a.Ctty = true, 0
	}
	return a
}

// serve hands signals on until the child has ended.
func serve(child int, signals <-chan os.Signal) int {
	for s := range signals {
		n, ok := s.(syscall.Signal)
		if !ok {
			continue
		}
		switch n {
		case syscall.SIGCHLD:
			if code, ended := reap(child); ended {
				return code
			}
		case syscall.SIGURG, syscall.SIGTTIN, syscall.SIGTTOU:
			// SIGURG is Go's own; the others are about the terminal and this
			// process.
		default:
			_ = syscall.Kill(child, n)
		}
	}
	return exitCannotRun
}

// reap collects every zombie there is.
func reap(child int) (code int, ended bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid != child {
			continue
		}
		ended = true
		code = ws.ExitStatus()
		if ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
	}
}

func exitCode(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return exitNotFound
	}
	return exitCannotRun
}

func fail(name string, code int, err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	return code
}
