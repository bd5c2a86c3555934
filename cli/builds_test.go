package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/spec"
)

func buildOf(inline string) *spec.Build { return &spec.Build{Context: "/x", DockerfileInline: inline} }

func TestBuilds_OrderedByWhatTheyBeginWith_EqualOnesOnce(t *testing.T) {
	stack := &spec.Stack{Name: "shop", Services: map[string]spec.Service{
		"a":    {Name: "a", Build: buildOf("FROM shop-z\n")},
		"z":    {Name: "z", Build: &spec.Build{Context: "/x", DockerfileInline: "FROM up\n", Contexts: map[string]string{"up": "service:m"}}},
		"m":    {Name: "m", Build: buildOf("FROM busybox\n")},
		"Same": {Name: "Same", Build: buildOf("FROM busybox\n")},
		"not":  {Name: "not", Image: "busybox"},
	}}
	builds, err := Builds(stack, []string{"a", "Same"}, BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range builds {
		got = append(got, strings.Join(b.Services, "+")+"="+strings.Join(b.Names, "+"))
	}
	want := []string{"m+Same=shop-m+shop-same", "z=shop-z", "a=shop-a"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := Builds(stack, []string{"not"}, BuildOptions{}); err == nil {
		t.Error("a service without build is built")
	}
	stack.Services["m"] = spec.Service{Name: "m", Build: buildOf("FROM shop-a\n")}
	if _, err := Builds(stack, []string{"a"}, BuildOptions{}); err == nil || !strings.Contains(err.Error(), "needs itself") {
		t.Errorf("a circle: %v", err)
	}
}

func TestSameImage_ShortNames(t *testing.T) {
	for pair, want := range map[[2]string]bool{
		{"app", "docker.io/library/app:latest"}: true, {"host:5000/app", "host:5000/app:latest"}: true,
		{"app:1", "app:2"}: false, {"", ""}: false,
	} {
		if got := sameImage(pair[0], pair[1]); got != want {
			t.Errorf("%v: %t", pair, got)
		}
	}
}

func TestCloneGit_FolderThatLeadsOut_Refused(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIPPED: git is not installed")
	}
	repo := t.TempDir()
	t.Setenv("HOME", repo)
	if err := os.Symlink("/etc", filepath.Join(repo, "out")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "out"}, {"-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"}} {
		if out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", repo}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	for _, part := range []string{":out", ":../..", "-u:x", "no-such-branch"} {
		dir, root, err := cloneGit(t.Context(), "file://"+repo+"#"+part)
		os.RemoveAll(root)
		if err == nil {
			t.Errorf("%s gave %s", part, dir)
		}
	}
	dir, root, err := cloneGit(t.Context(), "file://"+repo)
	defer os.RemoveAll(root)
	if err != nil || len(dir) == 0 {
		t.Errorf("the whole: %q, %v", dir, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
		t.Error(".git is in the context")
	}
}
