package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// faulty is a runtime that fails at one verb while a file is there.
func (b *bench) faulty(verb, how string) (lift func()) {
	b.tb.Helper()
	dir := b.tb.TempDir()
	real, err := lookHostPath("crun")
	if err != nil {
		b.tb.Fatal(err)
	}
	on := filepath.Join(dir, "on")
	script := fmt.Sprintf(`#!/bin/sh
if [ -e %s ]; then
	for a in "$@"; do
		case "$a" in --*) ;; %s) %s ;; *) break ;; esac
	done
fi
exec %s "$@"
`, on, verb, how, real)
	path := filepath.Join(dir, "crun")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		b.tb.Fatal(err)
	}
	b.cfg.Runtime = path
	b.reopen()
	if err := os.WriteFile(on, nil, 0o600); err != nil {
		b.tb.Fatal(err)
	}
	return func() { os.Remove(on) }
}

// K6 and K7 of the fault catalogue: each verb fails once, with and without a
// restart of the agent; nothing is left in the end.
func TestFaults_AVerbFails_NothingIsLeft(t *testing.T) {
	for _, verb := range []string{"create", "start", "delete"} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%v", verb, restart), func(t *testing.T) {
				b := newBench(t, "")
				lift := b.faulty(verb, `echo '{"msg":"injected fault","level":"error"}' >&2; exit 1`)
				err := b.Create(t.Context(), b.container("a1", "sleep"))
				if err == nil {
					err = b.Start(t.Context(), "a1")
				}
				if err == nil {
					err = b.Delete(t.Context(), "a1")
				}
				if err == nil || !strings.Contains(err.Error(), "injected fault") || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v", err)
				}
				if restart {
					b.reopen()
				}
				lift()
				if err := b.Delete(t.Context(), "a1"); err != nil {
					t.Errorf("delete: %v", err)
				}
				b.leaks()
				b.run(b.container("a1", "exit", "5"))
				// By Status: Exits may still hold the end of the former a1.
				eventually(t, "the id is used again", func() bool {
					s, err := b.Status(t.Context(), "a1")
					return err == nil && s.State == StateExited && s.ExitCode == 5
				})
			})
		}
	}
}

func TestFaults_RuntimeHangs_ContextEndsTheWait(t *testing.T) {
	b := newBench(t, "")
	lift := b.faulty("create", "exec sleep 100")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err := b.Create(ctx, b.container("a1", "sleep"))
	if err == nil || ctx.Err() == nil {
		t.Errorf("error %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	lift()
	b.leaks()
}

func TestOpen_NoRuntimeWorks_SaysWhyOfEach(t *testing.T) {
	b := newBench(t, "")
	bad := filepath.Join(t.TempDir(), "crun")
	if err := os.WriteFile(bad, []byte("#!/bin/sh\necho 'this one is broken' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := b.cfg
	cfg.Run, cfg.Runtime = filepath.Join(t.TempDir(), "run"), bad
	_, err := Open(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "this one is broken") || !strings.Contains(err.Error(), bad) {
		t.Errorf("error %v", err)
	}
}

// The choice is remembered, so that the agent starts quickly.
func TestOpen_Again_RunsNoContainer(t *testing.T) {
	b := newBench(t, "")
	before, err := os.Stat(filepath.Join(b.cfg.Run, "runtime.json"))
	if err != nil {
		t.Fatal(err)
	}
	b.reopen()
	after, err := os.Stat(filepath.Join(b.cfg.Run, "runtime.json"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the choice was made again: %v", err)
	}
	if left := glob(t, b.cfg.Run+"/try*"); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if seen := loadChoice(b.cfg.Run); seen.Each[b.oci.path].Error != "" || len(seen.Each) == 0 {
		t.Errorf("remembered %+v", seen)
	}
}
