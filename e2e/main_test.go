// Package e2e_test uses Berth as its users do: with the programs that this
// repository builds, real containers and real trouble. Everything happens in
// the test bed's namespaces; nothing is faked but the registry and, for one
// reboot, the kernel's boot id.
//
// Each test is a short story told with the words of machine_test.go (an agent
// and its command line), stack_test.go (one Compose file) and trouble_test.go
// (what befalls a machine).
package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"berth/testbed"
	"berth/testbed/fixture"
)

func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		testbed.Isolate()
	}
	var err error
	if programs, err = os.MkdirTemp("", "berth-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(programs)
	os.Exit(code)
}

// programs is the folder that build fills.
var programs string

// build builds berth and berthd, once.
var build = sync.OnceValue(func() error {
	// Users other than root call berth in one of the tests.
	if err := os.Chmod(programs, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", programs, "../cmd/berth", "../cmd/berthd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build berth and berthd: %w: %s", err, out)
	}
	return nil
})

// program is the path of one of them.
func program(t *testing.T, name string) string {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(programs, name)
}

// registry serves the fixture images to all tests: to fill it takes seconds.
var registry = sync.OnceValues(func() (*fixture.Registry, error) {
	cache, err := fixture.Open()
	if err != nil {
		return nil, err
	}
	// The process that made the namespaces waits outside of them, where the
	// packages for images that were never made can be reached.
	cache.Netns = fmt.Sprintf("/proc/%d/ns/net", os.Getppid())
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := cache.Serve(l, nil)
	return r, r.Add(context.Background(),
		"busybox", "debian:bookworm-slim", "redis:alpine", "postgres:15-alpine", "berth-testbed/tiny", "berth-testbed/echo", "berth-testbed/standin", "berth-testbed/dbclient",
		"berth-examples/vote", "berth-examples/api", "berth-examples/worker")
})

// mirror is the registry's host and port.
func mirror(t *testing.T) string {
	t.Helper()
	r, err := registry()
	if err != nil {
		t.Fatalf("serve the fixture images: %v", err)
	}
	return r.Addr()
}

// voting is the example that most stories about whole stacks are told with.
func voting(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs("../examples/voting/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return file
}
