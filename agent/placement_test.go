package agent

import (
	"errors"
	"strings"
	"testing"

	"berth/api"
	"berth/spec"
	"berth/store"
)

func TestFits_SaysWhatDoesNotHold(t *testing.T) {
	n := &spec.Node{ID: "n1", Hostname: "Box", Role: "manager", OS: "linux", Arch: "amd64", Labels: map[string]string{"disk": "ssd"}}
	for _, c := range []struct {
		constraint, why string
	}{
		{"node.labels.disk == SSD", ""},
		{"node.labels.disk != ssd", "node.labels.disk is ssd here"},
		{"node.labels.zone == a", "node.labels.zone is nothing here"},
		{"node.labels.zone != a", ""},
		{"node.hostname==box", ""},
		{"node.id != n1", "node.id is n1 here"},
		{"node.role == worker", "node.role is manager here"},
		{"node.platform.arch == x86_64", ""},
		{"node.platform.os == windows", "node.platform.os is linux here"},
		{"engine.labels.disk==ssd", ""},
	} {
		s := spec.Service{Replicas: 2, Constraints: []string{c.constraint}}
		most, why, attr := fits(n, &s)
		if (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %q, want %q", c.constraint, why, c.why)
		}
		if want := map[bool]int{true: 2}[c.why == ""]; most != want {
			t.Errorf("%s: %d tasks fit, want %d", c.constraint, most, want)
		}
		if c.why != "" && attr != "constraints.0" {
			t.Errorf("%s: blames %s", c.constraint, attr)
		}
	}
	s := spec.Service{Replicas: 5, MaxPerNode: 3}
	if most, why, _ := fits(n, &s); most != 3 || why == "" {
		t.Errorf("max_replicas_per_node: %d fit, %q", most, why)
	}
}

func TestNodeIdentity_IsKept(t *testing.T) {
	cfg := &Config{Root: t.TempDir()}
	first, err := nodeIdentity(cfg)
	if err != nil {
		t.Fatal(err)
	}
	again, err := nodeIdentity(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if first.ID == "" || first.ID != again.ID {
		t.Errorf("ids %q and %q", first.ID, again.ID)
	}
}

func TestCheckCPUs_CountsWhatOtherStacksReserve(t *testing.T) {
	a := &Agent{w: &world{stacks: map[string]*store.Stack{}, revisions: map[string]*store.Revision{}}, cpus: 4}
	reserve := func(name string, replicas int, nano int64) *store.Revision {
		return &store.Revision{Stack: spec.Stack{Name: name, Services: map[string]spec.Service{
			"web": {Name: "web", Replicas: replicas, Resources: spec.Resources{CPUReservation: nano}},
		}}}
	}
	a.w.stacks["other"], a.w.revisions["other"] = &store.Stack{}, reserve("other", 1, 2e9)
	a.w.stacks["shop"], a.w.revisions["shop"] = &store.Stack{}, reserve("shop", 9, 1e9) // is replaced, and does not count
	if err := a.checkCPUs(&api.ApplyRequest{}, reserve("shop", 2, 1e9)); err != nil {
		t.Errorf("two of four, two are taken: %v", err)
	}
	err := a.checkCPUs(&api.ApplyRequest{}, reserve("shop", 3, 1e9))
	var e *api.Error
	if !errors.As(err, &e) || !strings.Contains(e.Detail, "beside 2.00 of other stacks") {
		t.Errorf("three of four, two are taken: %v", err)
	}
	a.w.stacks["other"] = &store.Stack{Removing: &store.Removal{}}
	if err := a.checkCPUs(&api.ApplyRequest{}, reserve("shop", 3, 1e9)); err != nil {
		t.Errorf("the other stack goes: %v", err)
	}
}

func TestCompletions_CountSlotsOfAVersion(t *testing.T) {
	list := addCompletions(addCompletions(addCompletions(nil, "k1", 1), "k2", 3), "k1", 2)
	for key, want := range map[string]int{"k1": 2, "k2": 3, "k3": 0} {
		if got := completions(list, key); got != want {
			t.Errorf("%s: %d, want %d in %v", key, got, want, list)
		}
	}
	for range 2 * keptCompletions {
		list = addCompletions(list, "k"+strings.Repeat("x", len(list)), 1)
	}
	if len(list) > keptCompletions {
		t.Errorf("%d versions are kept", len(list))
	}
}
