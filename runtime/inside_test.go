package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"berth/runtime/initproc"

	"golang.org/x/sys/unix"
)

// facts is what a process in a container says of itself.
type facts struct {
	Status   map[string]string
	Env      []string
	Args     []string
	Cwd      string
	Pid      int
	Hostname string
	Fds      []string
	Nofile   uint64
	Oom      string
	Mounts   string
}

func (b *bench) facts(c Container) facts {
	b.tb.Helper()
	b.run(c)
	if s := b.exit(c.ID); s.ExitCode != 0 {
		b.tb.Fatalf("exit %+v: %s", s, b.output(c.ID))
	}
	var f facts
	if err := json.Unmarshal([]byte(b.output(c.ID)), &f); err != nil {
		b.tb.Fatalf("%v in %q", err, b.output(c.ID))
	}
	return f
}

func mask(t *testing.T, names ...string) string {
	t.Helper()
	var m uint64
	for _, n := range names {
		i := slices.Index(capNames, n)
		if i < 0 {
			t.Fatal(n)
		}
		m |= 1 << i
	}
	s := strconv.FormatUint(m, 16)
	return strings.Repeat("0", 16-len(s)) + s
}

func TestInside_Defaults(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		// Twice: the second has the filter that was compiled for the first.
		for _, id := range []string{"a1", "a2"} {
			f := b.facts(b.container(id, "facts"))
			caps := mask(t, defaultCaps...)
			none := mask(t)
			for k, want := range map[string]string{
				"CapBnd": caps, "CapPrm": caps, "CapEff": caps, "CapInh": none, "CapAmb": none,
				"NoNewPrivs": "0", "Seccomp": "2", "Uid": "0\t0\t0\t0", "Groups": "0",
			} {
				if f.Status[k] != want {
					t.Errorf("%s: %s is %q, want %q", id, k, f.Status[k], want)
				}
			}
			if f.Pid != 1 || f.Cwd != "/" || f.Hostname != id {
				t.Errorf("pid %d, cwd %s, host %s", f.Pid, f.Cwd, f.Hostname)
			}
			for _, e := range []string{defaultPath, "HOME=/root", "HOSTNAME=" + id} {
				if !slices.Contains(f.Env, e) {
					t.Errorf("no %s in %q", e, f.Env)
				}
			}
			if len(f.Fds) != 3 {
				t.Errorf("descriptors %v", f.Fds)
			}
			if f.Oom != strconv.Itoa(b.specs.limits.oom) {
				t.Errorf("oom_score_adj %s", f.Oom)
			}
		}
	})
}

func TestInside_WhatWasAskedFor(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		c := b.container("a1", "facts")
		c.User, c.GroupAdd = "app", []string{"29", "777"}
		c.WorkingDir = "/srv/deep/dir"
		c.Env = []string{"A=1", "A=2", "PATH=/x"}
		c.CapDrop, c.CapAdd = []string{"ALL"}, []string{"NET_RAW", "cap_chown"}
		c.SecurityOpt = []string{"no-new-privileges:true", "seccomp=unconfined"}
		c.Ulimits = map[string]Ulimit{"nofile": {Soft: 1000, Hard: 1000}} // Go raises soft to hard
		c.OomScore = 321
		c.Hostname = "h"
		f := b.facts(c)
		caps := mask(t, "CAP_NET_RAW", "CAP_CHOWN")
		for k, want := range map[string]string{
			"CapBnd": caps, "CapEff": mask(t), "NoNewPrivs": "1", "Seccomp": "0",
			"Uid": "1000\t1000\t1000\t1000", "Gid": "1000\t1000\t1000\t1000", "Groups": "10 29 777 1000",
		} {
			if f.Status[k] != want {
				t.Errorf("%s is %q, want %q", k, f.Status[k], want)
			}
		}
		if f.Cwd != "/srv/deep/dir" || f.Nofile != 1000 || f.Oom != "321" || f.Hostname != "h" {
			t.Errorf("cwd %s, nofile %d, oom %s, host %s", f.Cwd, f.Nofile, f.Oom, f.Hostname)
		}
		for _, e := range []string{"A=2", "PATH=/x", "HOME=/home/app"} {
			if !slices.Contains(f.Env, e) {
				t.Errorf("no %s in %q", e, f.Env)
			}
		}
	})
}

