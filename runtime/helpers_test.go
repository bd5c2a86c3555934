package runtime

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/testbed"
)

// probeBinary builds the program of the test images once, and keeps it in
// memory: nothing is left on disk.
var probeBinary = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "probe")
	if err := goBuild(out, "./testdata/probe"); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
})

func goBuild(out, what string) error {
	cmd := exec.Command("go", "build", "-o", out, what)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", what, err, b)
	}
	return nil
}

func build(tb testing.TB, out, what string) {
	tb.Helper()
	if err := goBuild(out, what); err != nil {
		tb.Fatal(err)
	}
}

// bench is a Runtime on folders of its own, with what is needed to fill it.
type bench struct {
	*Runtime
	tb    testing.TB
	cfg   Config
	probe []byte
}

var parents atomic.Int64

func newBench(tb testing.TB, runtime string) *bench {
	tb.Helper()
	testbed.NeedKernel(tb)
	probe, err := probeBinary()
	if err != nil {
		tb.Fatal(err)
	}
	b := &bench{tb: tb, probe: probe, cfg: Config{
		Root: filepath.Join(tb.TempDir(), "root"), Run: filepath.Join(tb.TempDir(), "run"),
		CgroupParent: fmt.Sprintf("/berth-test-%d-%d", os.Getpid(), parents.Add(1)),
		Runtime:      runtime,
	}}
	b.open()
	tb.Cleanup(b.cleanup)
	return b
}

func (b *bench) open() {
	b.tb.Helper()
	r, err := Open(context.Background(), b.cfg)
	if err != nil {
		b.tb.Fatalf("open: %v", err)
	}
	b.Runtime = r
}

// reopen is an agent's restart: nothing is stopped.
func (b *bench) reopen() {
	b.tb.Helper()
	if err := b.Close(); err != nil {
		b.tb.Fatalf("close: %v", err)
	}
	b.open()
}

// cleanup removes all containers and fails the test if anything is left.
func (b *bench) cleanup() {
	ctx := context.Background()
	list, err := b.List(ctx)
	if err != nil {
		b.tb.Errorf("list: %v", err)
	}
	for _, s := range list {
		if err := b.Delete(ctx, s.ID); err != nil {
			b.tb.Errorf("delete %s: %v", s.ID, err)
		}
	}
	b.leaks()
	if err := b.Close(); err != nil {
		b.tb.Errorf("close: %v", err)
	}
	for _, dir := range b.cg.dirs(b.cfg.CgroupParent) {
		os.Remove(dir)
	}
}

func (b *bench) leaks() {
	for _, dir := range b.cg.dirs(b.cfg.CgroupParent) {
		for _, below := range glob(b.tb, dir+"/*/cgroup.procs") {
			b.tb.Errorf("cgroup left: %s", filepath.Dir(below))
		}
	}
	for _, p := range []string{"/c/*", "/exits/*", "/crun/*", "/runc/*", "/try*"} {
		for _, left := range glob(b.tb, b.cfg.Run+p) {
			b.tb.Errorf("left: %s", left)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.tb.Error(err)
	}
	if strings.Contains(string(mounts), b.cfg.Run) {
		b.tb.Error("a mount is left below", b.cfg.Run)
	}
	for _, cmdline := range glob(b.tb, "/proc/[0-9]*/cmdline") {
		text, err := os.ReadFile(cmdline)
		if err == nil && bytes.Contains(text, []byte(b.cfg.Run)) {
			b.tb.Errorf("process left: %s", bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
		}
	}
}

func glob(tb testing.TB, pattern string) []string {
	tb.Helper()
	m, err := filepath.Glob(pattern)
	if err != nil {
		tb.Error(err)
	}
	return m
}

// container is one that runs the probe with args, on a root of its own.
func (b *bench) container(id string, args ...string) Container {
	b.tb.Helper()
	root := filepath.Join(b.tb.TempDir(), "rootfs")
	for _, d := range []string{"etc", "tmp", "data"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			b.tb.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "probe"), b.probe, 0o755); err != nil {
		b.tb.Fatal(err)
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
		"etc/group":  "root:x:0:\napp:x:1000:\nwheel:x:10:app\naudio:x:29:app\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			b.tb.Fatal(err)
		}
	}
	return Container{ID: id, Rootfs: root, Args: append([]string{"/probe"}, args...), Hostname: id}
}

func (b *bench) run(c Container) {
	b.tb.Helper()
	if err := b.Create(b.tb.Context(), c); err != nil {
		b.tb.Fatalf("create: %v", err)
	}
	if err := b.Start(b.tb.Context(), c.ID); err != nil {
		b.tb.Fatalf("start: %v", err)
	}
}

// exit waits for the exit of a container on Exits; those of others are dropped.
func (b *bench) exit(id string) Status {
	b.tb.Helper()
	limit := time.After(15 * time.Second)
	for {
		select {
		case s, ok := <-b.Exits():
			if !ok {
				b.tb.Fatal("Exits closed")
			}
			if s.ID == id {
				return s
			}
		case <-limit:
			b.tb.Fatalf("no exit of %s in 15 s", id)
		}
	}
}

// output is the whole log, joined.
func (b *bench) output(id string) string {
	b.tb.Helper()
	var out strings.Builder
	err := b.Logs(b.tb.Context(), id, LogOptions{Tail: -1}, func(l LogLine) error {
		out.WriteString(l.Text)
		if !l.Partial {
			out.WriteByte('\n')
		}
		return nil
	})
	if err != nil {
		b.tb.Fatalf("logs: %v", err)
	}
	return out.String()
}

// eventually polls until ok or 10 s are over.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within 10 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// eachRuntime runs a test with crun and with runc.
func eachRuntime(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			if _, err := lookHostPath(name); err != nil {
				t.Skip("SKIPPED: not installed")
			}
			f(t, newBench(t, name))
		})
	}
}

// writeRoot puts a file into a container's root.
func writeRoot(tb testing.TB, c Container, name, text string, mode os.FileMode) {
	tb.Helper()
	path := filepath.Join(c.Rootfs, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		tb.Fatal(err)
	}
}
