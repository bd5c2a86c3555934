package agent

import (
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"berth/api"
	"berth/images"
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

func TestSpare_YoungImagesAndThoseWithoutTheLabel_Stay(t *testing.T) {
	f := &fakeImages{local: map[string]images.Image{}}
	a := &Agent{images: f}
	now := time.Now()
	for name, img := range map[string]images.Image{
		"old":   {Created: now.Add(-48 * time.Hour), Config: v1.Config{Labels: map[string]string{"tier": "back"}}},
		"young": {Created: now.Add(-time.Hour), Config: v1.Config{Labels: map[string]string{"tier": "back"}}},
		"other": {Created: now.Add(-48 * time.Hour), Config: v1.Config{Labels: map[string]string{"tier": "front"}}},
	} {
		img.Digest = name
		f.local[name] = img
	}
	pinned := map[string]bool{}
	if err := a.spare(pinned, "24h", []string{"tier=back"}); err != nil {
		t.Fatal(err)
	}
	if pinned["old"] || !pinned["young"] || !pinned["other"] {
		t.Errorf("%v", pinned)
	}
	if err := a.spare(pinned, "yesterday", nil); err == nil {
		t.Error("a time that is none is taken")
	}
}
