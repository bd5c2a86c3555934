package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/testbed"
)

// TestCrash_AgentKilledAmidARollout_TheNextOneEndsIt kills the agent at many
// moments of a change. Whatever was half made is adopted or taken back: there
// are as many containers as wanted, all of the new version, none forgotten.
func TestCrash_AgentKilledAmidARollout_TheNextOneEndsIt(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "crash", `
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
    environment: {VERSION: "0"}
    volumes: ["data:/data"]
    secrets: [word]
    deploy: {replicas: 3, update_config: {parallelism: 0, order: start-first, monitor: 0s}}
  once:
    image: busybox
    command: sh -c 'echo ran'
    environment: {VERSION: "0"}
volumes:
  data: {}
secrets:
  word: {file: word.txt}
`)
	s.write(t, "word.txt", "word")
	s.up(t)
	for round, delay := range []time.Duration{60, 100, 140, 180, 220, 260, 320, 400} {
		version := fmt.Sprint(round + 1)
		text, err := os.ReadFile(s.file)
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, "compose.yaml", strings.ReplaceAll(string(text), fmt.Sprintf("VERSION: %q", fmt.Sprint(round)), fmt.Sprintf("VERSION: %q", version)))
		up := s.begin(t, "up", "-d")
		select {
		case <-up.done:
		case <-time.After(delay * time.Millisecond):
		}
		kill(t, m.agentPid(t))
		up.wait(t, 10*time.Second) // cut off: the next one brings it to its end
		s.up(t)
		s.isWhole(t, version)
	}
}

// isWhole wants three containers of web at a version, and no trace of others.
func (s *stack) isWhole(t *testing.T, version string) {
	t.Helper()
	wanted := map[string]bool{}
	for _, c := range s.ps(t) {
		wanted[c.ID] = true
		if c.Service == "web" && c.State != api.TaskRunning {
			t.Errorf("%s: %+v", c.Name, c)
			continue
		}
		if c.Service != "web" {
			continue
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.inspect(t, c.ID).Pid))
		if err != nil || !strings.Contains(string(env), "VERSION="+version+"\x00") {
			t.Errorf("%s is not of version %s (%v): %q", c.Name, version, err, env)
		}
	}
	if len(wanted) != 4 {
		t.Errorf("there are %d containers, want 4", len(wanted))
	}
	// What an older agent's container left may still be on its way out.
	eventually(t, 5*time.Second, func() error {
		for _, dir := range []string{filepath.Join(s.run, "c"), filepath.Join(s.run, "tasks"), filepath.Join(s.root, "tasks")} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if !wanted[e.Name()] {
					return fmt.Errorf("%s is left", filepath.Join(dir, e.Name()))
				}
			}
		}
		return nil
	})
}
