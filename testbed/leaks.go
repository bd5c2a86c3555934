package testbed

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
)

// leakDeadline is how long what a test started may take to go away: the
// kernel frees namespaces and links in the background.
const leakDeadline = 10 * time.Second

// CheckLeaks looks at everything that could outlive a test and fails it, when
// all its other cleanups have run, with what remains of: mounts, network
// namespaces, links, addresses, nftables rules, routing rules and routes,
// cgroups, processes. What was there at the start and is gone counts too,
// processes, cgroups and mounts aside. Call it first; not with t.Parallel.
//
// Mounts and the network are private to the test binary. Cgroups are the
// machine's: one counts when it is below a parent named berth*, appeared since
// and is empty or holds a process of this test binary.
func CheckLeaks(t testing.TB) {
	t.Helper()
	NeedKernel(t)
	left, err := Leaks()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, err := left()
		if err != nil {
			t.Error(err)
		}
		if len(list) > 0 {
			t.Errorf("left after %s:\n  %s", t.Name(), strings.Join(list, "\n  "))
		}
	})
}

// Leaks is CheckLeaks for a program that is not a test: it looks now, and what
// it returns looks again and lists what is left.
func Leaks() (left func() ([]string, error), err error) {
	before, err := look()
	if err != nil {
		return nil, err
	}
	return func() ([]string, error) { return await(before, look, leakDeadline) }, nil
}

// state is a look at the machine: each thing, and what else is known of it.
// A process is known by its pid alone: its name changes with exec.
type state map[string]string

// diff lists what is new in now and, with a minus, what it lacks.
func (before state) diff(now state) []string {
	var out []string
	for thing := range now {
		if _, ok := before[thing]; !ok {
			out = append(out, "+ "+thing)
		}
	}
	for thing := range before {
		// Processes end, and cgroups are the machine's: what went may have been
		// another test binary's, half made when this one looked. A mount that was
		// copied from outside goes with the folder it is on.
		passing := strings.HasPrefix(thing, "process ") || strings.HasPrefix(thing, "cgroup ") || strings.HasPrefix(thing, "mount ")
		if _, ok := now[thing]; !ok && !passing {
			out = append(out, "- "+thing)
		}
	}
	slices.Sort(out)
	return out
}

// await looks until nothing differs, and returns what differed all the time:
// what comes and goes is somebody else's.
func await(before state, look func() (state, error), limit time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	now, err := look()
	if err != nil {
		return nil, err
	}
	left := before.diff(now)
	for len(left) > 0 {
		select {
		case <-ctx.Done():
			for i, line := range left {
				left[i] = strings.TrimSpace(line + " " + now[strings.TrimPrefix(line, "+ ")])
			}
			return left, nil
		case <-tick.C:
		}
		if now, err = look(); err != nil {
			return nil, err
		}
		still := before.diff(now)
		left = slices.DeleteFunc(left, func(s string) bool { return !slices.Contains(still, s) })
	}
	return nil, nil
}

func look() (state, error) {
	s := state{}
	ours := map[int]bool{}
	for _, p := range descendants(os.Getppid()) {
		ours[p.pid] = true
		if p.pid != os.Getpid() {
			s[fmt.Sprintf("process %d", p.pid)] = "(" + p.comm + ")"
		}
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("look at mounts: %w", err)
	}
	for _, m := range mounts {
		s[fmt.Sprintf("mount %s (%s)", m.Mountpoint, m.FSType)] = ""
	}
	for _, dir := range []string{"/run/netns", "/var/run/netns"} {
		entries, _ := os.ReadDir(dir) // usually there is none
		for _, e := range entries {
			s["network namespace "+filepath.Join(dir, e.Name())] = ""
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("look at links: %w", err)
	}
	for _, l := range links {
		s[fmt.Sprintf("link %s (%s)", l.Attrs().Name, l.Type())] = ""
	}
	for kind, args := range map[string][]string{
		"nftables":  {"nft", "-s", "list", "ruleset"},
		"rule":      {"ip", "rule"},
		"rule6":     {"ip", "-6", "rule"},
		"route":     {"ip", "route", "show", "table", "all"},
		"route6":    {"ip", "-6", "route", "show", "table", "all"},
		"address":   {"ip", "-o", "address"},
		"neighbour": {"ip", "neighbour", "show", "nud", "permanent"},
	} {
		lines, err := output(args...)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			s[kind+" "+line] = ""
		}
	}
	maps.Copy(s, cgroups(ours))
	return s, nil
}

func output(args ...string) ([]string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		// A family without a single table is an error to ip.
		if strings.Contains(stderr.String(), "table does not exist") {
			return nil, nil
		}
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.Join(strings.Fields(line), " "); line != "" && line != "}" {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// cgroups lists those below a parent named berth*, in every hierarchy, that
// are empty or hold one of ours.
func cgroups(ours map[int]bool) state {
	const root = "/sys/fs/cgroup"
	s := state{}
	for _, pattern := range []string{"berth*", "*/berth*", "*/*/berth*"} {
		parents, _ := filepath.Glob(filepath.Join(root, pattern)) // the pattern is well formed
		for _, parent := range parents {
			_ = filepath.WalkDir(parent, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.IsDir() {
					return nil //nolint:nilerr // it went away while we looked
				}
				if path != parent && mine(path, ours) {
					s["cgroup "+path] = ""
				}
				return nil
			})
		}
	}
	return s
}

func mine(cgroup string, ours map[int]bool) bool {
	b, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		return false
	}
	pids := strings.Fields(string(b))
	return len(pids) == 0 || slices.ContainsFunc(pids, func(s string) bool {
		pid, err := strconv.Atoi(s)
		return err == nil && ours[pid]
	})
}
