package initproc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
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
		return fail(EnvName, exitCannotRun, fmt.Errorf("read the variables of secrets: %w", err))
	}
	keep := strings.Split(args[1], ",")
	for _, e := range entries {
		name, value, ok := strings.Cut(e, "=")
		if !ok || slices.Contains(keep, name) {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fail(EnvName, exitCannotRun, fmt.Errorf("set the variable %s: %w", name, err))
		}
	}
	path, err := exec.LookPath(args[2])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return fail(EnvName, exitCode(err), err)
	}
	err = syscall.Exec(path, args[2:], os.Environ())
	return fail(EnvName, exitCode(err), fmt.Errorf("run %s: %w", args[2], err))
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
	var out []string
	for e := range bytes.SplitSeq(data, []byte{0}) {
		if len(e) > 0 {
			out = append(out, string(e))
		}
	}
	return out, nil
}
