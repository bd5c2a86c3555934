package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const vendor = `{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu",
 "containerEdits": {"env": ["ALL=1"], "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook"]}]},
 "devices": [
  {"name": "0", "containerEdits": {"env": ["A=zero"], "additionalGids": [44, 0],
    "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}],
    "mounts": [{"hostPath": "/lib/x", "containerPath": "/lib/x/../y", "options": ["ro"]}]}},
  {"name": "1", "containerEdits": {"env": ["A=one"]}},
  {"name": "all", "containerEdits": {"env": ["A=all"]}}]}`

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestApply_EditsOfFileOnceAndOfEachDevice(t *testing.T) {
	r := Read(write(t, map[string]string{"nvidia.json": vendor}), "/nowhere")
	s := &specs.Spec{
		Process: &specs.Process{Env: []string{"A=before", "B=kept"}},
		Linux:   &specs.Linux{Resources: &specs.LinuxResources{}},
	}
	if err := r.Apply(s, []string{"nvidia.com/gpu=0", "nvidia.com/gpu=0", "nvidia.com/gpu=1"}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"B=kept", "ALL=1", "A=one"}; !slices.Equal(s.Process.Env, want) {
		t.Errorf("env %q", s.Process.Env)
	}
	if d := s.Linux.Devices; len(d) != 1 || d[0].Path != "/dev/gpu0" || d[0].Type != "c" || d[0].Major != 1 || d[0].Minor != 3 {
		t.Errorf("devices %+v", d)
	}
	if rules := s.Linux.Resources.Devices; len(rules) != 1 || rules[0].Access != "rw" || !rules[0].Allow {
		t.Errorf("rules %+v", rules)
	}
	if m := s.Mounts; len(m) != 1 || m[0].Destination != "/lib/y" || m[0].Type != "bind" || !slices.Equal(m[0].Options, []string{"ro", "rbind"}) {
		t.Errorf("mounts %+v", m)
	}
	if s.Hooks == nil || len(s.Hooks.CreateContainer) != 1 {
		t.Errorf("hooks %+v", s.Hooks)
	}
	if g := s.Process.User.AdditionalGids; !slices.Equal(g, []uint32{44}) {
		t.Errorf("groups %v", g) // root's group is nobody's to give
	}
	if err := r.Apply(s, []string{"nvidia.com/gpu=9"}); !errors.Is(err, ErrNoDevice) {
		t.Errorf("a device that is not there: %v", err)
	}
}

func TestResolve_WhatIsAskedFor(t *testing.T) {
	amd := strings.ReplaceAll(vendor, "nvidia.com", "zz.amd.com")
	r := Read(write(t, map[string]string{"nvidia.json": vendor, "amd.yaml": amd}))
	for _, c := range []struct {
		q    Request
		want string // or the hint of an error
	}{
		{Request{Count: -1, Capabilities: []string{"gpu"}}, "nvidia.com/gpu=all"},
		{Request{Driver: "nvidia", Count: 2, Capabilities: []string{"gpu", "utility"}}, "nvidia.com/gpu=0 nvidia.com/gpu=1"},
		{Request{Driver: "amd", Count: 1}, "zz.amd.com/gpu=0"},
		{Request{IDs: []string{"1", "nvidia.com/gpu=0"}}, "nvidia.com/gpu=1 nvidia.com/gpu=0"},
		{Request{Driver: "cdi", IDs: []string{"nvidia.com/gpu=1"}}, "nvidia.com/gpu=1"},
		{Request{Driver: "nvidia", Count: 3}, "ask for fewer"},
		{Request{Driver: "nvidia", IDs: []string{"7"}}, "nvidia-ctk"},
		{Request{Driver: "intel", Count: -1, Capabilities: []string{"gpu"}}, "Intel"},
		{Request{Driver: "cdi", IDs: []string{"acme.org/fpga=1"}}, "vendor's tool"},
		{Request{Capabilities: []string{"tpu"}, Count: -1}, "nvidia-ctk"},
	} {
		got, err := r.Resolve(c.q)
		text := strings.Join(got, " ")
		if m := (*Missing)(nil); errors.As(err, &m) {
			if !strings.Contains(m.Hint, c.want) {
				t.Errorf("%+v: hint %q, want %q", c.q, m.Hint, c.want)
			}
			continue
		}
		if err != nil || text != c.want {
			t.Errorf("%+v: %s, %v; want %s", c.q, text, err, c.want)
		}
	}
}

// TestRead_HostileFiles_AreLeftOut_TheOthersCount: a wrong file must not hide a
// right one.
func TestRead_HostileFiles_AreLeftOut_TheOthersCount(t *testing.T) {
	edit := func(e string) string {
		return `{"cdiVersion": "0.6.0", "kind": "a.b/c", "devices": [{"name": "x", "containerEdits": ` + e + `}]}`
	}
	dir := write(t, map[string]string{
		"good.json": vendor, "half.json": vendor[:100], "list.yaml": "- 1", "readme.txt": "x",
		"version.json": `{"cdiVersion": "9.0", "kind": "a.b/c"}`, "kind.json": `{"cdiVersion": "0.6.0", "kind": "gpu"}`,
		"env.json": edit(`{"env": ["=x"]}`), "node.json": edit(`{"deviceNodes": [{"path": "dev/x"}]}`),
		"root.json": edit(`{"mounts": [{"hostPath": "/", "containerPath": "/.."}]}`),
		"hook.json": edit(`{"hooks": [{"hookName": "now", "path": "/bin/sh"}]}`),
		"perm.json": edit(`{"deviceNodes": [{"path": "/dev/x", "permissions": "rwx"}]}`),
	})
	if err := os.Mkdir(filepath.Join(dir, "folder.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := Read(dir)
	if !r.Has("nvidia.com/gpu=0") || !slices.Equal(r.Kinds(), []string{"nvidia.com/gpu"}) {
		t.Errorf("kinds %q", r.Kinds())
	}
	if len(r.Skipped) != 10 {
		t.Errorf("%d were skipped: %v", len(r.Skipped), r.Skipped)
	}
}

func TestRead_LaterFolderWins(t *testing.T) {
	etc := write(t, map[string]string{"a.json": vendor})
	run := write(t, map[string]string{"a.json": strings.ReplaceAll(vendor, "A=zero", "A=newer")})
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	if err := Read(etc, run).Apply(s, []string{"nvidia.com/gpu=0"}); err != nil || !slices.Contains(s.Process.Env, "A=newer") {
		t.Errorf("%v, env %q", err, s.Process.Env)
	}
}
