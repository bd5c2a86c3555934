package images

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
)

// wantBasic lets only user:password in.
func wantBasic(user, password string) func(http.ResponseWriter, *http.Request, int) bool {
	return func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if u, p, _ := r.BasicAuth(); u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestPull_DockerConfigAndHelpers_GiveCredentials(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	reg.break_(wantBasic("me", "secret"))
	helper := t.TempDir()
	script := "#!/bin/sh\nread host\necho \"{\\\"ServerURL\\\":\\\"$host\\\",\\\"Username\\\":\\\"me\\\",\\\"Secret\\\":\\\"secret\\\"}\"\n"
	if err := os.WriteFile(helper+"/docker-credential-fake", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", helper+":"+os.Getenv("PATH"))
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	for what, c := range map[string]struct {
		config string
		ok     bool
	}{
		"auths":       {fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.host(), auth), true},
		"credHelpers": {fmt.Sprintf(`{"credHelpers":{%q:"fake"}}`, reg.host()), true},
		"credsStore":  {`{"credsStore":"fake"}`, true},
		"other host":  {fmt.Sprintf(`{"auths":{"example.com":{"auth":%q}}}`, auth), false},
		"empty":       {`{}`, false},
		"garbage":     {`{`, false},
	} {
		d := t.TempDir()
		if err := os.WriteFile(d+"/config.json", []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("DOCKER_CONFIG", d)
		_, err := newStore(t, reg).Pull(t.Context(), "web:v1", PullOptions{})
		if c.ok && err != nil || !c.ok && !errors.Is(err, ErrUnauthorized) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
