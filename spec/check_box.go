package spec

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// namespaces are the attributes that name whose namespace a container is in.
func namespaces(s types.ServiceConfig) map[string]string {
	return map[string]string{
		"network_mode": s.NetworkMode, "pid": s.Pid, "ipc": s.Ipc, "uts": s.Uts,
	}
}

// refuse reports what Docker Compose finds out only when it starts the stack.
func (c serviceCheck) refuse(path, message, hint string) {
	c.l.add(c.l.placedValue(c.l.atUp(), path, message, hint))
}

// box checks the attributes of the container itself.
func (c serviceCheck) box() {
	c.namespaces()
	for i, o := range c.s.SecurityOpt {
		if err := checkSecurityOpt(o); err != nil {
			key, _ := CutSecurityOpt(o)
			c.refuse(fmt.Sprintf("%s.security_opt.%d", c.at, i), err.Error(), suggestion(key, securityOpts,
				"write no-new-privileges, seccomp=FILE, apparmor=PROFILE, label=disable or systempaths=unconfined"))
		}
	}
	if err := CheckCgroupParent(c.s.CgroupParent); err != nil {
		c.refuse(c.at+".cgroup_parent", err.Error(), "write a name such as batch, or batch/low: it stands below the agent's own cgroup")
	}
	if m := c.s.UserNSMode; m != "" && m != "host" {
		c.refuse(c.at+".userns_mode", fmt.Sprintf("userns_mode %q is not honoured: containers have the host's user ids", m),
			"remove it, or write host; user: takes the container's processes away from root")
	}
	c.blkio()
	c.storage()
	if c.s.Umask != nil && *c.s.Umask > 0o777 {
		c.refuse(c.at+".umask", fmt.Sprintf("umask %#o is above 0777", *c.s.Umask), "write permission bits, such as 0027")
	}
	if n := c.s.MemSwappiness; n < -1 || n > 100 {
		c.refuse(c.at+".mem_swappiness", fmt.Sprintf("mem_swappiness %d is not between 0 and 100", n), "write 0 to 100")
	}
	if n := c.s.OomScoreAdj; n < -1000 || n > 1000 {
		c.refuse(c.at+".oom_score_adj", fmt.Sprintf("oom_score_adj %d is not between -1000 and 1000", n), "write -1000 to 1000")
	}
	if p, r := c.s.CPURTPeriod, c.s.CPURTRuntime; p < 0 || r < 0 || p > 0 && r > p {
		c.refuse(c.at+".cpu_rt_runtime", fmt.Sprintf("cpu_rt_runtime %d does not fit into cpu_rt_period %d", r, p),
			"write microseconds, the runtime below the period")
	}
}

func (c serviceCheck) namespaces() {
	for _, attr := range []string{"network_mode", "pid", "ipc", "uts"} {
		mode := namespaces(c.s)[attr]
		at := c.at + "." + attr
		kind, name, has := strings.Cut(mode, ":")
		switch {
		case kind == "service" && has && attr == "ipc":
			if other, ok := c.l.project.Services[name]; ok && other.Ipc != "" && other.Ipc != "shareable" {
				c.refuse(at, fmt.Sprintf("service %s does not share its ipc namespace: its own is %q (%s)", name, other.Ipc,
					c.l.where("services."+name+".ipc")), "write ipc: shareable there")
			}
		case (kind == "service" || kind == "container") && has:
			if name == "" {
				c.refuse(at, fmt.Sprintf("%s %q names nobody", attr, mode), "write "+kind+":NAME")
			}
		case attr == "network_mode", mode == "", mode == "host", mode == "private":
		case attr == "ipc" && (mode == "shareable" || mode == "none"):
		default:
			c.refuse(at, fmt.Sprintf("%s %q is unknown", attr, mode), "write host, private, service:NAME or container:NAME")
		}
	}
}

var securityOpts = []string{"no-new-privileges", "seccomp", "apparmor", "label", "systempaths", "writable-cgroups"}

