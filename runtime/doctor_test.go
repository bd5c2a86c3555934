package runtime

import (
	"path/filepath"
	"strings"
	"testing"

	"berth/testbed"
)

func TestProbe_BothRuntimesWorkHere(t *testing.T) {
	testbed.NeedKernel(t)
	rep := Probe(t.Context(), Config{Root: t.TempDir(), Run: filepath.Join(t.TempDir(), "run"), CgroupParent: "/berth-probe"})
	if len(rep.Runtimes) != 2 || rep.Chosen == "" || rep.Chosen != rep.Runtimes[0].Path {
		t.Fatalf("report %+v", rep)
	}
	for _, r := range rep.Runtimes {
		if !r.Works || r.Version == "" {
			t.Errorf("%+v", r)
		}
	}
	if rep.Conmon.Version == "" || rep.Conmon.Path == "" || rep.Cgroups == "" {
		t.Errorf("report %+v", rep)
	}
	for _, dir := range findCgroups().dirs("/berth-probe") {
		if err := removeCgroup(dir); err != nil {
			t.Error(err)
		}
	}
}

func TestProbe_WhatIsMissing_IsNamed(t *testing.T) {
	rep := Probe(t.Context(), Config{Root: t.TempDir(), Run: t.TempDir(), Runtime: "/no/such/crun", Conmon: "/no/conmon"})
	if rep.Chosen != "" || len(rep.Runtimes) != 1 || rep.Runtimes[0].Error != "not installed" || !strings.Contains(rep.Conmon.Error, "/no/conmon") {
		t.Errorf("report %+v", rep)
	}
}

func TestFloors(t *testing.T) {
	for _, c := range []struct {
		name, version string
		warnings      int
	}{
		{"runc", "1.1.5+ds1", 2},
		{"runc", "1.2.7", 1},
		{"runc", "1.2.8", 0},
		{"runc", "1.10.0", 0},
		{"crun", "1.8.1", 2},
		{"crun", "1.27", 1},
		{"crun", "1.28", 0},
		{"crun", "2.0-rc1", 0},
		{"conmon", "2.1.6", 1},
		{"conmon", "2.2.0", 0},
		{"crun", "", 0},
	} {
		if got := floors(c.name, c.version); len(got) != c.warnings {
			t.Errorf("%s %s: %q", c.name, c.version, got)
		}
	}
}
