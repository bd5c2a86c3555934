package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDiskUsage_CountsEachFileOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	one := diskUsage(t.Context(), dir)
	if one < 1<<20 {
		t.Errorf("%d bytes", one)
	}
	if err := os.Link(file, filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if two := diskUsage(t.Context(), dir); two != one {
		t.Errorf("%d bytes with a second name, %d without", two, one)
	}
	if none := diskUsage(t.Context(), filepath.Join(dir, "nosuch")); none != 0 {
		t.Errorf("nothing takes %d bytes", none)
	}
}
