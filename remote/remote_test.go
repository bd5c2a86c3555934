package remote

import (
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	reg "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestIs_RepositoriesAndArtifacts_NotFilesOrPages(t *testing.T) {
	for path, want := range map[string]bool{
		"compose.yaml": false, "/a/compose.yaml": false, "-": false, "https://host/page": false, "https://host/compose.yaml": false,
		"https://host/a.git": true, "https://host/a.git#main:app": true, "git@host:a/b.git#v1": true, "ssh://git@host/a": true,
		"oci://host/a:v1": true, "file:///srv/a.git": true, "ext::sh -c id": false, "--upload-pack=id": false, "ssh://-oProxyCommand=id/a": false,
	} {
		if Is(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}

// origin makes a bare repository with the files, and a tag v1, and gives its
// URL.
func origin(t *testing.T, files map[string]string) (url, work string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	work, bare := filepath.Join(t.TempDir(), "work"), filepath.Join(t.TempDir(), "shop.git")
	run := func(dir string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.test", "GIT_COMMITTER_NAME=a",
			"GIT_COMMITTER_EMAIL=a@example.test", "GIT_CONFIG_GLOBAL=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	run(work, "init", "-q", "-b", "main")
	for name, text := range files {
		path := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(work, "add", "-A")
	run(work, "commit", "-qm", "first")
	run(work, "tag", "-a", "v1", "-m", "v1")
	run(filepath.Dir(bare), "clone", "-q", "--bare", work, bare)
	return "file://" + bare, work
}

func TestFile_Git_RefsFoldersAndCache(t *testing.T) {
	url, work := origin(t, map[string]string{"compose.yaml": "root", "app/docker-compose.yml": "app", "app/other.yaml": "other", "link.yaml": "-> /etc/passwd"})
	f := Fetcher{Cache: t.TempDir()}
	head, err := exec.CommandContext(t.Context(), "git", "-C", work, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(head))
	for ref, want := range map[string]string{
		"": "root", "#main": "root", "#v1:app": "app", "#:app/other.yaml": "other", "#" + commit: "root",
		"#main:link.yaml": "/etc/passwd", // as text: the link is not followed
	} {
		path, err := f.File(t.Context(), url+ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", ref, data, err)
		}
	}
	for ref, want := range map[string]string{
		"#nowhere": "it has no branch or tag nowhere", "#main:../..": `"../.." leads out of the repository`,
		"#main:/etc": `"/etc" leads out of the repository`, "#main:none": "there is no none in it", "#--upload-pack=id": "is no branch, tag or commit",
	} {
		if _, err := f.File(t.Context(), url+ref); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", ref, err, want)
		}
	}
	// A commit is there for good, also when the repository is gone.
	if err := os.RemoveAll(strings.TrimPrefix(url, "file://")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.File(t.Context(), url+"#"+commit); err != nil {
		t.Errorf("from the cache: %v", err)
	}
	if _, err := f.File(t.Context(), "https://user:secret@localhost:1/a.git"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a password is shown: %v", err)
	}
}

// registryHost serves an empty registry on loopback.
func registryHost(t *testing.T) string {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestPublish_AndFileGivesItBack(t *testing.T) {
	host := registryHost(t)
	digest, err := Publish(t.Context(), host+"/team/shop:v1", []File{
		{Name: "compose.yaml", Data: []byte("services: {a: {image: b}}\n")},
		{Name: "compose.override.yaml", Data: []byte("services: {a: {user: c}}\n")},
		{Name: "env/a.env", Data: []byte("A=1\n"), Env: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	f := Fetcher{Cache: t.TempDir()}
	for _, ref := range []string{"oci://" + host + "/team/shop:v1", "oci://" + host + "/team/shop@" + digest} {
		path, err := f.File(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		data, _ := os.ReadFile(path)
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "env", "a.env"))
		if string(data) != "services: {a: {image: b}}\n\n---\nservices: {a: {user: c}}\n" || string(env) != "A=1\n" {
			t.Errorf("%s: %q, %q", ref, data, env)
		}
	}
	if _, err := f.File(t.Context(), "oci://"+host+"/team/none:v1"); err == nil {
		t.Error("an artifact that is not there was fetched")
	}
	if _, err := Publish(t.Context(), host+"/team/shop:v2", []File{{Name: "../x", Env: true}}); err == nil {
		t.Error("a file outside was published")
	}
}

// TestFile_HostileArtifact_StaysInItsFolder: whoever makes an artifact chooses
// its names and sizes.
func TestFile_HostileArtifact_StaysInItsFolder(t *testing.T) {
	host := registryHost(t)
	for name2, c := range map[string]struct {
		layer v1.Descriptor
		want  string
	}{
		"climbs":   {v1.Descriptor{MediaType: envType, Annotations: map[string]string{envAnnotation: "../../x"}}, "leads out of the artifact"},
		"absolute": {v1.Descriptor{MediaType: composeType, Annotations: map[string]string{extendsMark: "true", fileAnnotation: "/etc/x"}}, "leads out of the artifact"},
		"no name":  {v1.Descriptor{MediaType: envType}, "leads out of the artifact"},
		"huge":     {v1.Descriptor{MediaType: composeType, Size: 1 << 40}, "the limits are"},
		"lies":     {v1.Descriptor{MediaType: composeType, Size: 1}, "its size is not 1"},
		"nothing":  {v1.Descriptor{MediaType: types.OCILayer}, "it holds no Compose file"},
	} {
		t.Run(name2, func(t *testing.T) {
			repo, err := name.NewTag(host + "/evil/a:" + strings.ReplaceAll(name2, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			layer := static.NewLayer([]byte("services: {}"), c.layer.MediaType)
			if err := reg.WriteLayer(repo.Context(), layer); err != nil {
				t.Fatal(err)
			}
			c.layer.Digest, _ = layer.Digest()
			if c.layer.Size == 0 {
				c.layer.Size = int64(len("services: {}"))
			}
			raw, err := json.Marshal(manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{c.layer}})
			if err != nil {
				t.Fatal(err)
			}
			if err := reg.Put(repo, taggable(raw)); err != nil {
				t.Fatal(err)
			}
			cache := t.TempDir()
			_, err = Fetcher{Cache: cache}.File(t.Context(), "oci://"+repo.String())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "oci", "*")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
