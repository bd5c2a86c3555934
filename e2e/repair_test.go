package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"berth/api"
	"berth/testbed"
)

// wantedStack has a service that answers on port 8090, one that does nothing
// but live, and one that can't.
const wantedStack = `
services:
  web:
    image: berth-testbed/tiny
    command: ["-text", "here"]
    ports: ["8090:8080"]
  sleeper:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
  crasher:
    image: busybox
    command: sh -c 'echo trying; sleep 0.1; exit 1'
    profiles: [crash]
`

// TestRepair is what somebody else breaks while the agent runs.
func TestRepair(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "repair", wantedStack)
	s.up(t)

	// Each way to lose a container ends with another one, soon.
	for _, loss := range []struct {
		name    string
		inflict func(t *testing.T, c container)
	}{
		{"container killed from outside", func(t *testing.T, c container) { kill(t, m.inspect(t, c.ID).Pid) }},
		{"container removed by hand", func(t *testing.T, c container) { m.runtime(t, "delete", "-f", c.ID) }},
		{"conmon killed", func(t *testing.T, c container) { kill(t, m.conmon(t, c.ID)) }},
		{"conmon killed, then its container", func(t *testing.T, c container) {
			pid := m.inspect(t, c.ID).Pid
			kill(t, m.conmon(t, c.ID))
			kill(t, pid)
		}},
		{"container killed while no agent runs", func(t *testing.T, c container) {
			pid := m.inspect(t, c.ID).Pid
			kill(t, m.agentPid(t))
			kill(t, pid)
		}},
		{"container, conmon and rules gone while no agent runs", func(t *testing.T, c container) {
			pid := m.inspect(t, c.ID).Pid
			kill(t, m.agentPid(t))
			kill(t, m.conmon(t, c.ID))
			kill(t, pid)
			run(t, "nft", "flush", "ruleset")
		}},
	} {
		t.Run(loss.name, func(t *testing.T) {
			before := s.only(t, "web")
			loss.inflict(t, before)
			took := eventually(t, 12*time.Second, func() error {
				if c := s.only(t, "web"); c.ID == before.ID && loss.name != "conmon killed" || c.State != api.TaskRunning || !c.Ready || len(processes("conmon", m.run, c.ID)) == 0 {
					return fmt.Errorf("web: %+v", c)
				}
				return nil
			})
			t.Logf("back after %s", took.Round(10*time.Millisecond))
			eventually(t, time.Second, answers)
		})
	}

	t.Run("rules flushed", func(t *testing.T) {
		before := run(t, "nft", "-s", "list", "ruleset")
		run(t, "nft", "flush", "ruleset")
		took := eventually(t, time.Second, func() error {
			if now := run(t, "nft", "-s", "list", "ruleset"); now != before {
				return fmt.Errorf("the rules are\n%s\nnot\n%s", now, before)
			}
			return nil
		})
		t.Logf("rules are back after %s", took.Round(time.Millisecond))
		for range 20 {
			if err := answers(); err != nil {
				t.Fatal(err)
			}
		}
	})

	t.Run("bridge deleted", func(t *testing.T) {
		bridge := m.network(t, "repair_default").Bridge
		link, err := netlink.LinkByName(bridge)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkDel(link); err != nil {
			t.Fatal(err)
		}
		took := eventually(t, 12*time.Second, func() error {
			if _, err := netlink.LinkByName(bridge); err != nil {
				return err
			}
			return answers()
		})
		t.Logf("it answers again after %s", took.Round(time.Millisecond))
	})

	t.Run("routing guard deleted", func(t *testing.T) {
		before := fmt.Sprint(guards(t))
		deleteGuards(t)
		took := eventually(t, 12*time.Second, func() error {
			if now := fmt.Sprint(guards(t)); now != before {
				return fmt.Errorf("the guards are %s, not %s", now, before)
			}
			return nil
		})
		t.Logf("guards are back after %s", took.Round(time.Millisecond))
		if err := answers(); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("dataplane killed", func(t *testing.T) {
		before := processes("dataplane", m.run)
		if len(before) != 1 {
			t.Fatalf("there are %d dataplanes, want 1", len(before))
		}
		gateway, _ := s.address(t, "web", "repair_default")
		kill(t, before[0])
		took := eventually(t, 3*time.Second, func() error {
			_, err := resolve(t, gateway, "web")
			return err
		})
		t.Logf("names resolve again after %s", took.Round(time.Millisecond))
	})
}

func answers() error {
	body, err := fetch("http://127.0.0.1:8090/")
	if err == nil && body != "here\n" {
		err = fmt.Errorf("got %q", body)
	}
	return err
}

// TestRestart_OfWhatCrashes_BacksOff follows a container that can't live.
func TestRestart_OfWhatCrashes_BacksOff(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "crash", wantedStack)
	s.up(t, "crasher")
	eventually(t, 20*time.Second, func() error {
		c := s.only(t, "crasher")
		if c.Restarts < 5 || c.State != api.TaskRestarting {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	var starts []time.Time
	for _, e := range s.events(t) {
		if e.Service == "crasher" && e.Action == "start" {
			starts = append(starts, e.Time)
		}
	}
	if len(starts) < 5 {
		t.Fatalf("it was started %d times", len(starts))
	}
	// 0.1 s of life and a wait that doubles: the fourth gap is far longer.
	first, fourth := starts[1].Sub(starts[0]), starts[4].Sub(starts[3])
	if fourth < first+300*time.Millisecond {
		t.Errorf("the wait did not grow: %s, then %s", first, fourth)
	}
	if logs := s.must(t, "--profile", "crash", "logs", "crasher"); strings.Count(logs, "trying") < 3 {
		t.Errorf("the logs of what was replaced are gone:\n%s", logs)
	}
	if entries, err := os.ReadDir(filepath.Join(m.root, "tasks")); err != nil || len(entries) > 3 {
		t.Errorf("%d file systems are kept (%v)", len(entries), err)
	}
}
