package agent

import (
	"testing"

	"berth/api"
)

func TestAuths_GoToTheirOwnRegistryOnly(t *testing.T) {
	auth := api.Auths{"reg.example": {Username: "me", Password: "secret"}, "docker.io": {Username: "hub"}}
	for ref, want := range map[string]string{"reg.example/web:v1": "me", "nginx": "hub", "other.example/web": "", "BAD//": ""} {
		give := authFor(auth, ref)
		if give == nil {
			if want != "" {
				t.Errorf("%s: no credentials", ref)
			}
			continue
		}
		for _, host := range []string{"reg.example", "docker.io", "mirror.example"} {
			user, _, ok := give(host)
			if ok && user != want {
				t.Errorf("%s: %s gets those of %s", ref, host, user)
			}
			if host == "mirror.example" && ok {
				t.Errorf("%s: a mirror gets credentials", ref)
			}
		}
	}
}
