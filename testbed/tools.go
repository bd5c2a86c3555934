package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofrs/flock"
)

// Tool is a program, or some, of one Go module that tests run and Debian lacks.
type Tool struct {
	Name, Version string
	packages      []string
}

// What tests build from source.
var (
	buildKit = Tool{"BuildKit", "v0.34.2", []string{"github.com/moby/buildkit/cmd/buildkitd", "github.com/moby/buildkit/cmd/buildctl"}}
	sops     = Tool{"SOPS", "v3.13.3", []string{"github.com/getsops/sops/v3/cmd/sops"}}
)

// Tools are all of them.
func Tools() []Tool { return []Tool{buildKit, sops} }

// BuildKit returns a folder with buildkitd and buildctl. A machine that can't
// build them skips t.
func BuildKit(t testing.TB) (dir string) {
	t.Helper()
	return need(t, buildKit)
}

// SOPS returns a folder with sops, in the same way.
func SOPS(t testing.TB) (dir string) {
	t.Helper()
	return need(t, sops)
}

func need(t testing.TB, tool Tool) string {
	t.Helper()
	dir, err := tool.Build(t.Context())
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	return dir
}

// Build builds the tool into the user's cache, if it isn't there, and returns
// the folder of its programs. The first time takes some minutes and needs the Go
// module proxy: `make test` does it before any test's time runs.
func (tool Tool) Build(ctx context.Context) (dir string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(cache, "berth", strings.ToLower(tool.Name)+"-"+tool.Version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer lock.Close()
	bin := filepath.Join(dir, "bin")
	last := tool.packages[len(tool.packages)-1]
	if _, err := os.Stat(filepath.Join(bin, filepath.Base(last))); !errors.Is(err, os.ErrNotExist) {
		return bin, err
	}
	// A module with excludes can't be installed by its path. As tools of another
	// module its programs can be built.
	module := filepath.Join(dir, "module")
	if err := errors.Join(os.RemoveAll(module), os.MkdirAll(module, 0o755),
		os.WriteFile(filepath.Join(module, "go.mod"), []byte("module tools.test\n\ngo 1.26\n"), 0o600)); err != nil {
		return "", err
	}
	for _, p := range tool.packages {
		if err := tool.run(ctx, module, "get", "-tool", p+"@"+tool.Version); err != nil {
			return "", err
		}
	}
	return bin, tool.run(ctx, module, append([]string{"build", "-o", bin + "/"}, tool.packages...)...)
}

func (tool Tool) run(ctx context.Context, module string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	if Isolated() { // the process that made the namespaces waits outside of them
		cmd = exec.CommandContext(ctx, "nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", os.Getppid()), "go"}, args...)...)
	}
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s can't be built here: go %v: %w\n%s", tool.Name, args, err, out)
	}
	return nil
}
