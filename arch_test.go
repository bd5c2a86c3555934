package berth_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The layering of the repository, held for what is linked: an import that
// comes in through three others counts as well.

func TestArch_CLI_LinksNoClusterStoreAndNoGit(t *testing.T) {
	for _, dep := range deps(t, "./cmd/berth") {
		for _, heavy := range []string{"go.etcd.io/etcd", "github.com/go-git", "berth/agent"} {
			if under(dep, heavy) {
				t.Errorf("cmd/berth links %s: its start-up is what people wait for", dep)
			}
		}
	}
}

func TestArch_Packages_ImportOnlyWhatTheyMay(t *testing.T) {
	for pkg, allowed := range map[string][]string{
		"spec":       nil,
		"reconciler": {"berth/spec"},
		"runtime":    {"berth/crash"},
		"overlaynet": {"berth/crash"},
		"images":     {"berth/crash"},
		"secrets":    {"berth/crash"},
		"dataplane":  {"berth/crash"},
		"store":      {"berth/spec"},
		"build":      {"berth/spec", "berth/crash"},
		"api":        {"berth/spec", "berth/images", "berth/build", "berth/crash"},
		"crash":      nil,
		"redact":     nil,
		"remote":     nil,
		"archive":    nil,
		"cli":        {"berth/spec", "berth/images", "berth/build", "berth/api", "berth/crash"},
	} {
		t.Run(pkg, func(t *testing.T) {
			own := "berth/" + pkg
			for _, dep := range deps(t, "./"+pkg) {
				if !under(dep, "berth") || under(dep, own) {
					continue
				}
				if !slices.ContainsFunc(allowed, func(a string) bool { return under(dep, a) }) {
					t.Errorf("%s links %s; it may link %v of ours", own, dep, allowed)
				}
			}
		})
	}
}

func TestArch_Programs_LinkNoTestCode(t *testing.T) {
	for _, program := range []string{"./cmd/berth", "./cmd/berthd"} {
		for _, dep := range deps(t, program) {
			if under(dep, "berth/testbed") || under(dep, "berth/examples") || dep == "testing" {
				t.Errorf("%s links %s", program, dep)
			}
		}
	}
}

func deps(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v\n%s", pkg, err, stderr.String())
	}
	return strings.Fields(string(out))
}

func under(dep, prefix string) bool {
	return dep == prefix || strings.HasPrefix(dep, prefix+"/")
}
