package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"berth/api"
	"berth/overlaynet"
	"berth/runtime"
)

// Doctor looks at what Berth needs from the machine. It needs no running
// agent and changes nothing but what its probes make and remove themselves.
func Doctor(ctx context.Context, cfg Config) []api.Finding {
	if err := cfg.fill(); err != nil {
		return []api.Finding{{Check: "config", Status: api.FindingBroken, Detail: err.Error()}}
	}
	d := &doctor{cfg: cfg}
	d.privileges()
	d.kernel()
	d.cgroups()
	d.runtimes(ctx)
	d.network(ctx)
	d.dns()
	d.disk()
	return d.findings
}

type doctor struct {
	cfg      Config
	findings []api.Finding
}

func (d *doctor) add(check, status, hint, format string, args ...any) {
	d.findings = append(d.findings, api.Finding{Check: check, Status: status, Detail: fmt.Sprintf(format, args...), Hint: hint})
}

func (d *doctor) privileges() {
	if os.Geteuid() != 0 {
		d.add("privileges", api.FindingBroken, "run it as root", "uid %d: the agent needs root", os.Geteuid())
		return
	}
	d.add("privileges", api.FindingOK, "", "root")
}

// kernel looks for the filesystems and namespaces that containers need.
func (d *doctor) kernel() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		d.add("kernel", api.FindingWarning, "", "uname: %v", err)
		return
	}
	release := unix.ByteSliceToString(u.Release[:])
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		d.add("kernel", api.FindingWarning, "", "%s; read /proc/filesystems: %v", release, err)
		return
	}
	if !slices.Contains(strings.Fields(string(known)), "overlay") {
		d.add("kernel", api.FindingWarning, "modprobe overlay", "%s without overlayfs loaded", release)
		return
	}
	for _, ns := range []string{"net", "mnt", "pid", "ipc", "uts", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			d.add("kernel", api.FindingBroken, "use a kernel with all namespaces", "%s has no %s namespaces", release, ns)
			return
		}
	}
	d.add("kernel", api.FindingOK, "", "Linux %s with overlayfs and all namespaces", release)
}

func (d *doctor) cgroups() {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		d.add("cgroup", api.FindingBroken, "mount cgroup2 on /sys/fs/cgroup", "no cgroups: %v", err)
		return
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		data, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		have := strings.Fields(string(data))
		for _, c := range []string{"cpu", "memory", "pids"} {
			if !slices.Contains(have, c) {
				d.add("cgroup", api.FindingWarning, "", "cgroup v2 without the %s controller: its limits have no effect", c)
				return
			}
		}
		d.add("cgroup", api.FindingOK, "", "cgroup v2 with %s", strings.Join(have, ", "))
		return
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if strings.Contains(string(mounts), " cgroup2 ") {
		d.add("cgroup", api.FindingWarning, unifiedHint, "hybrid cgroups v1: crun may refuse them, runc does not")
		return
	}
	d.add("cgroup", api.FindingWarning, unifiedHint, "cgroup v1")
}

const unifiedHint = "boot with systemd.unified_cgroup_hierarchy=1"

// runtimes runs a container with each OCI runtime, in folders of its own so
// that an agent that runs is not in its way.
func (d *doctor) runtimes(ctx context.Context) {
	dir, err := os.MkdirTemp("", "berth-doctor-")
	if err != nil {
		d.add("runtime", api.FindingBroken, "", "%v", err)
		return
	}
	defer os.RemoveAll(dir)
	r := runtime.Probe(ctx, runtime.Config{
		Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), CgroupParent: d.cfg.CgroupParent + "-doctor",
		Runtime: d.cfg.Runtime, Conmon: d.cfg.Conmon, Init: d.cfg.Executable,
	})
	if r.Chosen == "" {
		d.add("runtime", api.FindingBroken, "apt-get install crun (or runc)", "no OCI runtime works here")
	}
	for _, o := range r.Runtimes {
		switch {
		case o.Works && o.Path == r.Chosen:
			d.program(o.ProgramReport, "used")
		case o.Works:
			d.program(o.ProgramReport, "works, not used")
		case o.Path == "":
			d.add(o.Name, api.FindingOK, "", "not installed")
		default:
			d.add(o.Name, api.FindingWarning, "", "%s %s does not work here: %s", o.Path, o.Version, o.Error)
		}
	}
	if r.Conmon.Path == "" {
		d.add("conmon", api.FindingBroken, "apt-get install conmon", "not installed")
		return
	}
	d.program(r.Conmon, "used")
}

func (d *doctor) program(p runtime.ProgramReport, use string) {
	d.add(p.Name, api.FindingOK, "", "%s %s, %s", p.Path, p.Version, use)
	for _, w := range p.Warnings {
		what, hint, _ := strings.Cut(w, "; ")
		d.add(p.Name, api.FindingWarning, hint, "%s", what)
	}
}

// network looks for what the host's firewall and settings do to ours.
func (d *doctor) network(ctx context.Context) {
	dir, err := os.MkdirTemp("", "berth-doctor-")
	if err != nil {
		d.add("network", api.FindingBroken, "", "%v", err)
		return
	}
	defer os.RemoveAll(dir)
	m, err := overlaynet.Open(overlaynet.Config{Root: dir, Run: dir, Prefix: d.cfg.Prefix, Pools: d.cfg.Pools})
	if err != nil {
		d.add("network", api.FindingBroken, "", "%v", err)
		return
	}
	defer m.Close()
	r := m.Inspect(ctx)
	if r.NftVersion != "" {
		d.add("nftables", api.FindingOK, "", "nft %s", r.NftVersion)
	}
	for _, f := range r.Findings {
		status := api.FindingWarning
		if f.Severity == overlaynet.Broken {
			status = api.FindingBroken
		}
		d.add("network", status, f.Remedy, "%s", f.Message)
	}
}

// leastSpace is the free space below which deploys are likely to fail.
const leastSpace = 1 << 30

func (d *doctor) disk() {
	path := d.cfg.Root
	for {
		if _, err := os.Stat(path); err == nil || path == "/" {
			break
		}
		path = filepath.Dir(path)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		d.add("disk", api.FindingBroken, "", "%s: %v", path, err)
		return
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < leastSpace {
		d.add("disk", api.FindingWarning, "free some space, or run `berth image prune`", "%s has %.1f GB free", path, float64(free)/1e9)
		return
	}
	d.add("disk", api.FindingOK, "", "%s has %.1f GB free", path, float64(free)/1e9)
}

func (d *doctor) dns() {
	a := &Agent{cfg: d.cfg}
	up := a.upstreams()
	if len(up) == 0 {
		d.add("dns", api.FindingWarning, "set dns in the configuration", "no resolver in /etc/resolv.conf: containers can't resolve foreign names")
		return
	}
	d.add("dns", api.FindingOK, "", "foreign names go to %s", up[0])
}
