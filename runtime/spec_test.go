package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

// paperMaker makes configurations as on a machine with cgroup v2, all
// capabilities and a hard limit of a million files.
func paperMaker(warn *[]string) *specMaker {
	limits := hostLimits{rlimit: map[int]unix.Rlimit{}}
	limits.caps = slices.Sorted(slices.Values(minus(capNames, []string{"CAP_SYS_RESOURCE"})))
	for _, n := range rlimitNumbers {
		limits.rlimit[n] = unix.Rlimit{Cur: 1024, Max: math.MaxUint64}
	}
	limits.rlimit[unix.RLIMIT_NOFILE] = unix.Rlimit{Cur: 1024, Max: 1_000_000}
	return &specMaker{
		parent: "/berth", init: "/usr/bin/berthd", cg: cgroupFS{v2: true}, limits: limits, ipc: []string{"/dev/mqueue", "/dev/shm"},
		warn: func(_, text string) { *warn = append(*warn, text) },
	}
}

func paperRoot(tb testing.TB) string {
	tb.Helper()
	root := tb.TempDir()
	c := Container{Rootfs: root}
	writeRoot(tb, c, "etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n", 0o644)
	writeRoot(tb, c, "etc/group", "root:x:0:\napp:x:1000:\nwheel:x:10:app,other\n", 0o644)
	return root
}

func TestSpec_Golden(t *testing.T) {
	for name, c := range map[string]Container{
		"minimal": {},
		"web": {
			Netns: "/run/netns/x", User: "app", WorkingDir: "/srv", Hostname: "web-1", Env: []string{"A=b"},
			HostsFile: "/h/hosts", HostnameFile: "/h/hostname", ResolvFile: "/h/resolv",
			Mounts: []Mount{
				{Type: "bind", Source: "/host/a/b", Target: "/data/a/b", ReadOnly: true},
				{Type: "bind", Source: "/host/a", Target: "/data", Options: []string{"rslave", "z"}},
				{Type: "tmpfs", Target: "/tmp", Options: []string{"size=64m", "exec"}},
				{Type: "bind", Source: "/h/mine", Target: "/etc/hosts"},
			},
			Resources: Resources{NanoCPUs: 1.5e9, Memory: 64 << 20, Pids: -1, Cpuset: "0-1", CPUShares: 512},
			ReadOnly:  true, ShmSize: 1 << 20, Sysctls: map[string]string{"net.core.somaxconn": "1024"},
		},
		"privileged-host": {
			Privileged: true, PidMode: "host", IpcMode: "host", UtsMode: "host", CgroupMode: "host", Hostname: "ignored",
		},
		"confined": {
			CapDrop: []string{"ALL"}, CapAdd: []string{"NET_BIND_SERVICE"}, SecurityOpt: []string{"no-new-privileges", "label=disable"},
			Init: true, EnvFile: "/run/secrets/task1/env", Domainname: "example.org", OomScore: 500, GroupAdd: []string{"wheel", "4242"},
			Ulimits:           map[string]Ulimit{"nofile": {Soft: 2e6, Hard: 2e6}, "nproc": {Soft: -1, Hard: -1}},
			Devices:           []Device{{Source: "/dev/full", Target: "/dev/filled", Permissions: "r"}},
			DeviceCgroupRules: []string{"c 10:* rwm"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var warnings []string
			m := paperMaker(&warnings)
			c.ID, c.Rootfs = "task1", paperRoot(t)
			if c.Args == nil {
				c.Args = []string{"/bin/server", "-v"}
			}
			if c.Hostname == "" {
				c.Hostname = "h"
			}
			s, err := m.make(c)
			if err != nil {
				t.Fatal(err)
			}
			// What depends on this machine, or is long and tested elsewhere.
			s.Root.Path = "ROOTFS"
			s.Linux.MaskedPaths = slices.DeleteFunc(s.Linux.MaskedPaths, func(p string) bool { return strings.Contains(p, "thermal") })
			if s.Linux.Seccomp != nil {
				s.Linux.Seccomp.Syscalls = nil
				s.Linux.Seccomp.Architectures = nil
			}
			if c.Privileged {
				s.Linux.Devices = nil
			}
			b, err := json.MarshalIndent(map[string]any{"config": s, "warnings": warnings}, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/spec/"+name+".json", append(b, '\n'))
		})
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (run with -update to accept):\n%s", path, got)
	}
}

func TestSpec_WrongRequests_AreInvalid(t *testing.T) {
	for name, c := range map[string]struct {
		c    Container
		says string
	}{
		"no command":         {Container{Args: []string{}}, "no command"},
		"zero byte":          {Container{Args: []string{"a\x00b"}}, "zero byte"},
		"env":                {Container{Env: []string{"NOVALUE"}}, "KEY=VALUE"},
		"workdir in proc":    {Container{WorkingDir: "/proc/self/fd/8"}, "/proc"},
		"workdir in dev fd":  {Container{WorkingDir: "/dev/fd/../fd/8"}, "/dev/fd"},
		"runtime annotation": {Container{Annotations: map[string]string{"run.oci.hooks.stdout": "/etc/x"}}, "not allowed"},
		"capability":         {Container{CapAdd: []string{"NET_ADMINN"}}, "NET_ADMINN"},
		"ulimit":             {Container{Ulimits: map[string]Ulimit{"files": {}}}, "files"},
		"soft above hard":    {Container{Ulimits: map[string]Ulimit{"nproc": {Soft: 2, Hard: 1}}}, "soft"},
		"host sysctl":        {Container{Sysctls: map[string]string{"vm.swappiness": "1"}}, "vm.swappiness"},
		"net sysctl on host": {Container{Sysctls: map[string]string{"net.core.somaxconn": "1"}}, "network namespace"},
		"sysctl newline":     {Container{Sysctls: map[string]string{"kernel.sem": "1\n2"}}, "kernel.sem"},
		"ipc sysctl on host": {Container{IpcMode: "host", Sysctls: map[string]string{"kernel.sem": "1"}}, "ipc is host"},
		"pid mode":           {Container{PidMode: "container:x"}, "pid"},
		"relative mount":     {Container{Mounts: []Mount{{Type: "bind", Source: "/a", Target: "b"}}}, "target"},
		"mount over root":    {Container{Mounts: []Mount{{Type: "bind", Source: "/a", Target: "/x/.."}}}, "other than /"},
		"mount over proc":    {Container{Mounts: []Mount{{Type: "tmpfs", Target: "/proc"}}}, "/proc"},
		"mount twice":        {Container{Mounts: []Mount{{Type: "tmpfs", Target: "/a"}, {Type: "tmpfs", Target: "/a/"}}}, "two mounts"},
		"mount type":         {Container{Mounts: []Mount{{Type: "npipe", Target: "/a"}}}, "npipe"},
		"relative bind":      {Container{Mounts: []Mount{{Type: "bind", Source: "a", Target: "/a"}}}, "absolute"},
		"not a device":       {Container{Devices: []Device{{Source: "/etc/passwd"}}}, "not a device"},
		"device permissions": {Container{Devices: []Device{{Source: "/dev/null", Permissions: "rx"}}}, "rx"},
		"device rule":        {Container{DeviceCgroupRules: []string{"c 1:3"}}, "c 1:3"},
		"small memory":       {Container{Resources: Resources{Memory: 1024}}, "6 MiB"},
		"swap below memory":  {Container{Resources: Resources{Memory: 64 << 20, MemorySwap: 32 << 20}}, "less than memory"},
		"two cpu limits":     {Container{Resources: Resources{NanoCPUs: 1e9, CPUQuota: 1000}}, "both set"},
		"security_opt":       {Container{SecurityOpt: []string{"secomp=x"}}, "secomp"},
		"no-new-privileges":  {Container{SecurityOpt: []string{"no-new-privileges:maybe"}}, "maybe"},
		"oom score":          {Container{OomScore: 2000}, "2000"},
		"bad id":             {Container{ID: "../x"}, "id"},
	} {
		t.Run(name, func(t *testing.T) {
			var warnings []string
			m := paperMaker(&warnings)
			k := c.c
			k.Rootfs = paperRoot(t)
			if k.ID == "" {
				k.ID = "task1"
			}
			if k.Args == nil {
				k.Args = []string{"/x"}
			}
			_, err := m.make(k)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v; want ErrInvalid with %q on one line", err, c.says)
			}
		})
	}
}

