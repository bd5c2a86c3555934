package initproc

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// EnvName is the base name of argv[0] that asks for variables out of a file:
//
//	berth-env SOURCE KEEP COMMAND [ARG…]
//
// SOURCE is a path, or the number of an open descriptor; it holds NAME=VALUE
// entries, each ended by a zero byte. KEEP are names, between commas, that
// stay as they are. COMMAND then takes this process's place. An agent calls
// the program that an older one bound into a container: this stays so.
const EnvName = "berth-env"

// maxEnv is more than execve takes.
const maxEnv = 8 << 20

// environ sets the variables and runs the command. It returns only on failure.
func environ(args []string) int {
	if len(args) < 3 {
		return fail(EnvName, exitCannotRun, errors.New("no command"))
	}
	entries, err := readEntries(args[0])
	if err != nil {
		return fail(EnvName, exitCannotRun, problem("read the variables of secrets", err))
	}
	keep := "," + args[1] + ","
	for _, e := range entries {
		name, value, ok := strings.Cut(e, "=")
		if !ok || strings.Contains(keep, ","+name+",") {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fail(EnvName, exitCannotRun, problem("set the variable "+name, err))
		}
	}
	path, err := lookPath(args[2])
	if err == nil {
		err = syscall.Exec(path, args[2:], os.Environ())
	}
	return fail(EnvName, exitCode(err), problem(args[2], err))
}

func readEntries(source string) ([]string, error) {
	var f *os.File
	if fd, err := strconv.Atoi(source); err == nil {
		syscall.CloseOnExec(fd)
		f = os.NewFile(uintptr(fd), EnvName)
	} else if f, err = os.Open(source); err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEnv))
	if err != nil {
		return nil, err
	}
	text := strings.TrimSuffix(string(data), "\x00")
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\x00"), nil
}
