package build

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/spec"
)

func newRoom(t *testing.T) room {
	t.Helper()
	return room{t.TempDir(), t.TempDir()}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// list is every file below dir.
func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPack_WhatIsIgnoredStaysHome_AndLinksStayLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		".dockerignore": "# a comment\nnode_modules\n*.log\n!keep.log\nsub/**\n!sub/deep/wanted\n",
		"main.go":       "x", "a.log": "x", "keep.log": "x",
		"node_modules/m/index.js": "x", "sub/other": "x", "sub/deep/wanted": "x",
	})
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	ignore, err := ReadIgnore(dir, filepath.Join(dir, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Packing{Request: Request{Service: "web", Build: spec.Build{Target: "t"}}}
	p.Request.Build.Context = p.AddFolder(dir, ignore)
	p.SetDockerfile("Dockerfile", []byte("FROM scratch"), ignore)
	p.Request.Secrets = []Part{{ID: "s", File: p.AddPart([]byte("hush"))}}
	var body bytes.Buffer
	if err := p.Write(&body); err != nil {
		t.Fatal(err)
	}
	r := newRoom(t)
	got, err := r.unpack(&body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p.Request, got); diff != "" {
		t.Error(diff)
	}
	want := []string{".dockerignore", "keep.log", "link", "main.go", "sub/deep/wanted"}
	if diff := cmp.Diff(want, list(t, filepath.Join(r.dir, "folders/0"))); diff != "" {
		t.Error(diff)
	}
	if to, err := os.Readlink(filepath.Join(r.dir, "folders/0/link")); err != nil || to != "/etc/passwd" {
		t.Errorf("link leads to %q, %v", to, err)
	}
	if content, _ := os.ReadFile(filepath.Join(r.secret, "parts/0")); string(content) != "hush" {
		t.Errorf("the secret is %q", content)
	}
	if slices.ContainsFunc(list(t, r.dir), func(name string) bool { return strings.HasPrefix(name, partsDir) }) {
		t.Error("a secret is on disk")
	}
}

func TestReadIgnore_TheDockerfilesOwn_Wins(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{".dockerignore": "a\n", "x.Dockerfile.dockerignore": "b\n"})
	for file, want := range map[string]string{"Dockerfile": "a", "x.Dockerfile": "b"} {
		got, err := ReadIgnore(dir, filepath.Join(dir, file))
		if err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %v, %v", file, got, err)
		}
	}
}