// checkSecurityOpt knows the forms of Docker's --security-opt, with = or, as
// of old, with a colon.
func checkSecurityOpt(o string) error {
	key, value := CutSecurityOpt(o)
	switch key {
	case "no-new-privileges", "writable-cgroups":
		if _, err := strconv.ParseBool(value); value != "" && err != nil {
			return fmt.Errorf("security_opt %q is neither true nor false", o)
		}
	case "seccomp", "apparmor", "label":
		if value == "" {
			return fmt.Errorf("security_opt %q has no value", o)
		}
	case "systempaths":
		if value != "unconfined" {
			return fmt.Errorf("security_opt %q is unknown", o)
		}
	default:
		return fmt.Errorf("security_opt %q is unknown", o)
	}
	return nil
}

// CutSecurityOpt splits KEY=VALUE, or the older KEY:VALUE.
func CutSecurityOpt(o string) (key, value string) {
	if i := strings.IndexAny(o, "=:"); i >= 0 {
		return o[:i], o[i+1:]
	}
	return o, ""
}

// CheckCgroupParent says whether p can stand below the agent's cgroup: names
// of letters, digits and _.@:-, joined by slashes. What leads elsewhere, or is
// the name of a control file, is refused.
func CheckCgroupParent(p string) error {
	const most = 8
	parts := strings.Split(strings.Trim(p, "/"), "/")
	if p == "" {
		return nil
	}
	if len(parts) > most {
		return fmt.Errorf("cgroup_parent is deeper than %d", most)
	}
	for _, part := range parts {
		if part == "" || len(part) > 100 || part[0] == '.' || strings.HasPrefix(part, "cgroup.") || part == "tasks" ||
			strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@:-") != "" {
			return fmt.Errorf("cgroup_parent %q has the part %q", p, part)
		}
	}
	return nil
}

func (c serviceCheck) blkio() {
	b := c.s.BlkioConfig
	if b == nil {
		return
	}
	weight := func(at string, w uint16) {
		if w != 0 && (w < 10 || w > 1000) {
			c.refuse(at, fmt.Sprintf("weight %d is not between 10 and 1000", w), "write 10 to 1000; 500 is the middle")
		}
	}
	device := func(at, p string) {
		if !path.IsAbs(p) {
			c.refuse(at, fmt.Sprintf("device %q is not an absolute path", p), "write the path of a block device, such as /dev/sda")
		}
	}
	at := c.at + ".blkio_config."
	weight(at+"weight", b.Weight)
	for i, w := range b.WeightDevice {
		weight(fmt.Sprintf("%sweight_device.%d.weight", at, i), w.Weight)
		device(fmt.Sprintf("%sweight_device.%d.path", at, i), w.Path)
	}
	for attr, list := range map[string][]types.ThrottleDevice{
		"device_read_bps": b.DeviceReadBps, "device_read_iops": b.DeviceReadIOps,
		"device_write_bps": b.DeviceWriteBps, "device_write_iops": b.DeviceWriteIOps,
	} {
		for i, d := range list {
			device(fmt.Sprintf("%s%s.%d.path", at, attr, i), d.Path)
			if d.Rate < 0 {
				c.refuse(fmt.Sprintf("%s%s.%d.rate", at, attr, i), "the rate is negative", "write a rate per second, such as 1mb")
			}
		}
	}
}

func (c serviceCheck) storage() {
	for _, key := range sortedKeys(c.s.StorageOpt) {
		at := c.at + ".storage_opt." + key
		if key != "size" {
			c.refuse(at, "storage_opt "+key+" is unknown", "size is the only one")
			continue
		}
		if n, err := storageSize(c.s.StorageOpt); err != nil || n < minimumStorage {
			c.refuse(at, fmt.Sprintf("storage_opt size %q is no size of at least 1m", c.s.StorageOpt[key]), "write for example 10G")
		}
	}
}
