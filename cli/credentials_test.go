package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func dockerConfig(t *testing.T, text string) (path string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	path = filepath.Join(dir, "config.json")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestCredentials_File_KeepsWhatItDoesNotKnow(t *testing.T) {
	path := dockerConfig(t, `{"psFormat":"x","auths":{"https://old.example/v1/":{"auth":"bWU6c2VjcmV0"}}}`)
	c, err := ReadCredentials()
	if err != nil {
		t.Fatal(err)
	}
	if user, secret, ok, err := c.Get(t.Context(), "old.example"); user != "me" || secret != "secret" || !ok || err != nil {
		t.Errorf("old.example: %s %s %t %v", user, secret, ok, err)
	}
	if _, err := c.Set(t.Context(), "docker.io", "you", "a:b"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if c, err = ReadCredentials(); err != nil {
		t.Fatal(err)
	}
	if user, secret, ok, _ := c.Get(t.Context(), RegistryHost("index.docker.io")); user != "you" || secret != "a:b" || !ok {
		t.Errorf("docker.io: %s %s %t", user, secret, ok)
	}
	if found, err := c.Remove(t.Context(), "docker.io"); !found || err != nil {
		t.Errorf("remove: %t %v", found, err)
	}
	if found, err := c.Remove(t.Context(), "docker.io"); found || err != nil {
		t.Errorf("remove again: %t %v", found, err)
	}
	var left map[string]any
	data, _ := os.ReadFile(path)
	if err := json.Unmarshal(data, &left); err != nil || left["psFormat"] != "x" || strings.Contains(string(data), "index.docker.io") {
		t.Errorf("%v: %s", err, data)
	}
}

func TestCredentials_Helper_IsAskedAndTold(t *testing.T) {
	dockerConfig(t, `{"credHelpers":{"reg.example":"fake"},"auths":{"other.example":{"identitytoken":"tok"}}}`)
	bin := t.TempDir()
	script := `#!/bin/sh
dir=$(dirname "$0")
case $1 in
store) cat > $dir/kept;;
get) read host || [ "$host" ]; [ -f $dir/kept ] && grep -q "$host" $dir/kept && cat $dir/kept && exit 0
  echo "credentials not found in native keychain"; exit 1;;
erase) rm $dir/kept;;
esac
`
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-fake"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	c, err := ReadCredentials()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok, err := c.Get(t.Context(), "reg.example"); ok || err != nil {
		t.Errorf("before: %t %v", ok, err)
	}
	if where, err := c.Set(t.Context(), "reg.example", "me", "secret"); where != "docker-credential-fake" || err != nil {
		t.Errorf("%s %v", where, err)
	}
	if user, secret, ok, err := c.Get(t.Context(), "reg.example"); user != "me" || secret != "secret" || !ok || err != nil {
		t.Errorf("after: %s %s %t %v", user, secret, ok, err)
	}
	if user, secret, _, _ := c.Get(t.Context(), "other.example"); user != tokenUser || secret != "tok" {
		t.Errorf("token: %s %s", user, secret)
	}
	if found, err := c.Remove(t.Context(), "reg.example"); !found || err != nil {
		t.Errorf("%t %v", found, err)
	}
}

func TestCredentials_BrokenFile_SaysNothingOfItsContent(t *testing.T) {
	dockerConfig(t, `{"auths": topsecret}`)
	if _, err := ReadCredentials(); err == nil || strings.Contains(err.Error(), "topsecret") {
		t.Errorf("%v", err)
	}
}
