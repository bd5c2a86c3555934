package runtime

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxDevices bounds what a mapped folder may hold.
const maxDevices = 1024

// devices: nothing but what the runtimes allow by themselves (null, zero,
// full, random, urandom, tty, console, ptmx, pts) and what was asked for.
func (m *specMaker) devices(s *specs.Spec, c Container) error {
	deny := specs.LinuxDeviceCgroup{Allow: false, Access: "rwm"}
	rules := []specs.LinuxDeviceCgroup{deny}
	if c.Privileged {
		rules = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		all, err := deviceTree("/dev", "/dev", skipPrivileged)
		if err != nil {
			return err
		}
		s.Linux.Devices = all
	} else {
		rules = append(rules, defaultDeviceRules()...)
	}
	for _, d := range c.Devices {
		devs, err := askedDevices(d)
		if err != nil {
			return err
		}
		for _, dev := range devs {
			s.Linux.Devices = replaceDevice(s.Linux.Devices, dev)
			rules = append(rules, specs.LinuxDeviceCgroup{
				Allow: true, Type: dev.Type, Major: &dev.Major, Minor: &dev.Minor, Access: access(d),
			})
		}
	}
	for _, text := range c.DeviceCgroupRules {
		rule, err := parseDeviceRule(text)
		if err != nil {
			return err
		}
		rules = append(rules, rule)
	}
	s.Linux.Resources = &specs.LinuxResources{Devices: rules}
	return nil
}

// defaultDeviceRules: mknod of anything (it needs the capability besides), use
// of the harmless ones.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	var out []specs.LinuxDeviceCgroup
	for _, d := range []struct {
		kind         string
		major, minor int64 // -1: all
		access       string
	}{
		{"c", -1, -1, "m"},
		{"b", -1, -1, "m"},
		{"c", 1, 3, "rwm"},    // null
		{"c", 1, 5, "rwm"},    // zero
		{"c", 1, 7, "rwm"},    // full
		{"c", 1, 8, "rwm"},    // random
		{"c", 1, 9, "rwm"},    // urandom
		{"c", 5, 0, "rwm"},    // tty
		{"c", 5, 1, "rwm"},    // console
		{"c", 5, 2, "rwm"},    // ptmx
		{"c", 136, -1, "rwm"}, // pts/*
	} {
		out = append(out, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.kind, Major: number(d.major), Minor: number(d.minor), Access: d.access,
		})
	}
	return out
}

func number(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

func access(d Device) string {
	if d.Permissions == "" {
		return "rwm"
	}
	return d.Permissions
}

func askedDevices(d Device) ([]specs.LinuxDevice, error) {
	if strings.Trim(d.Permissions, "rwm") != "" {
		return nil, invalid("permissions %q of device %s; write some of rwm", clip(d.Permissions), d.Source)
	}
	target := d.Target
	if target == "" {
		target = d.Source
	}
	if !path.IsAbs(d.Source) || !path.IsAbs(target) {
		return nil, invalid("device %q:%q must be absolute paths", clip(d.Source), clip(target))
	}
	source, err := filepath.EvalSymlinks(d.Source)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", d.Source, err)
	}
	devs, err := deviceTree(source, path.Clean(target), nil)
	if err != nil {
		return nil, err
	}
	if len(devs) == 0 {
		return nil, invalid("%s is not a device", d.Source)
	}
	return devs, nil
}

// skipPrivileged leaves out what the runtime mounts itself.
func skipPrivileged(p string) bool {
	switch p {
	case "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/ptmx", "/dev/.lxc":
		return true
	}
	return false
}

// deviceTree lists the devices at or below source, moved to target.
func deviceTree(source, target string, skip func(string) bool) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	err := filepath.WalkDir(source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if skip != nil && skip(p) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type()&fs.ModeDevice == 0 {
			return nil
		}
		dev, err := deviceAt(p, target+strings.TrimPrefix(p, source))
		if err != nil {
			return err
		}
		if out = append(out, dev); len(out) > maxDevices {
			return invalid("%s holds more than %d devices", source, maxDevices)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", source, err)
	}
	return out, nil
}

func deviceAt(p, target string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return specs.LinuxDevice{}, err
	}
	kind := "c"
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		kind = "b"
	}
	mode := fs.FileMode(st.Mode & 0o7777)
	return specs.LinuxDevice{
		Path: target, Type: kind, FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
		Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
	}, nil
}

func replaceDevice(devs []specs.LinuxDevice, d specs.LinuxDevice) []specs.LinuxDevice {
	for i := range devs {
		if devs[i].Path == d.Path {
			devs[i] = d
			return devs
		}
	}
	return append(devs, d)
}

// parseDeviceRule reads "c 1:3 mr", "b 8:* rwm" or "a *:* rwm".
func parseDeviceRule(s string) (specs.LinuxDeviceCgroup, error) {
	bad := invalid("device_cgroup_rules entry %q; write for example \"c 1:3 mr\"", clip(s))
	f := strings.Fields(s)
	if len(f) != 3 || !slices.Contains([]string{"a", "b", "c"}, f[0]) || strings.Trim(f[2], "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	if !ok {
		return specs.LinuxDeviceCgroup{}, bad
	}
	rule := specs.LinuxDeviceCgroup{Allow: true, Type: f[0], Access: f[2]}
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &rule.Major}, {minor, &rule.Minor}} {
		if n.text == "*" {
			continue
		}
		v, err := strconv.ParseUint(n.text, 10, 32)
		if err != nil {
			return specs.LinuxDeviceCgroup{}, bad
		}
		*n.to = number(int64(v))
	}
	return rule, nil
}
