package crash_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// build makes testdata/program, with more flags of go build.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-o", out}, flags...), "./testdata/program")...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	return out
}

func run(t *testing.T, program, point string) (stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), "BERTH_CRASH="+point)
	var text strings.Builder
	cmd.Stderr = &text
	err = cmd.Run()
	return text.String(), err
}

func TestAt_Built_KillsAtTheWantedArrivalOnly(t *testing.T) {
	bin := build(t, "-tags", "crashpoints")
	whole := strings.Repeat("passed\n", 3) + "deferred\n"
	for point, want := range map[string]string{
		"here.passed":   "",
		"here.passed:1": "",
		"here.passed:3": "passed\npassed\n",
		"here.passed:4": whole,
		"elsewhere":     whole,
		"":              whole,
	} {
		said, err := run(t, bin, point)
		if said != want {
			t.Errorf("BERTH_CRASH=%s: it says %q, want %q", point, said, want)
		}
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if killed != (want != whole) {
			t.Errorf("BERTH_CRASH=%s: it ended with %v", point, err)
		}
	}
}

// Without the tag neither the call nor its name is in the program.
func TestAt_NotBuilt_IsNothing(t *testing.T) {
	bin := build(t)
	if said, err := run(t, bin, "here.passed"); err != nil || !strings.HasSuffix(said, "deferred\n") {
		t.Errorf("it ended with %v and says %q", err, said)
	}
	text, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	for _, trace := range []string{"here.passed", "berth/crash.At", "BERTH_CRASH"} {
		if strings.Contains(string(text), trace) {
			t.Errorf("%q is in the program", trace)
		}
	}
}
