package spec_test

import (
	"slices"
	"strings"
	"testing"

	"berth/spec"
)

// The sharp edges of Compose that stacks depend on: each test has the number
// of one in the list of features.md, section 3.16. Those that only show in a
// running container are in testdata/conformance.

func TestSharpEdge01_EmptyEnvironmentWinsOverEnvFile(t *testing.T) {
	r := load(t, spec.Options{Dir: write(t, `
-- compose.yaml --
services: {a: {image: i, env_file: a.env, environment: {K: ""}}}
-- a.env --
K=from-file
L=from-file
`)})
	env := r.Stack.Services["a"].Environment
	if v, set := env["K"]; !set || v != "" || env["L"] != "from-file" {
		t.Errorf("%v", env)
	}
}

func TestSharpEdge02_DefaultOfAVariableThatIsSetButEmpty(t *testing.T) {
	dir := write(t, `
-- compose.yaml --
services: {a: {image: i, environment: ["A=${V:-full}", "B=${V-unset}", "C=${V:-}", "D=${V:+alt}", "E=${V+alt}"]}}
`)
	env := load(t, spec.Options{Dir: dir, Environ: []string{"V="}}).Stack.Services["a"].Environment
	for k, want := range map[string]string{"A": "full", "B": "", "C": "", "D": "", "E": "alt"} {
		if v, set := env[k]; !set || v != want {
			t.Errorf("%s is %q, want %q", k, v, want)
		}
	}
}

func TestSharpEdge06_TwoServicesOneContainerName(t *testing.T) {
	r := load(t, spec.Options{Dir: write(t, `
-- compose.yaml --
services:
  a: {image: i, container_name: app}
  b: {image: i, container_name: app}
`)})
	found := r.Diagnostics.Filter(spec.Warning)
	if len(found) != 1 || !strings.Contains(found[0].Message, "container_name app is the name of service a too") || found[0].Line != 3 {
		t.Errorf("%v", found)
	}
}

func TestSharpEdge07_ExtendsAcrossFiles_PathsOfTheOther(t *testing.T) {
	dir := write(t, `
-- compose.yaml --
services: {a: {extends: {file: base/base.yaml, service: b}}}
-- base/base.yaml --
services: {b: {image: i, build: ./ctx, env_file: ./e.env, volumes: ["./data:/data"]}}
-- base/e.env --
K=v
-- base/ctx/Dockerfile --
FROM scratch
`)
	r := load(t, spec.Options{Dir: dir})
	s := r.Stack.Services["a"]
	if s.Environment["K"] != "v" {
		t.Errorf("env_file is not found beside base.yaml: %v", s.Environment)
	}
	if len(s.Mounts) != 1 || s.Mounts[0].Source != dir+"/base/data" {
		t.Errorf("mounts %v", s.Mounts)
	}
	if got := r.Project.Services["a"].Build.Context; got != dir+"/base/ctx" {
		t.Errorf("context %s", got)
	}
}

func TestSharpEdge08_PortsOfTheSecondFileAreAppended(t *testing.T) {
	r := load(t, spec.Options{Dir: write(t, `
-- compose.yaml --
services: {a: {image: i, ports: ["8080:80"]}}
-- compose.override.yaml --
services: {a: {ports: ["8443:443"]}}
`)})
	var got []uint16
	for _, p := range r.Stack.Services["a"].Ports {
		got = append(got, p.Published)
	}
	if !slices.Equal(got, []uint16{8080, 8443}) {
		t.Errorf("%v", got)
	}
}

func TestSharpEdge09_ResetOfWhatIsNotThere(t *testing.T) {
	r := load(t, spec.Options{Dir: write(t, `
-- compose.yaml --
services: {a: {image: i, environment: {K: v}}}
-- compose.override.yaml --
services:
  a:
    ports: !reset []
    labels: !reset {}
    environment:
      NOT_THERE: !reset null
      K: !reset null
`)})
	if s := r.Stack.Services["a"]; len(s.Environment) != 0 || len(s.Ports) != 0 {
		t.Errorf("%v, %v", s.Environment, s.Ports)
	}
}

func TestSharpEdge21_MergeKeysOfSeveralAnchors_TheFirstWins(t *testing.T) {
	r := load(t, spec.Options{Dir: write(t, `
-- compose.yaml --
x-a: &a {user: "1", tty: true}
x-b: &b {user: "2", hostname: b}
services: {a: {<<: [*a, *b], image: i, hostname: own}}
`)})
	if s := r.Stack.Services["a"]; s.User != "1" || s.Hostname != "own" || !s.TTY {
		t.Errorf("user %s, hostname %s, tty %v", s.User, s.Hostname, s.TTY)
	}
}

func TestSharpEdge22_SizesWithAndWithoutB(t *testing.T) {
	for text, want := range map[string]int64{
		"1g": 1 << 30, "1.5gb": 3 << 29, "512m": 512 << 20, "64M": 64 << 20, "2048k": 2 << 20, "10485760": 10 << 20, "10485760b": 10 << 20,
	} {
		r := load(t, spec.Options{Dir: write(t, "-- compose.yaml --\nservices: {a: {image: i, mem_limit: "+text+"}}\n")})
		if got := r.Stack.Services["a"].Resources.Memory; got != want {
			t.Errorf("%s is %d, want %d", text, got, want)
		}
	}
}

func TestSharpEdge23_Durations(t *testing.T) {
	for text, want := range map[string]string{"1m30s": "1m30s", "90s": "1m30s", "1h": "1h0m0s", "500ms": "500ms"} {
		r := load(t, spec.Options{Dir: write(t, "-- compose.yaml --\nservices: {a: {image: i, stop_grace_period: "+text+"}}\n")})
		if got := r.Stack.Services["a"].StopGracePeriod; got == nil || got.String() != want {
			t.Errorf("%s is %v, want %s", text, got, want)
		}
	}
	// A bare number has no unit: the reference refuses it, and so do we, with
	// the place.
	r, err := spec.Load(t.Context(), spec.Options{Dir: write(t, "-- compose.yaml --\nservices: {a: {image: i, stop_grace_period: 90}}\n")})
	if err != nil || r.Diagnostics.Err() == nil || !strings.Contains(r.Diagnostics.Err().Error(), `compose.yaml:1:45: stop_grace_period of service a: "90" is not a duration`) {
		t.Errorf("%v, %v", r.Diagnostics, err)
	}
}

func TestSharpEdge24_VariableWithoutAValueIsTakenFromOutside(t *testing.T) {
	dir := write(t, `
-- compose.yaml --
services:
  list: {image: i, environment: [GIVEN, ABSENT, "EMPTY="]}
  map: {image: i, environment: {GIVEN: , ABSENT: , EMPTY: ""}}
`)
	r := load(t, spec.Options{Dir: dir, Environ: []string{"GIVEN=yes"}})
	for _, name := range []string{"list", "map"} {
		env := r.Stack.Services[name].Environment
		if _, set := env["ABSENT"]; set || env["GIVEN"] != "yes" || len(env) != 2 {
			t.Errorf("%s: %v", name, env)
		}
	}
}