func TestUnpack_HostileTar_WritesNothingOutside(t *testing.T) {
	type entry = tar.Header
	request := entry{Name: requestFile, Typeflag: tar.TypeReg}
	for name, entries := range map[string][]entry{
		"no request":             {{Name: "folders/0/a", Typeflag: tar.TypeReg}},
		"two requests":           {request, request},
		"up and out":             {request, {Name: "folders/../../out", Typeflag: tar.TypeReg}},
		"absolute":               {request, {Name: "/out", Typeflag: tar.TypeReg}},
		"another folder":         {request, {Name: "layouts/x", Typeflag: tar.TypeReg}},
		"through a link":         {request, {Name: "folders/0/l", Typeflag: tar.TypeSymlink, Linkname: "OUT"}, {Name: "folders/0/l/out", Typeflag: tar.TypeReg}},
		"onto a link":            {request, {Name: "folders/0/l", Typeflag: tar.TypeSymlink, Linkname: "OUT/out"}, {Name: "folders/0/l", Typeflag: tar.TypeReg}},
		"a folder through links": {request, {Name: "folders/0", Typeflag: tar.TypeSymlink, Linkname: "OUT"}, {Name: "folders/0/out", Typeflag: tar.TypeDir}},
		"a device":               {request, {Name: "folders/0/d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
		"a hard link":            {request, {Name: "folders/0/h", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			var body bytes.Buffer
			w := tar.NewWriter(&body)
			for _, e := range entries {
				content := "evil"
				if e.Name == requestFile {
					content = "{}"
				}
				if e.Typeflag == tar.TypeReg {
					e.Size = int64(len(content))
				}
				e.Mode, e.Linkname = 0o644, strings.Replace(e.Linkname, "OUT", outside, 1)
				if err := w.WriteHeader(&e); err != nil {
					t.Fatal(err)
				}
				if e.Typeflag == tar.TypeReg {
					if _, err := io.WriteString(w, content); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := newRoom(t).unpack(&body); err == nil {
				t.Error("it was taken")
			}
			if left := list(t, outside); len(left) > 0 {
				t.Errorf("outside there is %v", left)
			}
		})
	}
}

func TestBases_StagesAndArguments(t *testing.T) {
	got := Bases(`# syntax=docker/dockerfile:1
ARG BASE=debian:12
ARG GIVEN=one
FROM --platform=$BUILDPLATFORM golang:1 AS make
RUN true
FROM ${BASE} AS run
FROM make
FROM $GIVEN
FROM ${UNSET:-fallback:2}
FROM scratch
`, map[string]string{"GIVEN": "two"})
	want := []string{"golang:1", "debian:12", "two", "fallback:2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSolving_FailedStep_NamesItsLineAndLastWords(t *testing.T) {
	var heard []Progress
	s := &solving{j: &job{Request: Request{Service: "web", Dockerfile: "Dockerfile"}, report: func(p Progress) { heard = append(heard, p) }}, vertexes: map[string]vertex{}}
	for _, line := range []string{
		`{"vertexes":[{"digest":"a","name":"[1/2] FROM busybox","started":"2026-01-01T00:00:00Z","completed":"2026-01-01T00:00:00Z","cached":true}]}`,
		`{"vertexes":[{"digest":"b","name":"[2/2] RUN make","started":"2026-01-01T00:00:00Z"}]}`,
		`{"logs":[{"vertex":"b","data":"b29wcwo="}]}`,
		`{"vertexes":[{"digest":"b","name":"[2/2] RUN make","started":"2026-01-01T00:00:00Z","completed":"2026-01-01T00:00:02Z","error":"exit code: 1"}]}`,
		"Dockerfile:2", "--------------------", "   1 |     FROM busybox", "   2 | >>> RUN make", "--------------------",
		"error: failed to solve: exit code: 1",
	} {
		s.line(line)
	}
	want := "Dockerfile:2: exit code: 1\noops\n   1 |     FROM busybox\n   2 | >>> RUN make"
	if got := s.failure(io.EOF).Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var states []string
	for _, p := range heard {
		states = append(states, p.State+p.Log)
	}
	if diff := cmp.Diff([]string{StepCached, StepStarted, "oops\n", StepFailed}, states); diff != "" {
		t.Error(diff)
	}
}

func TestConfig_MirrorsReachBothBuilders(t *testing.T) {
	c := Config{Mirrors: map[string]Mirror{"docker.io": {Mirrors: []string{"http://127.0.0.1:5000", "https://m.example"}}, "own.example": {Insecure: true, CA: "/ca.pem"}}}
	want := `[registry."docker.io"]
mirrors = ["127.0.0.1:5000", "m.example"]
[registry."own.example"]
mirrors = []
insecure = true
ca = ["/ca.pem"]
[registry."127.0.0.1:5000"]
http = true
`
	if diff := cmp.Diff(want, c.buildkitdConfig()); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{`prefix = "docker.io"`, "location = \"127.0.0.1:5000\"\ninsecure = true", "location = \"m.example\"\ninsecure = false"} {
		if !strings.Contains(c.registriesConf(), line) {
			t.Errorf("%q is not in\n%s", line, c.registriesConf())
		}
	}
}

func TestRegistryCache_OnlyRegistries(t *testing.T) {
	for entry, want := range map[string]string{
		"example.org/app:cache": "example.org/app", "host:5000/app": "host:5000/app",
		"type=registry,ref=example.org/c:1,mode=max": "example.org/c", "type=local,src=x": "", "type=gha": "",
	} {
		got, ok := registryCache(entry)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %t", entry, got, ok)
		}
	}
}

func TestChoose_NothingInstalled_SaysSo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("BUILDKIT_HOST", "")
	b := &Builders{}
	for _, want := range []string{"", "buildkit", "buildah", "tcp://127.0.0.1:1", "something"} {
		if _, err := b.choose(want); err == nil {
			t.Errorf("%q was found", want)
		}
	}
}
