package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultCaps are Podman's: Docker's without AUDIT_WRITE, MKNOD and NET_RAW.
// Ping works without NET_RAW, through net.ipv4.ping_group_range.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// capNames in the order of their numbers, capabilities(7).
var capNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// capabilities: bounding, permitted and effective only. Inheritable ones would
// outlive a change of user (CVE-2022-24769).
func (m *specMaker) capabilities(s *specs.Spec, c Container) error {
	caps := defaultCaps
	if c.Privileged {
		caps = m.limits.caps
	}
	caps, err := adjustCaps(caps, c.CapAdd, c.CapDrop, m.limits.caps)
	if err != nil {
		return err
	}
	// The agent can't give what it does not have itself.
	have := slices.DeleteFunc(slices.Clone(caps), func(n string) bool { return !slices.Contains(m.limits.caps, n) })
	if len(have) < len(caps) {
		m.warn(c.ID, fmt.Sprintf("capabilities left out because the agent lacks them: %s", strings.Join(minus(caps, have), " ")))
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: have, Permitted: have, Effective: have}
	return nil
}

// adjustCaps follows Compose: drop ALL, then add; or add ALL, then drop.
func adjustCaps(base, add, drop, all []string) ([]string, error) {
	adds, addAll, err := parseCaps(add)
	if err != nil {
		return nil, err
	}
	drops, dropAll, err := parseCaps(drop)
	if err != nil {
		return nil, err
	}
	switch {
	case addAll:
		base = all
	case dropAll:
		base = nil
	}
	if !dropAll {
		base = minus(base, drops)
		adds = minus(adds, drops)
	}
	out := slices.Clone(base)
	for _, a := range adds {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return out, nil
}

func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(n string) bool { return slices.Contains(b, n) })
}

func parseCaps(in []string) (out []string, all bool, err error) {
	for _, s := range in {
		n := strings.ToUpper(strings.TrimSpace(s))
		if n == "ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		if !slices.Contains(capNames, n) {
			return nil, false, invalid("unknown capability %q", clip(s))
		}
		out = append(out, n)
	}
	return out, all, nil
}

// maskedPaths and readonlyPaths are moby's.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// thermalPaths: how often a CPU was throttled tells what the neighbours do.
var thermalPaths = sync.OnceValue(func() []string {
	p, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	return p
})

// security: seccomp, no_new_privileges, masked paths, LSM labels.
//
// no_new_privileges is off unless asked for, as in Docker: images with sudo,
// su or a setuid helper are common in Compose files, and would break.
func (m *specMaker) security(s *specs.Spec, c Container) error {
	profile, systempaths := "", ""
	for _, o := range c.SecurityOpt {
		key, value, _ := strings.Cut(o, "=")
		if k, v, ok := strings.Cut(o, ":"); ok && (key == o || len(k) < len(key)) {
			key, value = k, v // the older form, with a colon
		}
		switch key {
		case "no-new-privileges":
			on, err := strconv.ParseBool(value)
			if value != "" && err != nil {
				return invalid("security_opt %q; write no-new-privileges:true or :false", clip(o))
			}
			s.Process.NoNewPrivileges = value == "" || on
		case "writable-cgroups":
			if on, err := strconv.ParseBool(value); err != nil && value != "" {
				return invalid("security_opt %q; write writable-cgroups=true or =false", clip(o))
			} else if on || value == "" {
				writableCgroups(s)
			}
		case "seccomp":
			profile = value
		case "systempaths":
			systempaths = value
		case "apparmor":
			if err := m.apparmor(s, c, value); err != nil {
				return err
			}
		case "label":
			if value != "disable" && value != "" && pathExists("/sys/fs/selinux/enforce") {
				return invalid("security_opt %q: SELinux labels can't be set; write label=disable", clip(o))
			}
		default:
			return invalid("unknown security_opt %q", clip(o))
		}
	}
	if systempaths != "" && systempaths != "unconfined" {
		return invalid("security_opt systempaths=%s; write systempaths=unconfined", clip(systempaths))
	}
	if !c.Privileged && systempaths == "" {
		s.Linux.MaskedPaths = slices.Concat(maskedPaths, thermalPaths())
		s.Linux.ReadonlyPaths = readonlyPaths
	}
	var err error
	s.Linux.Seccomp, err = m.seccomp(s, c, profile)
	return err
}

// writableCgroups lets the container divide its own cgroup, as systemd does.
func writableCgroups(s *specs.Spec) {
	for i, mnt := range s.Mounts {
		if mnt.Destination == "/sys/fs/cgroup" {
			s.Mounts[i].Options = minus(mnt.Options, []string{"ro"})
		}
	}
}

func (m *specMaker) apparmor(s *specs.Spec, c Container, profile string) error {
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err != nil || len(b) == 0 || b[0] != 'Y' {
		if profile != "unconfined" {
			m.warn(c.ID, fmt.Sprintf("security_opt apparmor=%s has no effect: this kernel runs without AppArmor", profile))
		}
		return nil
	}
	s.Process.ApparmorProfile = profile
	return nil
}

func pathExists(p string) bool { return unix.Access(p, unix.F_OK) == nil }
