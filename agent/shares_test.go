package agent

import (
	"testing"
	"time"

	"berth/spec"
	"berth/store"
)

func TestContainerNamed_ReadyAndStaying_GoesFirst(t *testing.T) {
	now := time.Unix(1, 0)
	task := func(id string, state store.State, edit func(*store.Task)) *store.Task {
		out := &store.Task{ID: id, Stack: "shop", Service: "web", Slot: 1, State: state, Spec: spec.Service{ContainerName: "the-web"}}
		if edit != nil {
			edit(out)
		}
		return out
	}
	tasks := []*store.Task{
		task("aaaa1", store.StateExited, nil),
		task("bbbb1", store.StatePending, nil),
		task("cccc1", store.StateRunning, func(t *store.Task) { t.StopAt, t.ReadySince = now, now }),
		task("dddd1", store.StateRunning, func(t *store.Task) { t.ReadySince = now }),
		task("eeee1", store.StateRunning, nil),
	}
	for name, want := range map[string]string{
		"shop-web-1": "dddd1", "the-web": "dddd1", "cccc": "cccc1", "eeee1": "eeee1", "aaaa1": "", "ddd": "", "": "", "shop-web-2": "",
	} {
		got := ""
		if found := containerNamed(tasks, name); found != nil {
			got = found.ID
		}
		if got != want {
			t.Errorf("%q leads to %q, want %q", name, got, want)
		}
	}
}

func TestShares_OneOfEach_AndOnlyWhatRuns(t *testing.T) {
	s := &spec.Service{NetworkMode: "service:web", PidMode: "service:web", IpcMode: "container:x", UtsMode: "host"}
	of, containers := shares(view{tasks: []*store.Task{{ID: "aaaa1", State: store.StatePending, Spec: spec.Service{ContainerName: "x"}}}}, s)
	if len(of) != 2 || of[0] != "container:x" || of[1] != "service:web" || len(containers) != 0 {
		t.Errorf("%q, %v", of, containers)
	}
}