// E22: crun before 1.28 and runc before 1.2.8 follow these out of the root.
func TestSpec_SymlinkedPlaces_AreRefused(t *testing.T) {
	var warnings []string
	for _, place := range []string{"dev", "proc", "sys", "run"} {
		for kind, make := range map[string]func(string) error{
			"symlink": func(p string) error { return os.Symlink("/tmp", p) },
			"file":    func(p string) error { return os.WriteFile(p, nil, 0o644) },
		} {
			root := paperRoot(t)
			if err := make(filepath.Join(root, place)); err != nil {
				t.Fatal(err)
			}
			_, err := paperMaker(&warnings).make(Container{ID: "a", Rootfs: root, Args: []string{"/x"}})
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "/"+place) {
				t.Errorf("/%s as a %s: %v", place, kind, err)
			}
		}
	}
}

func TestSpec_WorkingDirThroughSymlink_StaysInside(t *testing.T) {
	outside := t.TempDir()
	root := paperRoot(t)
	if err := os.Symlink(outside, filepath.Join(root, "abs")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../.."+outside, filepath.Join(root, "rel")); err != nil {
		t.Fatal(err)
	}
	var warnings []string
	for _, dir := range []string{"/abs/made", "/rel/made", "/abs/../../made"} {
		_, _ = paperMaker(&warnings).make(Container{ID: "a", Rootfs: root, Args: []string{"/x"}, WorkingDir: dir})
	}
	if left := glob(t, outside+"/*"); len(left) > 0 {
		t.Errorf("created outside of the root: %v", left)
	}
}

func TestEnvironment_LaterWins_EachKeyOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entry := rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom([]string{"A", "B", "C", "PATH"}).Draw(t, "k") + "=" + rapid.StringN(0, 3, -1).Draw(t, "v")
		})
		env := rapid.SliceOf(entry).Draw(t, "env")
		missing := rapid.SliceOf(entry).Draw(t, "missing")
		want := map[string]string{}
		for _, e := range slices.Concat(missing, env) {
			k, v, _ := strings.Cut(e, "=")
			want[k] = v
		}
		got := environment(env, missing)
		if len(got) != len(want) {
			t.Fatalf("%d entries, want %d", len(got), len(want))
		}
		for _, e := range got {
			if k, v, _ := strings.Cut(e, "="); want[k] != v {
				t.Fatalf("%s=%s, want %s", k, v, want[k])
			}
		}
	})
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]Signal{
		"": unix.SIGTERM, "9": unix.SIGKILL, "SIGINT": unix.SIGINT, "hup": unix.SIGHUP, "sigquit": unix.SIGQUIT,
		"SIGRTMIN+3": 37, "RTMIN": 34, "SIGRTMAX-1": 63, "RTMAX": 64,
	} {
		if got, err := ParseSignal(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"0", "65", "-1", "SIGFOO", "RTMIN+40", "RTMIN-1", "RTMAX+1", "9x", "99999999999999999999"} {
		if got, err := ParseSignal(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
