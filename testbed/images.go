package testbed

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"

	"berth/testbed/fixture"
)

// Image makes a fixture image and returns the path of a docker-archive tar
// that holds it under its usual name. It is made once and cached; the first
// time needs Debian's mirror, which is reached outside the test's namespaces.
func Image(t testing.TB, ref string) (tarPath string) {
	t.Helper()
	file, err := fixtures(t).Archive(t.Context(), ref)
	if err != nil {
		t.Fatalf("make fixture image %s: %v", ref, err)
	}
	return file
}

// Registry serves fixture images over plain HTTP on the loopback interface of
// the test's namespace until the test ends, as a mirror of docker.io:
//
//	registries: {docker.io: {mirrors: ["http://HOSTPORT"]}}
//
// Without refs it serves every image there is, with its usual tags.
func Registry(t testing.TB, refs ...string) (hostport string) {
	t.Helper()
	return StartRegistry(t, nil, refs...).Addr()
}

// StartRegistry is Registry for tests that push more images or change what
// the registry answers: wrap, if not nil, sits in front of it.
func StartRegistry(t testing.TB, wrap func(http.Handler) http.Handler, refs ...string) *fixture.Registry {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen for the registry: %v", err)
	}
	r := fixtures(t).Serve(l, wrap)
	t.Cleanup(r.Close)
	if len(refs) == 0 {
		refs = fixture.References()
	}
	if err := r.Add(t.Context(), refs...); err != nil {
		t.Fatalf("fill the registry: %v", err)
	}
	return r
}

func fixtures(t testing.TB) *fixture.Cache {
	t.Helper()
	c, err := fixture.Open()
	if err != nil {
		t.Fatalf("open the fixture cache: %v", err)
	}
	if Isolated() {
		// The process that made the namespaces waits outside of them.
		c.Netns = fmt.Sprintf("/proc/%d/ns/net", os.Getppid())
	}
	return c
}
