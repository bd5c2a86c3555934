package runtime

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const defaultShm = 64 << 20

// mounts: the pseudo filesystems, then what was asked for, parents before
// children. What is asked for wins over a default of the same target.
func (m *specMaker) mounts(s *specs.Spec, c Container) error {
	asked, err := askedMounts(c)
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, a := range asked {
		taken[a.Destination] = true
	}
	for _, d := range m.defaultMounts(c) {
		if !taken[d.Destination] {
			s.Mounts = append(s.Mounts, d)
		}
	}
	for _, f := range []struct{ source, target string }{
		{c.ResolvFile, "/etc/resolv.conf"}, {c.HostnameFile, "/etc/hostname"}, {c.HostsFile, "/etc/hosts"},
	} {
		if f.source != "" && !taken[f.target] {
			asked = append(asked, specs.Mount{
				Destination: f.target, Type: "bind", Source: f.source, Options: []string{"rbind", "rprivate"},
			})
		}
	}
	slices.SortStableFunc(asked, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	s.Mounts = append(s.Mounts, asked...)
	if slices.ContainsFunc(asked, propagates) {
		// A slave below a private root receives nothing.
		s.Linux.RootfsPropagation = "rslave"
	}
	return nil
}

func propagates(m specs.Mount) bool {
	return slices.ContainsFunc(m.Options, func(o string) bool {
		return o == "shared" || o == "rshared" || o == "slave" || o == "rslave"
	})
}

func (m *specMaker) defaultMounts(c Container) []specs.Mount {
	sysfs := []string{"nosuid", "noexec", "nodev", "ro"}
	cgroup := []string{"nosuid", "noexec", "nodev", "relatime", "ro"}
	if c.Privileged {
		sysfs, cgroup = sysfs[:3], cgroup[:4]
	}
	shm := c.ShmSize
	if shm == 0 {
		shm = defaultShm
	}
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{
			Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sysfs},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: cgroup},
	}
	if c.IpcMode == "host" {
		bind := func(p string) specs.Mount {
			return specs.Mount{Destination: p, Type: "bind", Source: p, Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
		}
		for _, p := range m.ipc {
			out = append(out, bind(p))
		}
		return out
	}
	out = append(out, specs.Mount{
		Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"},
	})
	switch {
	case c.IpcMode == "none":
		return out
	case c.ShmDir != "":
		return append(out, specs.Mount{
			Destination: "/dev/shm", Type: "bind", Source: c.ShmDir,
			Options: []string{"bind", "nosuid", "noexec", "nodev", "rprivate"},
		})
	}
	return append(out, specs.Mount{
		Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", shm)},
	})
}

// ignoredOptions belong to Docker's volume syntax and mean nothing to mount(2)
// here. SELinux relabelling (z, Z) is left to the host's policy.
var ignoredOptions = []string{"z", "Z", "cached", "delegated", "consistent", "nocopy", "copy", "U"}

var propagations = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"}

func askedMounts(c Container) ([]specs.Mount, error) {
	var out []specs.Mount
	seen := map[string]bool{}
	for _, a := range c.Mounts {
		target := path.Clean("/" + a.Target)
		if !path.IsAbs(a.Target) || target == "/" || strings.ContainsRune(a.Target, 0) {
			return nil, invalid("mount target %q must be an absolute path other than /", clip(a.Target))
		}
		if target == "/proc" {
			return nil, invalid("mount target /proc hides what the runtime needs; mount a path below it, or elsewhere")
		}
		if seen[target] {
			return nil, invalid("two mounts at %s", target)
		}
		seen[target] = true
		m, err := askedMount(a, target)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func askedMount(a Mount, target string) (specs.Mount, error) {
	options := slices.DeleteFunc(slices.Clone(a.Options), func(o string) bool {
		return slices.Contains(ignoredOptions, o)
	})
	if a.ReadOnly {
		options = slices.DeleteFunc(options, func(o string) bool { return o == "rw" })
		if !slices.Contains(options, "ro") {
			options = append(options, "ro")
		}
	}
	switch a.Type {
	case "bind":
		if !path.IsAbs(a.Source) {
			return specs.Mount{}, invalid("source %q of the mount at %s is not an absolute path", clip(a.Source), target)
		}
		if !slices.Contains(options, "bind") && !slices.Contains(options, "rbind") {
			options = append([]string{"rbind"}, options...)
		}
		if !slices.ContainsFunc(options, func(o string) bool { return slices.Contains(propagations, o) }) {
			options = append(options, "rprivate")
		}
		return specs.Mount{Destination: target, Type: "bind", Source: a.Source, Options: options}, nil
	case "tmpfs":
		for _, o := range []string{"nosuid", "nodev", "noexec"} {
			if !slices.Contains(options, o) && !slices.Contains(options, o[2:]) {
				options = append(options, o)
			}
		}
		return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: options}, nil
	default:
		return specs.Mount{}, invalid("type %q of the mount at %s; write bind or tmpfs", a.Type, target)
	}
}
