package images

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReference_FollowsDocker(t *testing.T) {
	d := "sha256:" + strings.Repeat("ab", 32)
	for in, want := range map[string]string{
		"nginx":                  "docker.io/library/nginx:latest",
		"nginx:1.27":             "docker.io/library/nginx:1.27",
		"me/app":                 "docker.io/me/app:latest",
		"index.docker.io/nginx":  "docker.io/library/nginx:latest",
		"docker.io/nginx":        "docker.io/library/nginx:latest",
		"ghcr.io/me/app:v1":      "ghcr.io/me/app:v1",
		"localhost:5000/app":     "localhost:5000/app:latest",
		"localhost/app":          "localhost/app:latest",
		"[::1]:5000/app:v1":      "[::1]:5000/app:v1",
		"nginx@" + d:             "docker.io/library/nginx@" + d,
		"nginx:1.27@" + d:        "docker.io/library/nginx@" + d,
		"registry.example/a/b/c": "registry.example/a/b/c:latest",
	} {
		got, err := ParseReference(in)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
		again, err := ParseReference(got)
		if err != nil || again != got {
			t.Errorf("%q isn't a fixed point: %q, %v", got, again, err)
		}
	}
	for _, in := range []string{"", " ", "Nginx", "nginx:", "nginx@sha256:12", "a b", "../x", "https://nginx", "nginx:a:b", "-x", "x@sha512:" + strings.Repeat("ab", 64)} {
		if got, err := ParseReference(in); !errors.Is(err, ErrReference) {
			t.Errorf("%q: %q, %v; want an error", in, got, err)
		}
	}
}

func TestFamiliar_IsWhatAUserWrites(t *testing.T) {
	for in, want := range map[string]string{
		"docker.io/library/nginx:latest": "nginx:latest",
		"docker.io/me/app:v1":            "me/app:v1",
		"ghcr.io/me/app:v1":              "ghcr.io/me/app:v1",
		"not a reference":                "not a reference",
	} {
		if got := Familiar(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
