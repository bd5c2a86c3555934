package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"

	"berth/testbed"
)

var (
	cutRounds = flag.Int("cut.rounds", 6, "how many times an up is cut short")
	cutSeed   = flag.Uint64("cut.seed", 0, "which moments and what befalls; 0: others each time")
	cutLoad   = flag.Int("cut.load", 0, "how many processes keep the machine busy meanwhile")
)

// eight has every sort of thing that a task holds: networks, ports, volumes,
// secrets, configs, shared memory, a namespace of another's, a one-shot.
const eight = `
x-all: &all {image: busybox, command: sleep 1000, stop_signal: KILL, environment: {VERSION: "0"}}
services:
  web: {<<: *all, ports: ["8095:80"], networks: [front, back], secrets: [word], deploy: {replicas: 2, update_config: {monitor: 0s}}}
  side: {<<: *all, network_mode: "service:web2"}
  web2: {<<: *all, networks: [front], configs: [page]}
  db: {<<: *all, networks: [back], volumes: ["data:/data"], shm_size: 16m, secrets: [word]}
  once: {<<: *all, command: "true", networks: [back]}
  later: {<<: *all, networks: [back], depends_on: {once: {condition: service_completed_successfully}}}
  host: {<<: *all, network_mode: host, tmpfs: [/t], cgroup_parent: nested}
  peer: {<<: *all, networks: [front], pid: "service:web2", healthcheck: {test: "true", interval: 1s}}
networks: {front: {}, back: {internal: true}}
volumes: {data: {}}
secrets: {word: {file: word.txt}}
configs: {page: {content: page}}
`

// TestCutShort_NothingIsLeft cuts ups and downs short at any moment: the agent
// is killed or stopped, the command is interrupted, another one comes. After a
// down there is nothing that the store does not know of. -cut.seed plays a
// failure again, as far as time lets it.
func TestCutShort_NothingIsLeft(t *testing.T) {
	testbed.NeedKernel(t)
	seed := *cutSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-cut.seed %d -cut.rounds %d -cut.load %d", seed, *cutRounds, *cutLoad)
	r := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(t)
	for range *cutLoad {
		busy(t)
	}
	s := m.stack(t, "eight", eight)
	s.write(t, "word.txt", "word")
	s.up(t)
	s.must(t, "down", "--volumes", "--timeout", "0")
	for round := range *cutRounds {
		var story []string
		for range 1 + r.IntN(3) {
			story = append(story, s.cutShort(t, r, round))
		}
		s.must(t, "down", "--volumes", "--timeout", "0")
		var left []string
		begin := time.Now()
		for ; time.Since(begin) < 10*time.Second; <-time.After(50 * time.Millisecond) {
			if left = s.leftovers(t); len(left) == 0 {
				break
			}
		}
		if len(left) > 0 {
			t.Fatalf("round %d (%s) left\n  %s", round, strings.Join(story, "; "), strings.Join(left, "\n  "))
		}
	}
}

// cutShort begins something, and lets something befall it after a while.
func (s *stack) cutShort(t *testing.T, r *rand.Rand, round int) string {
	t.Helper()
	text := strings.ReplaceAll(eight, `VERSION: "0"`, fmt.Sprintf("VERSION: %q", fmt.Sprint(round, r.IntN(3))))
	s.write(t, "compose.yaml", text)
	what := [][]string{{"up", "-d"}, {"up", "-d"}, {"up", "-d", "--force-recreate"}, {"down", "--timeout", "0"}, {"restart", "--timeout", "0"}}[r.IntN(5)]
	delay := time.Duration(r.IntN(1200)) * time.Millisecond
	cmd := s.begin(t, what...)
	select {
	case <-cmd.done:
	case <-time.After(delay):
	}
	befalls := []string{"kill -9", "kill -9", "berthd stop", "down", "interrupt"}[r.IntN(5)]
	switch befalls {
	case "kill -9":
		if _, err := os.Stat(filepath.Join(s.root, "agent.pid")); err == nil {
			kill(t, s.agentPid(t))
		}
	case "berthd stop":
		s.stop(t)
	case "down":
		if r := s.berth(t, "down", "--timeout", "0"); r.code != 0 && !strings.Contains(r.err, "is being changed by") {
			t.Error(r)
		}
	case "interrupt":
		select {
		case <-cmd.done:
		default:
			cmd.interrupt(t)
		}
	}
	cmd.wait(t, 60*time.Second)
	return fmt.Sprintf("%s, after %s %s", strings.Join(what, " "), delay, befalls)
}

// stop stops the agent as its user would.
func (m *machine) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "berthd"), "stop", "--root", m.root, "--run", m.run)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("berthd stop: %v: %s", err, out)
	}
}

// busy is a process that takes what it gets of a processor.
func busy(t *testing.T) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has not ended by itself
		_ = cmd.Wait()
	})
}

// leftovers lists what there is on a machine that has no stack.
func (m *machine) leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	say := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }
	for _, args := range [][]string{{"ls", "-a", "-q"}, {"volume", "ls", "-q"}} {
		if out := m.must(t, args...); out != "" {
			say("berth %s: %q", strings.Join(args, " "), out)
		}
	}
	for _, pid := range processes(m.run) {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have ended
		text := strings.ReplaceAll(string(line), "\x00", " ")
		if text != "" && pid != m.agentPid(t) && !strings.Contains(text, "berthd dataplane") {
			say("process %d: %.300s", pid, text)
		}
	}
	for _, dir := range []string{
		filepath.Join(m.run, "c"), filepath.Join(m.run, "tasks"), filepath.Join(m.run, "netns"), filepath.Join(m.run, "secrets"),
		filepath.Join(m.run, "exits"), filepath.Join(m.run, "crun"), filepath.Join(m.run, "runc"),
		filepath.Join(m.root, "tasks"), filepath.Join(m.root, "volumes"),
	} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			say("file %s", filepath.Join(dir, e.Name()))
		}
	}
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(i.Mountpoint, m.dir+"/"), false
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range mounts {
		say("mount %s (%s)", i.Mountpoint, i.FSType)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "bridge" || l.Type() == "veth" {
			say("link %s (%s)", l.Attrs().Name, l.Type())
		}
	}
	if tables := run(t, "nft", "list", "tables"); tables != "" {
		say("%s", strings.TrimSpace(tables))
	}
	for family, prefs := range guards(t) {
		say("rules %s of %s", prefs, family)
	}
	for _, pattern := range []string{m.cgroups, "*" + m.cgroups} {
		parents, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", pattern)) // the pattern is well formed
		for _, parent := range parents {
			_ = filepath.WalkDir(parent, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() && path != parent {
					say("cgroup %s", path)
				}
				return nil
			})
		}
	}
	slices.Sort(left)
	return left
}
