package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofrs/flock"
)

// Versions of what tests build from source.
const (
	buildKitVersion = "v0.34.2"
	sopsVersion     = "v3.13.3"
)

// BuildKit returns a folder with buildkitd and buildctl, built from source and
// cached. The first time takes some minutes and needs the Go module proxy; a
// machine that can't do that skips t.
func BuildKit(t testing.TB) (dir string) {
	t.Helper()
	return builtTools(t, "BuildKit", buildKitVersion, "github.com/moby/buildkit/cmd/buildkitd", "github.com/moby/buildkit/cmd/buildctl")
}

// SOPS returns a folder with sops, built and cached in the same way: two
// minutes the first time.
func SOPS(t testing.TB) (dir string) {
	t.Helper()
	return builtTools(t, "SOPS", sopsVersion, "github.com/getsops/sops/v3/cmd/sops")
}

func builtTools(t testing.TB, name, version string, programs ...string) (dir string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(cache, "berth", strings.ToLower(name)+"-"+version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	bin := filepath.Join(dir, "bin")
	if _, err := os.Stat(filepath.Join(bin, filepath.Base(programs[len(programs)-1]))); err == nil {
		return bin
	} else if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	// A module with excludes can't be installed by its path. As tools of another
	// module its programs can be built.
	module := filepath.Join(dir, "module")
	if err := errors.Join(os.RemoveAll(module), os.MkdirAll(module, 0o755),
		os.WriteFile(filepath.Join(module, "go.mod"), []byte("module tools.test\n\ngo 1.26\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var steps [][]string
	for _, p := range programs {
		steps = append(steps, []string{"get", "-tool", p + "@" + version})
	}
	steps = append(steps, append([]string{"build", "-o", bin + "/"}, programs...))
	for _, args := range steps {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		if Isolated() { // the process that made the namespaces waits outside of them
			cmd = exec.CommandContext(t.Context(), "nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", os.Getppid()), "go"}, args...)...)
		}
		cmd.Dir = module
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: %s can't be built here: go %v: %v\n%s", name, args, err, out)
		}
	}
	return bin
}
