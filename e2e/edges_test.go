package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// edges are the sharp edges of Compose, the checklist that stacks were found to
// depend on, each with what proves it: a test of a package, or a script of the
// conformance suite.
var edges = []struct{ edge, proof string }{
	1:  {"env_file, and an empty value in environment: the empty one wins", "spec: TestSharpEdge01_"},
	2:  {"${V:-} of a variable that is set but empty", "spec: TestSharpEdge02_"},
	3:  {"$$ in a healthcheck", "sharp-03-dollar-in-healthcheck"},
	4:  {"ranges of UDP ports", "sharp-04-port-ranges"},
	5:  {"depends_on a service of no replicas", "sharp-05-depends-on-nobody"},
	6:  {"two services with one container_name", "spec: TestSharpEdge06_"},
	7:  {"extends across files with relative paths", "spec: TestSharpEdge07_"},
	8:  {"ports in a second file are appended", "spec: TestSharpEdge08_"},
	9:  {"!reset of what the base has not", "spec: TestSharpEdge09_"},
	10: {"profiles, and a service that is named", "profiles"},
	11: {"an external network is missing: an error before any change", "sharp-11-external-network-missing"},
	12: {"a volume is seeded once; a second up keeps its data", "sharp-12-volume-seeded-once"},
	13: {"a tag has moved, pull_policy missing: nothing is replaced", "sharp-13-moved-tag"},
	14: {"a one-shot has exited 0: a second up does nothing", "sharp-14-one-shot-done"},
	15: {"an anonymous volume stays on replacement, and goes with -V", "sharp-15-anonymous-volume"},
	16: {"an unhealthy replica gets no traffic", "sharp-16-sick-replica"},
	17: {"Ctrl-C during a rollout: it goes on", "e2e: TestCLI_Up_CtrlC"},
	18: {"the agent is killed during a rollout: the next one ends it", "e2e: TestCrash_AgentKilledAmidARollout_"},
	19: {"a network is renamed with containers on it", "sharp-19-network-renamed"},
	20: {"two stacks in folders of one name", "sharp-20-same-folder-name"},
	21: {"merge keys of several anchors", "spec: TestSharpEdge21_"},
	22: {"sizes with and without a b", "spec: TestSharpEdge22_"},
	23: {"durations with and without a unit", "spec: TestSharpEdge23_"},
	24: {"a variable without a value", "spec: TestSharpEdge24_"},
	25: {"./x:/y:ro,z", "sharp-25-bind-options"},
}

// TestEdges_EachHasItsProof fails when one loses it.
func TestEdges_EachHasItsProof(t *testing.T) {
	for n, e := range edges[1:] {
		if !proof(t, e.proof) {
			t.Errorf("edge %d, %s: there is no %s", n+1, e.edge, e.proof)
		}
	}
}

// proof finds a script, or a test as PACKAGE: NAME.
func proof(t *testing.T, name string) bool {
	pkg, test, inGo := strings.Cut(name, ": ")
	if !inGo {
		_, err := os.Stat(filepath.Join(conformance, name+".txtar"))
		return err == nil
	}
	files, err := filepath.Glob(filepath.Join("..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+test) {
			return true
		}
	}
	return false
}
