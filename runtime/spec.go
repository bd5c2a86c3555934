package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ociVersion is the newest that crun 1.8 (Debian 12) accepts; nothing of a
// later one is used.
const ociVersion = "1.0.2"

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// specMaker turns a Container into an OCI configuration. It is pure but for
// what it looks up: the image's users, host devices, the kernel's limits.
type specMaker struct {
	parent string // cgroup
	init   string
	cg     cgroupFS
	limits hostLimits
	filter seccompCache
	warn   func(id, text string)
	cdi    []string // folders
	// ipc are the mounts of the host that its IPC namespace comes with: some
	// machines have no /dev/mqueue.
	ipc []string
}

func newSpecMaker(cfg Config, cg cgroupFS) *specMaker {
	m := &specMaker{parent: cfg.CgroupParent, init: cfg.Init, cg: cg, limits: readHostLimits(), warn: cfg.Warn, cdi: cfg.CDI}
	for _, p := range []string{"/dev/mqueue", "/dev/shm"} {
		if pathExists(p) {
			m.ipc = append(m.ipc, p)
		}
	}
	return m
}

// make looks into the mounted root of c and returns the configuration. The
// only thing that it changes is the working directory, which it creates.
func (m *specMaker) make(c Container) (*specs.Spec, error) {
	if err := validate(c); err != nil {
		return nil, err
	}
	root, err := openRootfs(c.Rootfs)
	if err != nil {
		return nil, err
	}
	defer root.close()
	if err := root.checkPlaces(); err != nil {
		return nil, err
	}
	user, err := lookupUser(root, c.User, c.GroupAdd)
	if err != nil {
		return nil, err
	}
	cwd := path.Clean("/" + c.WorkingDir)
	if err := makeWorkdir(root, c, cwd); err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:  ociVersion,
		Hostname: c.Hostname,
		Root:     &specs.Root{Path: c.Rootfs, Readonly: c.ReadOnly},
		Process: &specs.Process{
			Terminal: c.TTY,
			User:     user.oci(),
			Args:     c.Args,
			Env:      environment(c.Env, defaults(c, user)),
			Cwd:      cwd,
		},
		Annotations: c.Annotations,
		Linux:       &specs.Linux{CgroupsPath: cgroupOf(m.parent, c)},
	}
	s.Process.User.Umask = c.Umask
	if !private(c.UtsMode) {
		s.Hostname = ""
	}
	for _, step := range []func(*specs.Spec, Container) error{
		m.namespaces, m.mounts, m.wrappers, m.capabilities, m.devices,
		m.resources, m.blkio, m.rlimits, m.oomScore, m.sysctls, m.security, m.injectDevices,
	} {
		if err := step(s, c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func encodeSpec(s *specs.Spec) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the OCI configuration: %w", err)
	}
	return b, nil
}

func validate(c Container) error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	if len(c.Args) == 0 || c.Args[0] == "" {
		return invalid("no command: neither the image nor the service has one")
	}
	for _, a := range slices.Concat(c.Args, c.Env, []string{c.WorkingDir, c.Hostname, c.Domainname, c.User}) {
		if strings.ContainsRune(a, 0) {
			return invalid("a zero byte in %q", clip(a))
		}
	}
	for _, e := range c.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return invalid("environment entry %q is not KEY=VALUE", clip(e))
		}
	}
	if len(c.Hostname) > 64 || len(c.Domainname) > 64 {
		return invalid("host name %q is longer than 64 bytes", clip(c.Hostname+c.Domainname))
	}
	for k := range c.Annotations {
		// These are commands to the runtime or systemd, some of which run host
		// programs or change users (CVE-2022-0811 and its like).
		if strings.HasPrefix(k, "run.oci.") || strings.HasPrefix(k, "org.systemd.") || strings.HasPrefix(k, "org.criu.") {
			return invalid("annotation %q is not allowed", clip(k))
		}
	}
	return nil
}

// makeWorkdir creates the working directory unless a mount provides it. One
// below /proc would be a way to a leaked descriptor of the runtime
// (CVE-2024-21626).
func makeWorkdir(root *rootfs, c Container, cwd string) error {
	if len(cwd) > unix.PathMax-1 {
		return invalid("working directory %q is too long", clip(cwd))
	}
	for _, p := range []string{"/proc", "/dev/fd", "/sys"} {
		if within(cwd, p) {
			return invalid("working directory %s is in %s", cwd, p)
		}
	}
	for _, mnt := range c.Mounts {
		if within(cwd, path.Clean("/"+mnt.Target)) {
			return nil // the runtime makes it inside the mount, if it can
		}
	}
	if err := root.mkdirAll(cwd); err != nil {
		return fmt.Errorf("create working directory %s: %w", cwd, err)
	}
	return nil
}

// within says whether p is dir or below it; both are clean and absolute.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// defaults are the variables that Docker sets and images rely on.
func defaults(c Container, u identity) []string {
	out := []string{defaultPath, "HOME=" + u.home}
	host := c.Hostname
	if host == "" {
		host, _ = os.Hostname()
	}
	if host != "" {
		out = append(out, "HOSTNAME="+host)
	}
	if c.TTY {
		out = append(out, "TERM=xterm")
	}
	return out
}

// environment merges lists in which a later entry wins, and puts the defaults
// that are missing in front. The order of the rest is kept.
func environment(env, missing []string) []string {
	at := map[string]int{}
	var out []string
	for _, e := range slices.Concat(missing, env) {
		k, _, _ := strings.Cut(e, "=")
		if i, ok := at[k]; ok {
			out[i] = e
			continue
		}
		at[k] = len(out)
		out = append(out, e)
	}
	return out
}

// namespaces: its own pid, ipc, uts, mount and cgroup namespaces, unless asked
// otherwise. Without a path for the network it is the host's.
func (m *specMaker) namespaces(s *specs.Spec, c Container) error {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if c.Netns != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.Netns})
	}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		mode string
	}{
		{specs.PIDNamespace, c.PidMode},
		{specs.IPCNamespace, c.IpcMode},
		{specs.UTSNamespace, c.UtsMode},
		{specs.CgroupNamespace, c.CgroupMode},
	} {
		switch {
		case n.mode == "host":
		case private(n.mode) || n.kind == specs.IPCNamespace && (n.mode == "shareable" || n.mode == "none"):
			ns = append(ns, specs.LinuxNamespace{Type: n.kind})
		case path.IsAbs(n.mode):
			ns = append(ns, specs.LinuxNamespace{Type: n.kind, Path: n.mode})
		default:
			return invalid("%s namespace mode %q; write host or private", n.kind, n.mode)
		}
	}
	s.Linux.Namespaces = ns
	return nil
}
