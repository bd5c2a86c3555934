package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// touchAll makes empty files below dir.
func touchAll(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchRule_WhatItMatches(t *testing.T) {
	dir := t.TempDir()
	touchAll(t, dir, "src/a.go", "src/deep/b.go", "src/b.txt", "src/vendor/x.go", "src/vendor/keep.go", "src/.git/HEAD", "src/.a.go.swp",
		"src/secret.go", "one.conf", "one.conf.bak")
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("src/secret.go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	service := types.ServiceConfig{Name: "web"}
	service.Build = &types.BuildConfig{Context: dir}
	for name, c := range map[string]struct {
		trigger types.Trigger
		want    []string
	}{
		"all": {
			types.Trigger{Path: dir + "/src", Action: "sync", Target: "/app"},
			[]string{"a.go", "b.txt", "deep/b.go", "vendor/keep.go", "vendor/x.go"},
		},
		"ignored, with an exception": {
			types.Trigger{Path: dir + "/src", Action: "sync", Target: "/app", Ignore: []string{"vendor", "!vendor/keep.go"}},
			[]string{"a.go", "b.txt", "deep/b.go", "vendor/keep.go"},
		},
		"included": {types.Trigger{Path: dir + "/src", Action: "sync", Target: "/app", Include: []string{"**/*.txt"}}, []string{"b.txt"}},
	} {
		r, err := newWatchRule(service, c.trigger)
		if err != nil {
			t.Fatal(err)
		}
		files, err := r.files()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range files {
			got = append(got, relative(dir+"/src", f))
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	r, err := newWatchRule(service, types.Trigger{Path: dir + "/one.conf", Action: "sync+restart", Target: "/etc/one.conf"})
	if err != nil || !r.matches(dir+"/one.conf") || r.matches(dir+"/one.conf.bak") || r.place(dir+"/one.conf") != "/etc/one.conf" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestWatchRules_WhatCanNotBe(t *testing.T) {
	dir := t.TempDir()
	touchAll(t, dir, "src/a")
	mounted := []types.ServiceVolumeConfig{{Type: types.VolumeTypeBind, Source: dir, Target: "/x"}}
	for name, c := range map[string]types.Trigger{
		"not there":        {Path: dir + "/nope", Action: "sync", Target: "/app"},
		"nothing to build": {Path: dir + "/src", Action: "rebuild"},
		"bad pattern":      {Path: dir + "/src", Action: "sync", Target: "/app", Ignore: []string{"[a-"}},
		"mounted":          {Path: dir + "/src", Action: "sync", Target: "/x/src"},
	} {
		s := types.ServiceConfig{Name: "web"}
		if name == "mounted" {
			s.Volumes = mounted
		}
		r, err := newWatchRule(s, c)
		if err == nil && name == "bad pattern" {
			_, err = r.ignore.MatchesOrParentMatches("x")
		}
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := watchRules(&types.Project{Services: types.Services{"web": {Name: "web"}}}, nil); err == nil {
		t.Error("nothing to watch is accepted")
	}
}
