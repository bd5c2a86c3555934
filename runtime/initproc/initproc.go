// Package initproc is what runs in a container before its command. As an init
// (Compose: init: true) it starts the command, hands signals on to it, reaps
// what its children leave behind, and ends as the command ended. As EnvName it
// adds variables that no configuration may hold, and becomes the command.
//
// It is not a program of its own: berthd is bound into the container under
// Name or EnvName. A process that is called so never gets to main: this
// package takes over while it is initialised. It imports nothing but what is
// initialised early (os, not fmt), so that comes before nearly everything else
// of berthd: a megabyte of the container's memory and 5 ms, where main would
// cost six and 16.
package initproc

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// Name is the base name of argv[0] that asks for an init.
const Name = "berth-init"

// Exit codes of a shell for a command that could not be run.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

func init() {
	switch {
	case called(Name):
		runtime.GOMAXPROCS(1)
		os.Exit(run(os.Args[1:]))
	case called(EnvName):
		os.Exit(environ(os.Args[1:]))
	}
}

func called(name string) bool {
	return len(os.Args) > 0 && os.Args[0][strings.LastIndexByte(os.Args[0], '/')+1:] == name
}

// run runs a command and gives its exit code, 128+N for signal N. No other
// goroutine may start processes: it waits for any child.
func run(args []string) int {
	if len(args) == 0 {
		return fail(Name, exitCannotRun, errors.New("no command"))
	}
	path, err := lookPath(args[0])
	if err != nil {
		return fail(Name, exitCode(err), problem(args[0], err))
	}
	// Before the fork: a signal that arrives in between is kept, not lost.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)

	// Outside a pid namespace of its own, orphans would go to the host's init.
	const setChildSubreaper = 36 // prctl(2)
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
	child, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   childAttr(),
	})
	if err != nil {
		return fail(Name, exitCode(err), problem(args[0], err))
	}
	return serve(child, signals)
}

// childAttr gives the child a process group of its own, and with a terminal the
// foreground: keys such as Ctrl-C reach it without this process between.
func childAttr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	var t syscall.Termios
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, 0, syscall.TCGETS, uintptr(unsafe.Pointer(&t)))
	if errno == 0 {
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

// lookPath finds a command as a shell does. One that is there but can't be run
// is an error only if no later folder of PATH has another one.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, runnable(name)
	}
	var denied error
	for _, dir := range strings.Split(os.Getenv("PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		switch err := runnable(path); {
		case err == nil:
			return path, nil
		case errors.Is(err, syscall.EACCES):
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", errNotFound
}

var errNotFound = errors.New("executable file not found in $PATH")

func runnable(path string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return syscall.EACCES
	}
	const executable = 1 // X_OK
	return syscall.Access(path, executable)
}

func exitCode(err error) int {
	if errors.Is(err, errNotFound) || errors.Is(err, os.ErrNotExist) {
		return exitNotFound
	}
	return exitCannotRun
}

func problem(subject string, err error) error { return errors.New(subject + ": " + err.Error()) }

func fail(name string, code int, err error) int {
	_, _ = os.Stderr.WriteString(name + ": " + err.Error() + "\n")
	return code
}
