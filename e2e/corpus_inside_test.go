package e2e_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/sys/mountinfo"

	"berth/api"
)

// mounts looks at what is mounted inside.
func (l *seen) mounts(at string, svc types.ServiceConfig, pid int) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		l.say("%s: %v", at, err)
		return
	}
	defer f.Close()
	infos, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		l.say("%s: %v", at, err)
		return
	}
	inside := map[string]*mountinfo.Info{}
	for _, i := range infos {
		inside[i.Mountpoint] = i // the uppermost is last
	}
	flags := func(i *mountinfo.Info) []string { return strings.Split(i.Options, ",") }
	if root := inside["/"]; root != nil && slices.Contains(flags(root), "ro") != svc.ReadOnly {
		l.say("%s: the root is mounted %s, read_only is %v", at, root.Options, svc.ReadOnly)
	}
	if shm := inside["/dev/shm"]; svc.ShmSize > 0 && (shm == nil || !strings.Contains(shm.VFSOptions, fmt.Sprintf("size=%dk", int64(svc.ShmSize)/1024))) {
		l.say("%s: /dev/shm is %+v, want a size of %d", at, shm, svc.ShmSize)
	}
	for _, target := range svc.Tmpfs {
		target, _, _ = strings.Cut(target, ":")
		if i := inside[filepath.Clean(target)]; i == nil || i.FSType != "tmpfs" {
			l.say("%s: no tmpfs at %s", at, target)
		}
	}
	for _, v := range svc.Volumes {
		i := inside[filepath.Clean(v.Target)]
		if i == nil {
			l.say("%s: no mount at %s", at, v.Target)
			continue
		}
		if slices.Contains(flags(i), "ro") != v.ReadOnly {
			l.say("%s: the mount at %s is %s, read_only is %v", at, v.Target, i.Options, v.ReadOnly)
		}
		source := ""
		switch {
		case v.Type == types.VolumeTypeBind && l.inside(v.Source):
			source = v.Source
		case v.Type == types.VolumeTypeBind:
			source = filepath.Join(l.host, v.Source)
		case v.Type == types.VolumeTypeTmpfs && i.FSType != "tmpfs":
			l.say("%s: %s at %s, want a tmpfs", at, i.FSType, v.Target)
		case v.Type == types.VolumeTypeVolume && v.Source != "":
			top := l.ref.Volumes[v.Source]
			source = l.volumeAt(cmp.Or(top.Name, l.name+"_"+v.Source), top)
		}
		if there := fmt.Sprintf("/proc/%d/root/%s", pid, v.Target); source != "" && !sameFile(source, there) {
			l.say("%s: what is at %s is not %s", at, v.Target, source)
		}
	}
}

// volumeAt is where a volume's files are: below a subfolder, or where its
// device is.
func (l *seen) volumeAt(name string, v types.VolumeConfig) string {
	if device := v.DriverOpts["device"]; strings.Contains(v.DriverOpts["o"], "bind") && cmp.Or(v.Driver, "local") == "local" {
		if l.inside(device) {
			return device
		}
		return filepath.Join(l.host, device)
	}
	if dir, ok := l.volumes[name]; ok {
		return dir
	}
	return "volume " + name + ", which there is not"
}

// files compares configs and secrets with what they came from.
func (l *seen) files(at string, svc types.ServiceConfig, pid int) {
	check := func(section, dir string, ref types.FileReferenceConfig, f types.FileObjectConfig) {
		target := cmp.Or(ref.Target, ref.Source)
		if !filepath.IsAbs(target) {
			target = dir + target
		}
		want := []byte(f.Content)
		if f.Content == "" {
			file := f.File
			if !l.inside(file) {
				file = filepath.Join(l.host, section, ref.Source)
			}
			want, _ = os.ReadFile(file) // what is not there is empty
		}
		got, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/%s", pid, target))
		if err != nil || string(got) != string(want) {
			l.say("%s: %s %s at %s is %.60q, want %.60q: %v", at, section, ref.Source, target, got, want, err)
		}
	}
	for _, c := range svc.Configs {
		check("configs", "/", types.FileReferenceConfig(c), types.FileObjectConfig(l.ref.Configs[c.Source]))
	}
	for _, c := range svc.Secrets {
		check("secrets", "/run/secrets/", types.FileReferenceConfig(c), types.FileObjectConfig(l.ref.Secrets[c.Source]))
	}
}

