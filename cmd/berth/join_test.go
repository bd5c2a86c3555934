package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"berth/api"
	"berth/spec"
)

func TestDetachReader_HandsOnAllButTheKeys(t *testing.T) {
	for in, want := range map[string]string{
		"plain":             "plain",
		"a\x10b":            "a\x10b",
		"a\x10\x10\x11b":    "a\x10",
		"\x10\x11":          "",
		"ab\x10\x11 never ": "ab",
		"ends in \x10":      "ends in ",
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(in), "single": iotest.OneByteReader(strings.NewReader(in))} {
			detached := false
			got, err := io.ReadAll(&detachReader{r: r, keys: []byte{0x10, 0x11}, detached: func() { detached = true }})
			if err != nil || detached != strings.Contains(in, "\x10\x11") {
				t.Errorf("%s %q: detached %v, %v", name, in, detached, err)
			}
			if name == "single" && string(got) != want {
				t.Errorf("%s %q: %q, want %q", name, in, got, want)
			}
		}
	}
}

func TestParseKeys(t *testing.T) {
	for text, want := range map[string][]byte{
		"": nil, "a": {'a'}, defaultDetachKeys: {0x10, 0x11}, "ctrl-@,ctrl-[,ctrl-_,z": {0, 0x1b, 0x1f, 'z'}, "ctrl-A": {1},
	} {
		if got, err := parseKeys(text); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"ctrl-", "ctrl-pq", "ctrl-1", "a,,b", "shift-a"} {
		if _, err := parseKeys(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestRunOverrides(t *testing.T) {
	t.Setenv("HERE", "yes")
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("FROM=file\nBOTH=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := []string{"serve"}
	req := api.RunRequest{Stack: spec.Stack{Volumes: map[string]spec.Volume{"data": {Key: "data", Name: "shop_data"}}}, Spec: spec.Service{
		Name: "web", Command: &cmd, Environment: map[string]string{"GONE": "1", "BOTH": "service", "KEPT": "1"},
		Mounts: []spec.Mount{{Type: spec.MountTmpfs, Target: "/x"}}, CapAdd: []string{"SYS_TIME"},
	}}
	o := runOverrides{
		entrypoint: `sh -c "a b"`, entrypointSet: true, env: []string{"BOTH=flag", "HERE", "GONE", "EMPTY="}, envFiles: []string{file},
		labels: []string{"k=v=w"}, publish: []string{"8000-8001:80-81/udp"}, volumes: []string{"data:/x:ro", "/host:/y"}, capAdd: []string{"NET_ADMIN"},
	}
	if err := o.apply(t.Context(), &app{}, &req); err != nil {
		t.Fatal(err)
	}
	s := req.Spec
	if !slices.Equal(*s.Entrypoint, []string{"sh", "-c", "a b"}) || s.Command != nil {
		t.Errorf("entrypoint %v, command %v", *s.Entrypoint, s.Command)
	}
	want := map[string]string{"FROM": "file", "BOTH": "flag", "HERE": "yes", "EMPTY": "", "KEPT": "1"}
	for k, v := range want {
		if got, ok := s.Environment[k]; !ok || got != v {
			t.Errorf("%s is %q", k, got)
		}
	}
	if len(s.Environment) != len(want) {
		t.Errorf("environment %v", s.Environment)
	}
	if s.Labels["k"] != "v=w" || len(s.Ports) != 2 || s.Ports[1].Target != 81 || s.Ports[1].Protocol != "udp" || len(s.CapAdd) != 2 {
		t.Errorf("labels %v, ports %v, capabilities %v", s.Labels, s.Ports, s.CapAdd)
	}
	if len(s.Mounts) != 2 || s.Mounts[0].Source != "data" || !s.Mounts[0].ReadOnly || s.Mounts[1].Source != "/host" {
		t.Errorf("mounts %+v", s.Mounts)
	}
	for _, bad := range []runOverrides{
		{env: []string{"=x"}},
		{labels: []string{"=x"}},
		{publish: []string{"x:y"}},
		{volumes: []string{"a:b"}},
		{envFiles: []string{"/not/there"}},
		{entrypoint: `"open`, entrypointSet: true},
	} {
		if err := bad.apply(t.Context(), &app{}, &req); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

func TestStarted_ExitsAsAShellWould(t *testing.T) {
	var e exit
	if err := started(&api.Error{Code: api.CodeStart, ExitCode: 127}); !errors.As(err, &e) || e.code != 127 {
		t.Errorf("%v", err)
	}
	if err := started(errors.New("else")); errors.As(err, &e) && e.code == 0 {
		t.Errorf("%v", err)
	}
}
