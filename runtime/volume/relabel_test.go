package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRelabel_ReachesEverythingBelow_AndRefusesTheHostsFolders(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a", "f")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	const attr = "user.label"
	if err := relabel(dir, attr, "x"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, filepath.Dir(file), file} {
		b := make([]byte, 8)
		n, err := unix.Lgetxattr(p, attr, b)
		if err != nil || string(b[:n]) != "x" {
			t.Errorf("%s has label %q, %v", p, b[:max(n, 0)], err)
		}
	}
	for _, p := range []string{"/", "/etc", "/usr/", "/var/../home"} {
		if err := relabel(p, attr, "x"); err == nil || !strings.Contains(err.Error(), "belongs to the host") {
			t.Errorf("relabel %s: %v", p, err)
		}
	}
}
