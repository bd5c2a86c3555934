package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"
)

// buildKitVersion is the BuildKit that tests build with.
const buildKitVersion = "v0.34.2"

// BuildKit returns a folder with buildkitd and buildctl, built from source and
// cached. The first time takes some minutes and needs the Go module proxy; a
// machine that can't do that skips t.
func BuildKit(t testing.TB) (dir string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(cache, "berth", "buildkit-"+buildKitVersion)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	bin := filepath.Join(dir, "bin")
	if _, err := os.Stat(filepath.Join(bin, "buildctl")); err == nil {
		return bin
	} else if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	// BuildKit's module can't be installed by its path: it has excludes. As a
	// tool of another module it can be built.
	module := filepath.Join(dir, "module")
	if err := errors.Join(os.RemoveAll(module), os.MkdirAll(module, 0o755),
		os.WriteFile(filepath.Join(module, "go.mod"), []byte("module buildkit.test\n\ngo 1.26\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	const path = "github.com/moby/buildkit/cmd/"
	for _, args := range [][]string{
		{"get", "-tool", path + "buildkitd@" + buildKitVersion},
		{"get", "-tool", path + "buildctl@" + buildKitVersion},
		{"build", "-o", bin + "/", path + "buildkitd", path + "buildctl"},
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		if Isolated() { // the process that made the namespaces waits outside of them
			cmd = exec.CommandContext(t.Context(), "nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", os.Getppid()), "go"}, args...)...)
		}
		cmd.Dir = module
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: BuildKit can't be built here: go %v: %v\n%s", args, err, out)
		}
	}
	return bin
}
