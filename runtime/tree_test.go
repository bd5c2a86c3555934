package runtime

import (
	"os/exec"
	"testing"
)

// A runtime that conmon has begun must not outlive it.
func TestKillTree_ChildrenOfChildrenToo(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sh -c 'sleep 1000 & sleep 1001 & wait' & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	var all []int
	eventually(t, "four processes", func() bool {
		all = all[:0]
		for todo := []int{cmd.Process.Pid}; len(todo) > 0; todo = todo[1:] {
			all = append(all, todo[0])
			todo = append(todo, children(todo[0])...)
		}
		return len(all) == 4
	})
	ids := map[int]procID{}
	for _, pid := range all {
		ids[pid] = identify(pid)
	}
	h := openPid(ids[cmd.Process.Pid])
	defer h.close()
	killTree(h)
	for pid, id := range ids {
		if !id.gone() {
			t.Errorf("process %d is still there", pid)
		}
	}
	killTree(h) // of what is gone is nothing
}
