package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Question is what a provider is asked: an executable in the folder of
// providers, which prints a value. The file that asks may be hostile, and the
// agent is root: so the name has no path, no shell is in between, and who may
// change the folder or the program may be root only.
type Question struct {
	Command string
	Args    []string
	// Env is added to PATH and HOME, all that the program gets else.
	Env     []string
	Timeout time.Duration
	Limit   int // of the value, in bytes
}

var providerForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// Ask runs a provider and gives what it prints, without one newline at its end.
// What goes wrong is a SourceError.
func (s *Store) Ask(ctx context.Context, q Question) ([]byte, error) {
	program, err := s.provider(q.Command)
	if err != nil {
		return nil, err
	}
	home := os.Getenv("HOME")
	if home == "" {
		home = "/root"
	}
	out, err := (&child{
		program: program, args: q.Args, env: append([]string{"HOME=" + home}, q.Env...), limit: q.Limit, timeout: q.Timeout,
	}).run(ctx)
	by := "provider " + q.Command
	try := "try it on this host: " + shellLine(program, q.Args)
	var failed *childError
	switch {
	case err == nil:
	case !errors.As(err, &failed):
		return nil, err
	case failed.why == childTimeout:
		problem := fmt.Sprintf("%s did not answer within %s", by, q.Timeout)
		if failed.stderr != "" {
			problem += ": " + failed.stderr
		}
		return nil, &SourceError{problem, try + "; timeout in x-provider may be up to 1m"}
	case failed.why == childTooMuch:
		return nil, &SourceError{fmt.Sprintf("%s printed more than %d KiB", by, q.Limit>>10), try}
	case failed.why == childStart && failed.text == unix.ENOEXEC.Error():
		return nil, &SourceError{by + " can't be run: " + failed.text, "a script begins with a line such as #!/bin/sh"}
	default:
		return nil, &SourceError{by + " " + failed.Error(), try}
	}
	out = bytes.TrimSuffix(out, []byte("\n"))
	if len(out) == 0 {
		return nil, &SourceError{by + " printed nothing", try}
	}
	return out, nil
}

// provider finds an executable that root alone may have put there.
func (s *Store) provider(name string) (string, error) {
	if !providerForm.MatchString(name) {
		return "", &SourceError{fmt.Sprintf("provider %q is no file name", name), "x-provider names a program in " + s.cfg.Providers}
	}
	path := filepath.Join(s.cfg.Providers, name)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &SourceError{
			fmt.Sprintf("there is no provider %s in %s", name, s.cfg.Providers),
			"put an executable of that name there that prints the value; examples/providers has some",
		}
	case err != nil:
		return "", &SourceError{fmt.Sprintf("provider %s: %v", name, err), ""}
	case !info.Mode().IsRegular():
		return "", &SourceError{fmt.Sprintf("provider %s is no file", path), "put the program itself there, not a link"}
	}
	if err := trusted(path); err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o100 == 0 {
		return "", &SourceError{fmt.Sprintf("provider %s is not executable", path), "run: chmod 0755 " + path}
	}
	return path, nil
}

// trusted refuses a path that others than root, or the agent's user, could
// lead elsewhere: at each step on its way, as it is written and as links lead.
func trusted(path string) error {
	led, err := filepath.EvalSymlinks(path)
	if err != nil {
		return &SourceError{fmt.Sprintf("%s: %v", path, err), ""}
	}
	for _, p := range []string{path, led} {
		for {
			if err := mine(p); err != nil {
				return err
			}
			parent := filepath.Dir(p)
			if parent == p {
				break
			}
			p = parent
		}
	}
	return nil
}

func mine(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &SourceError{fmt.Sprintf("%s: %v", path, err), ""}
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return &SourceError{
			fmt.Sprintf("%s belongs to user %d: it could run anything as the agent", path, st.Uid), "run: chown root:root " + path,
		}
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFLNK || kind == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0 {
		return nil // a link has no mode; of a sticky folder others can't take what is root's
	}
	if st.Mode&0o022 != 0 {
		return &SourceError{
			fmt.Sprintf("%s has mode %#o: others could have the agent run anything", path, st.Mode&0o7777), "run: chmod go-w " + path,
		}
	}
	return nil
}

var plainWord = regexp.MustCompile(`^[a-zA-Z0-9_@%+=:,./-]+$`)

// shellLine is how a user types it.
func shellLine(program string, args []string) string {
	words := append([]string{program}, args...)
	for i, w := range words {
		if !plainWord.MatchString(w) {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