// An exec must not have less of a filter than the container, also when crun
// was handed a compiled one.
func TestInside_Exec_HasTheSameConfinement(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.run(b.container("a1", "sleep"))
		b.run(b.container("a2", "sleep"))
		for _, id := range []string{"a1", "a2"} {
			var out bytes.Buffer
			code, err := b.Exec(t.Context(), id, Exec{
				Args: []string{"/probe", "facts"}, User: "app:wheel", Env: []string{"X=y"}, WorkingDir: "/tmp", Stdout: &out,
			})
			if err != nil || code != 0 {
				t.Fatalf("code %d, %v", code, err)
			}
			var f facts
			if err := json.Unmarshal(out.Bytes(), &f); err != nil {
				t.Fatal(err)
			}
			for k, want := range map[string]string{
				"Seccomp": "2", "CapBnd": mask(t, defaultCaps...), "CapEff": mask(t), "CapInh": mask(t),
				"Uid": "1000\t1000\t1000\t1000", "Gid": "10\t10\t10\t10", "Groups": "10",
			} {
				if f.Status[k] != want {
					t.Errorf("%s: %s is %q, want %q", id, k, f.Status[k], want)
				}
			}
			if f.Cwd != "/tmp" || !slices.Contains(f.Env, "X=y") || !slices.Contains(f.Env, "HOME=/home/app") {
				t.Errorf("cwd %s, env %q", f.Cwd, f.Env)
			}
		}
	})
}

// The filter that crun takes back must be byte for byte what it would compile.
func TestSeccomp_HandedFilter_IsTheCompiledOne(t *testing.T) {
	b := newBench(t, "crun")
	read := func(id string) []byte {
		data, err := os.ReadFile(filepath.Join(b.cfg.Run, "crun", id, "seccomp.bpf"))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	annotated := func(id string) bool {
		data, err := os.ReadFile(filepath.Join(b.bundle(id), "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(data, []byte(filterAnnotation))
	}
	for _, id := range []string{"a1", "a2"} {
		if err := b.Create(t.Context(), b.container(id, "sleep")); err != nil {
			t.Fatal(err)
		}
	}
	b.reopen()
	if err := b.Create(t.Context(), b.container("a3", "sleep")); err != nil {
		t.Fatal(err)
	}
	other := b.container("a4", "sleep")
	other.CapAdd = []string{"SYS_ADMIN"}
	if err := b.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if annotated("a1") || !annotated("a2") || !annotated("a3") || annotated("a4") {
		t.Error("the filter was not handed on as expected:", annotated("a1"), annotated("a2"), annotated("a3"), annotated("a4"))
	}
	if !bytes.Equal(read("a1"), read("a2")) || !bytes.Equal(read("a1"), read("a3")) {
		t.Error("the filters differ")
	}
	if bytes.Equal(read("a1"), read("a4")) {
		t.Error("other capabilities have the same filter")
	}
}

func TestInside_ReadOnly_RefusesWrites(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		for id, c := range map[string]struct {
			path string
			code int
		}{"a1": {"/tmp/x", 1}, "a2": {"/tmpfs/x", 0}, "a3": {"/bound/x", 1}, "a4": {"/dev/shm/x", 0}} {
			k := b.container(id, "touch", c.path)
			k.ReadOnly = true
			if err := os.MkdirAll(filepath.Join(k.Rootfs, "tmpfs"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(k.Rootfs, "bound"), 0o755); err != nil {
				t.Fatal(err)
			}
			k.Mounts = []Mount{
				{Type: "tmpfs", Target: "/tmpfs", Options: []string{"size=1m", "mode=1777"}},
				{Type: "bind", Source: t.TempDir(), Target: "/bound", ReadOnly: true},
			}
			b.run(k)
			if s := b.exit(id); s.ExitCode != c.code {
				t.Errorf("%s: exit %d: %s", c.path, s.ExitCode, b.output(id))
			}
		}
	})
}

func TestInside_FileBoundOverNothing_IsThere(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		src := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(src, []byte("shh"), 0o440); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(src, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		c := b.container("a1", "file", "/run/secrets/deep/pw")
		c.User = "app"
		c.Mounts = []Mount{{Type: "bind", Source: src, Target: "/run/secrets/deep/pw", ReadOnly: true}}
		b.run(c)
		if s := b.exit("a1"); s.ExitCode != 0 || b.output("a1") != "1000:1000 440 shh\n" {
			t.Errorf("%+v %q", s, b.output("a1"))
		}
	})
}

func TestInside_MemoryLimit_OOMKilled(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		c := b.container("a1", "eat", "64")
		c.Resources.Memory = 16 << 20
		c.Resources.MemorySwap = 16 << 20
		b.run(c)
		if s := b.exit("a1"); s.ExitCode != 137 || !s.OOMKilled {
			t.Errorf("got %+v, %q", s, b.output("a1"))
		}
	})
}

