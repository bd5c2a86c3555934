package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ociRuntime is crun, runc or what has their command line.
type ociRuntime struct {
	name string // crun or runc, or the base name of what was configured
	path string // absolute
}

// root is the runtime's own state folder. Each has its own: after a change of
// runtime, the old one still knows the containers it made.
func (o ociRuntime) root(run string) string { return filepath.Join(run, o.name) }

// stamp changes with the binary.
func (o ociRuntime) stamp() string {
	fi, err := os.Stat(o.path)
	if err != nil {
		return o.path
	}
	return fmt.Sprintf("%s %d %d", o.path, fi.Size(), fi.ModTime().UnixNano())
}

// verbTimeout bounds a call of the runtime that should be quick. A runtime
// that hangs must not hold up others.
const verbTimeout = 30 * time.Second

// call runs a verb of the runtime that made t. The error holds what it said.
func (r *Runtime) call(ctx context.Context, t *task, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	all := append([]string{"--root=" + t.rec.RuntimeRoot, "--log-format=json"}, args...)
	return runVerb(ctx, t.rec.Runtime, all)
}

// verbError is a failed call of a runtime.
type verbError struct {
	verb, text string
	err        error
}

func (e *verbError) Error() string {
	if m := lastMessage(e.text); m != "" {
		return e.verb + ": " + m
	}
	return fmt.Sprintf("%s: %v", e.verb, e.err)
}

func (e *verbError) Unwrap() error { return e.err }

func runVerb(ctx context.Context, path string, args []string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=" + hostPath}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	var out tail
	cmd.Stderr = &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrRuntimeMissing, path)
	}
	return &verbError{verb: filepath.Base(path) + " " + verbOf(args), text: out.String(), err: err}
}

func verbOf(args []string) string {
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			return a
		}
	}
	return ""
}

// saidText is what the runtime printed before it failed, or "".
func saidText(err error) string {
	var v *verbError
	if errors.As(err, &v) {
		return v.text
	}
	return ""
}

// tail keeps the last 16 KiB of what is written to it.
type tail struct{ b bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	const limit = 16 << 10
	t.b.Write(p)
	if over := t.b.Len() - limit; over > 0 {
		t.b.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.b.String() }

// choice is what chooseRuntime remembers in Run/runtime.json.
type choice struct {
	Boot string           `json:"boot"`
	Each map[string]trial `json:"each"` // by path
}

// trial is the outcome of running a container with a runtime.
type trial struct {
	ModTime time.Time `json:"mod_time"` // of the binary
	Error   string    `json:"error,omitempty"`
}

// chooseRuntime finds the first runtime that really runs a container. What is
// configured is tried as well: an agent that opens but can start nothing would
// be worse than one that says why it does not open.
func chooseRuntime(ctx context.Context, cfg Config, m *specMaker) (ociRuntime, error) {
	seen := loadChoice(cfg.Run)
	var failures []string
	for _, o := range candidates(cfg.Runtime) {
		tr, fresh, err := seen.try(ctx, cfg, m, o)
		if err != nil {
			return ociRuntime{}, err
		}
		if fresh {
			seen.save(cfg.Run)
		}
		if tr.Error == "" {
			return o, nil
		}
		failures = append(failures, o.path+": "+tr.Error)
	}
	if len(failures) == 0 {
		if cfg.Runtime != "" {
			return ociRuntime{}, fmt.Errorf("%w: %s is not there", ErrRuntimeMissing, cfg.Runtime)
		}
		return ociRuntime{}, fmt.Errorf("%w: install crun or runc", ErrRuntimeMissing)
	}
	return ociRuntime{}, fmt.Errorf("%w: %s", ErrRuntimeMissing, strings.Join(failures, "; "))
}

func candidates(configured string) []ociRuntime {
	names := []string{"crun", "runc"}
	if configured != "" {
		names = []string{configured}
	}
	var out []ociRuntime
	for _, n := range names {
		p, err := lookHostPath(n)
		if err != nil {
			continue
		}
		out = append(out, ociRuntime{name: filepath.Base(n), path: p})
	}
	return out
}

// lookHostPath is exec.LookPath that also looks in the sbin folders, which are
// not in every user's PATH.
func lookHostPath(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return filepath.Abs(p)
	}
	for _, d := range strings.Split(hostPath, ":") {
		if p, err := exec.LookPath(filepath.Join(d, name)); err == nil && !strings.Contains(name, "/") {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

func loadChoice(run string) *choice {
	c := &choice{}
	b, err := os.ReadFile(filepath.Join(run, "runtime.json"))
	if err != nil || json.Unmarshal(b, c) != nil || c.Boot != bootID() || c.Each == nil {
		return &choice{Boot: bootID(), Each: map[string]trial{}}
	}
	return c
}

// save is best effort: without the file the next Open only takes longer.
func (c *choice) save(run string) {
	b, err := json.Marshal(c)
	if err != nil {
		return
	}
	tmp := filepath.Join(run, "runtime.tmp")
	if os.WriteFile(tmp, b, 0o600) == nil {
		_ = os.Rename(tmp, filepath.Join(run, "runtime.json"))
	}
}

// try returns what is known of a runtime, running a container if nothing is.
// Only success is taken from memory: what failed may have been repaired.
func (c *choice) try(ctx context.Context, cfg Config, m *specMaker, o ociRuntime) (t trial, fresh bool, err error) {
	fi, err := os.Stat(o.path)
	if err != nil {
		return trial{Error: err.Error()}, false, nil //nolint:nilerr // the runtime is what failed
	}
	if old, ok := c.Each[o.path]; ok && old.ModTime.Equal(fi.ModTime()) && old.Error == "" {
		return old, false, nil
	}
	t = trial{ModTime: fi.ModTime()}
	if err := tryContainer(ctx, cfg.Run, m, o); err != nil {
		if ctx.Err() != nil {
			return t, false, fmt.Errorf("try %s: %w", o.path, ctx.Err())
		}
		t.Error = lastMessage(saidText(err))
		if t.Error == "" {
			t.Error = err.Error()
		}
	}
	c.Each[o.path] = t
	return t, true, nil
}