// facts are what the stand-in sees from inside.
type facts struct {
	Hostname  string
	Addresses []string
	Names     map[string][]string
	Sysctls   map[string]string
}

// network looks at addresses and names, from inside.
func (l *seen) network(t *testing.T, at string, svc types.ServiceConfig, task api.TaskInspect) {
	t.Helper()
	reachable, hidden := l.neighbours(svc)
	args := []string{"exec", "-T", "--index", fmt.Sprint(task.Slot), task.Task.Service, "/standin", "facts"}
	args = append(args, reachable...)
	args = append(args, hidden...)
	for key := range svc.Sysctls {
		args = append(args, "sysctl:"+key)
	}
	for host := range svc.ExtraHosts {
		args = append(args, host)
	}
	r := l.m.in(t, l.staged, args...)
	var f facts
	if r.code != 0 || json.Unmarshal([]byte(r.out), &f) != nil {
		l.say("%s: %s", at, r)
		return
	}
	for key, want := range svc.Sysctls {
		if got := f.Sysctls[key]; got != strings.Join(strings.Fields(want), " ") {
			l.say("%s: sysctl %s is %q, want %q", at, key, got, want)
		}
	}
	for host, ips := range svc.ExtraHosts {
		for _, ip := range ips {
			if net.ParseIP(ip) != nil && !slices.Contains(f.Names[host], net.ParseIP(ip).String()) {
				l.say("%s: extra host %s is %q, want %s", at, host, f.Names[host], ip)
			}
		}
	}
	if svc.Hostname != "" && f.Hostname != svc.Hostname {
		l.say("%s: hostname is %s, want %s", at, f.Hostname, svc.Hostname)
	}
	if svc.NetworkMode != "" {
		return
	}
	for _, name := range reachable {
		if len(f.Names[name]) == 0 {
			l.say("%s: %s has no address", at, name)
		}
	}
	for _, name := range hidden {
		if len(f.Names[name]) != 0 {
			l.say("%s: %s has address %q, on a network that is not shared", at, name, f.Names[name])
		}
	}
	l.addresses(at, svc, task, f)
}

// neighbours are the names that a service should resolve, and names of others
// that it should not.
func (l *seen) neighbours(svc types.ServiceConfig) (reachable, hidden []string) {
	near, far := map[string]bool{}, map[string]bool{}
	for name, other := range l.ref.Services {
		shared := false
		if other.GetScale() == 0 || l.once[name] {
			continue
		}
		for _, key := range joined(svc) {
			if slices.Contains(joined(other), key) {
				shared = true
				for _, n := range names(name, other, key) {
					near[n] = true
				}
			}
		}
		if !shared {
			far[name] = true
		}
	}
	maps.DeleteFunc(far, func(n string, _ bool) bool { return near[n] || len(svc.ExtraHosts[n]) > 0 || n == svc.Hostname })
	return slices.Sorted(maps.Keys(near)), slices.Sorted(maps.Keys(far))
}

// addresses compares the networks that a container is on.
func (l *seen) addresses(at string, svc types.ServiceConfig, task api.TaskInspect, f facts) {
	for _, key := range joined(svc) {
		name := cmp.Or(l.ref.Networks[key].Name, key)
		i := slices.IndexFunc(task.Networks, func(n api.TaskNetwork) bool { return n.Network == name })
		if i < 0 {
			l.say("%s: is not on network %s: %+v", at, name, task.Networks)
			continue
		}
		own := task.Networks[i]
		if !slices.Contains(f.Addresses, own.IPv4) && own.IPv4 != "" {
			l.say("%s: address %s of %s is not there: %q", at, own.IPv4, name, f.Addresses)
		}
		if n := svc.Networks[key]; n != nil && n.Ipv4Address != "" && n.Ipv4Address != own.IPv4 {
			l.say("%s: address on %s is %s, want %s", at, name, own.IPv4, n.Ipv4Address)
		}
		for _, pool := range l.ref.Networks[key].Ipam.Config {
			_, subnet, err := net.ParseCIDR(pool.Subnet)
			if err == nil && subnet.IP.To4() != nil && !subnet.Contains(net.ParseIP(own.IPv4)) {
				l.say("%s: address %s on %s is outside of %s", at, own.IPv4, name, pool.Subnet)
			}
		}
	}
	if n := len(joined(svc)); len(task.Networks) != n {
		l.say("%s: is on %d networks, want %d: %+v", at, len(task.Networks), n, task.Networks)
	}
}
