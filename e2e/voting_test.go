package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/testbed"
)

// TestVoting_WhateverDies_ComesBackWithItsData is the life of one stack whose
// file nobody has touched: votes that were counted stay counted.
func TestVoting_WhateverDies_ComesBackWithItsData(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.existing(t, "voting", voting(t))
	s.up(t)
	votes := map[string]int{}
	vote := func(choice string) {
		t.Helper()
		cast(t, choice)
		votes[choice]++
		eventually(t, 20*time.Second, func() error { return counted(votes) })
	}
	vote("a")
	vote("b")

	t.Run("agent killed", func(t *testing.T) {
		before := s.pids(t)
		gateway, redis := s.address(t, "redis", "voting_back-tier")
		kill(t, m.agentPid(t))

		vote("a") // published ports, names and the worker's connections work on
		if got, err := resolve(t, gateway, "tasks.redis"); err != nil || !slices.Equal(got, []netip.Addr{redis}) {
			t.Errorf("without an agent tasks.redis is %v (%v), want %v", got, err, redis)
		}
		if got := s.berth(t, "ps"); got.code != 0 || !strings.Contains(got.err, "started the agent") {
			t.Errorf("ps did not start the agent: %s", got)
		}
		if after := s.pids(t); !maps.Equal(after, before) {
			t.Errorf("the containers before and after:\n%v\n%v", before, after)
		}
		vote("b")
	})

	t.Run("database killed", func(t *testing.T) {
		before := s.only(t, "db")
		kill(t, m.inspect(t, before.ID).Pid)
		after := s.awaitOnly(t, "db", 30*time.Second, func(c container) bool { return c.ID != before.ID && c.Ready })
		if after.Restarts != 1 {
			t.Errorf("ps counts %d restarts, want 1", after.Restarts)
		}
		vote("a")
	})

	t.Run("machine rebooted", func(t *testing.T) {
		before := s.pids(t)
		m.reboot(t, before)
		begin := time.Now()
		// Any command starts the agent, as systemd does at boot.
		m.must(t, "ls")
		eventually(t, 60*time.Second, func() error { return allReady(s.ps(t)) })
		t.Logf("the stack was ready %s after the boot", time.Since(begin).Round(10*time.Millisecond))
		for id := range s.pids(t) {
			if _, was := before[id]; was {
				t.Errorf("container %s is said to have survived the reboot", id)
			}
		}
		list := s.events(t)
		for _, order := range [][2]string{{"redis", "vote"}, {"redis", "worker"}, {"db", "worker"}, {"db", "api"}} {
			if at(t, list, order[0], "health_status: healthy") > at(t, list, order[1], "start") {
				t.Errorf("%s was started before %s was healthy", order[1], order[0])
			}
		}
		vote("b")
	})
}

// cast casts one vote, as a voter nobody has seen before.
func cast(t *testing.T, choice string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	voter := &http.Client{Jar: jar, Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := voter.PostForm("http://127.0.0.1:5000/", url.Values{"vote": {choice}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("voting for %s: %s", choice, resp.Status)
	}
}

// counted says whether the result is votes.
func counted(votes map[string]int) error {
	body, err := fetch("http://127.0.0.1:5001/")
	if err != nil {
		return err
	}
	var result map[string]int
	if err := json.Unmarshal([]byte(body), &result); err != nil {
		return err
	}
	for choice, n := range votes {
		if result[choice] != n {
			return fmt.Errorf("the result is %v, want %v", result, votes)
		}
	}
	return nil
}

func allReady(list []container) error {
	for _, c := range list {
		if c.State != api.TaskRunning || !c.Ready {
			return fmt.Errorf("%s is %s (%s), ready: %v", c.Name, c.State, c.Status, c.Ready)
		}
	}
	return nil
}

// address is where a service's only task is on a network, and that network's
// gateway, which is its name server.
func (s *stack) address(t *testing.T, service, network string) (gateway string, addr netip.Addr) {
	t.Helper()
	task := s.inspect(t, s.only(t, service).ID)
	for _, n := range task.Networks {
		if n.Network == network {
			return s.network(t, network).Gateways[0], netip.MustParseAddr(n.IPv4)
		}
	}
	t.Fatalf("%s is not on %s: %+v", service, network, task.Networks)
	return "", addr
}

// network shows a network by its full name.
func (m *machine) network(t *testing.T, name string) api.Network {
	t.Helper()
	var list []api.Network
	text := m.must(t, "network", "inspect", name)
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
		t.Fatalf("network inspect %s: %v: %s", name, err, text)
	}
	return list[0]
}