func TestInside_PidsLimit_StopsForks(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		c := b.container("a1", "fork", "60")
		c.Resources.Pids = 30
		b.run(c)
		b.exit("a1")
		out := strings.TrimSpace(b.output("a1"))
		n, err := strconv.Atoi(strings.TrimPrefix(out, "forked "))
		if err != nil || n >= 30 {
			t.Errorf("output %q", out)
		}
	})
}

func TestUpdate_ChangesTheLimitOfARunningProcess(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		c := b.container("a1", "sleep")
		c.Resources = Resources{Memory: 64 << 20, NanoCPUs: 5e8}
		b.run(c)
		before, err := b.Status(t.Context(), "a1")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			r    Resources
			want uint64
		}{
			{Resources{Memory: 128 << 20, NanoCPUs: 1e9}, 128 << 20},
			{Resources{Memory: 32 << 20}, 32 << 20},
			{Resources{}, 0},
		} {
			if err := b.Update(t.Context(), "a1", c.r); err != nil {
				t.Fatalf("%+v: %v", c.r, err)
			}
			s, err := b.Stats(t.Context(), "a1")
			if err != nil || s.MemoryLimit != c.want || s.Pids == 0 || s.CPUNanos == 0 {
				t.Errorf("stats %+v, %v, want a limit of %d", s, err, c.want)
			}
		}
		if after, err := b.Status(t.Context(), "a1"); err != nil || after != before {
			t.Errorf("before %+v, after %+v, %v", before, after, err)
		}
	})
}

func TestInit_ReapsAndPassesOn(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.cfg.Init = initBinary(t)
		b.reopen()
		c := b.container("a1", "orphan")
		c.Init = true
		b.run(c)
		if s := b.exit("a1"); s.ExitCode != 3 || !strings.Contains(b.output("a1"), "zombies 0") {
			t.Errorf("got %+v, %q", s, b.output("a1"))
		}
		c = b.container("a2", "traps")
		c.Init = true
		b.run(c)
		eventually(t, "the trap is set", func() bool { return strings.Contains(b.output("a2"), "ready") })
		if err := b.Signal(t.Context(), "a2", unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if s := b.exit("a2"); s.ExitCode != 7 {
			t.Errorf("got %+v", s)
		}
		c = b.container("a3")
		c.Init, c.Args = true, []string{"/missing"}
		b.run(c)
		if s := b.exit("a3"); s.ExitCode != 127 {
			t.Errorf("got %+v, %q", s, b.output("a3"))
		}
	})
}

func initBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	src := "package main\n\nimport _ \"berth/runtime/initproc\"\n\nfunc main() {}\n"
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, initproc.Name)
	build(t, out, filepath.Join(dir, "main.go"))
	return out
}

func TestCreate_WhatCannotRun_SaysWhyAndLeavesNothing(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		for id, c := range map[string]struct {
			arg    string
			reason Reason
		}{"a1": {"/missing", ReasonNotFound}, "a2": {"missing", ReasonNotFound}, "a3": {"/data", ReasonPermission}, "a4": {"/notexec", ReasonPermission}, "a5": {"/garbage", ReasonFormat}} {
			k := b.container(id)
			k.Args = []string{c.arg}
			writeRoot(t, k, "notexec", "x", 0o644)
			writeRoot(t, k, "garbage", "\x00\x01\x02 no program", 0o755)
			err := b.Create(t.Context(), k)
			if err == nil {
				// An unknown format is only found by the kernel.
				if err = b.Start(t.Context(), id); err == nil {
					if s := b.exit(id); s.ExitCode == 0 {
						t.Errorf("%s: ran", c.arg)
					}
				}
				if derr := b.Delete(t.Context(), id); derr != nil {
					t.Error(derr)
				}
				if err == nil {
					continue
				}
			}
			var se *StartError
			if !errors.As(err, &se) || se.Reason != c.reason {
				t.Errorf("%s: %v, want %v", c.arg, err, c.reason)
			}
		}
		b.leaks()
		if left := glob(t, filepath.Join(b.cfg.Root, "logs", "a[123]")); len(left) > 0 {
			t.Errorf("logs left: %v", left)
		}
	})
}
