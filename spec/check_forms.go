package spec

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	imageref "github.com/distribution/reference"
)

// What the schema and the loader take, but no runtime can do, is said before
// anything starts. `config` and `lint` only warn of it, as they do of what
// fails at `up` alone.

var (
	hostnameForm = lazy(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?$`)
	resourceForm = lazy(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	exposeForm   = lazy(`^(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?$`)
	cpusetForm   = lazy(`^\d+(-\d+)?(,\d+(-\d+)?)*$`)
	deviceForm   = lazy(`^[rwm]+$`)
	platformForm = lazy(`^[a-z0-9]+(/[a-z0-9_]+(/[a-z0-9.]+)?)?$`)
	propagations = []string{"", "private", "rprivate", "shared", "rshared", "slave", "rslave"}
)

// maxImage is the length of a reference: registry, name, tag and digest.
const maxImage = 1024

// maxSize is above the memory of any machine.
const maxSize = 1 << 55

// wrongForm says that the value at path, an attribute of the service, cannot
// be carried out.
func (c serviceCheck) wrongForm(attr, message, hint string) {
	c.failAtUp(c.at+"."+attr, message, hint)
}

// failAtUp is failValue for what the reference loader takes: `config` and
// `lint` only warn of it.
func (c serviceCheck) failAtUp(path, message, hint string) {
	c.l.add(c.l.placedValue(c.l.atUp(), path, message, hint))
}

func (c serviceCheck) forms() {
	c.names()
	c.numbers()
	c.addresses()
	c.environment()
	c.targets()
	c.files()
	c.devices()
	c.modes()
}

func (c serviceCheck) names() {
	s := c.s
	if s.Image != "" && !strings.Contains(s.Image, "$") {
		if len(s.Image) > maxImage {
			c.wrongForm("image", fmt.Sprintf("image is longer than %d characters", maxImage), "write NAME:TAG")
		} else if _, err := imageref.ParseDockerRef(s.Image); err != nil {
			c.wrongForm("image", fmt.Sprintf("image %q is no reference to an image: %s", s.Image, imageProblem(s.Image, err)),
				"write NAME:TAG, such as nginx:1.27 or registry.example/team/app:v1")
		}
	}
	if n := s.ContainerName; n != "" && !resourceForm().MatchString(n) {
		c.wrongForm("container_name", fmt.Sprintf("container_name %q is no name", n), "use letters, digits, '_', '.' and '-'")
	}
	if n := s.Hostname; n != "" && (!hostnameForm().MatchString(n) || len(n) > 253) {
		c.wrongForm("hostname", fmt.Sprintf("hostname %q is no host name", n), "use letters, digits, '-' and '.'")
	}
	if s.WorkingDir != "" && !path.IsAbs(s.WorkingDir) {
		c.wrongForm("working_dir", fmt.Sprintf("working_dir %q is not absolute", s.WorkingDir), "begin it with /")
	}
	if strings.Count(s.User, ":") > 1 {
		c.wrongForm("user", fmt.Sprintf("user %q has more than one colon", s.User), "write USER or USER:GROUP")
	}
	if s.Platform != "" && !platformForm().MatchString(strings.ToLower(s.Platform)) {
		c.wrongForm("platform", fmt.Sprintf("there is no platform %s", s.Platform), "write OS/ARCH, such as linux/arm64")
	}
}

// imageProblem is what is wrong with a reference, in words for a user.
func imageProblem(image string, err error) string {
	switch {
	case strings.Contains(image, "://"):
		return "it begins as a URL does"
	case strings.ContainsAny(image, " \t\n"):
		return "it has a space"
	case strings.Contains(err.Error(), "lowercase"):
		return "a name is written in small letters"
	case strings.Contains(image, "@"):
		return "the digest is not sha256: and 64 digits"
	}
	return "its form is wrong"
}

func (c serviceCheck) numbers() {
	s := c.s
	for attr, n := range map[string]types.UnitBytes{"mem_limit": s.MemLimit, "shm_size": s.ShmSize, "mem_reservation": s.MemReservation} {
		if n < 0 || n > maxSize {
			c.wrongForm(attr, fmt.Sprintf("%s %s is out of range", attr, c.written(attr)), "write a size such as 512m")
		}
	}
	if !(s.CPUS >= 0 && s.CPUS < 1<<20) { // not a number is wrong too
		c.wrongForm("cpus", fmt.Sprintf("cpus %s is out of range", c.written("cpus")), "write a number such as 0.5")
	}
	if d := s.StopGracePeriod; d != nil && *d < 0 {
		c.wrongForm("stop_grace_period", "stop_grace_period is below zero", "write 0s or more")
	}
	if h := s.HealthCheck; h != nil {
		for attr, d := range map[string]*types.Duration{
			"interval": h.Interval, "timeout": h.Timeout, "start_period": h.StartPeriod, "start_interval": h.StartInterval,
		} {
			if d != nil && *d < 0 {
				c.wrongForm("healthcheck."+attr, "healthcheck."+attr+" is below zero", "write 0s or more")
			}
		}
		if h.Retries != nil && *h.Retries > 1<<31 {
			c.wrongForm("healthcheck.retries", "healthcheck.retries "+c.written("healthcheck.retries")+" is out of range", "write a smaller number")
		}
	}
	for _, name := range sortedKeys(s.Ulimits) {
		if u := s.Ulimits[name]; u != nil && u.Single == 0 && u.Soft > u.Hard && u.Hard >= 0 {
			c.wrongForm("ulimits."+name, fmt.Sprintf("ulimit %s: soft (%d) is above hard (%d)", name, u.Soft, u.Hard), "soft may be hard at most")
		}
	}
}

// written is an attribute as the file has it.
func (c serviceCheck) written(attr string) string {
	if p, ok := c.l.places[c.at+"."+attr]; ok && p.value != nil {
		return resolve(p.value).Value
	}
	return ""
}

func (c serviceCheck) addresses() {
	for i, e := range c.s.Expose {
		port := exposed(e)
		m := exposeForm().FindStringSubmatch(port)
		good := m != nil
		for _, n := range m[min(1, len(m)):min(3, len(m))] {
			if port, err := strconv.Atoi(n); n != "" && (err != nil || port < 1 || port > 65535) {
				good = false
			}
		}
		if !good {
			c.wrongForm(fmt.Sprintf("expose.%d", i), fmt.Sprintf("expose %q is no port of the container", e), "write a number from 1 to 65535")
		} else if port != e {
			c.l.add(c.l.placedValue(Ignored, fmt.Sprintf("%s.expose.%d", c.at, i), fmt.Sprintf("expose %q names a port of the host, which expose does not publish", e),
				fmt.Sprintf("write %q, or publish it below ports", port)))
		}
	}
	for i, address := range c.s.DNS {
		if _, err := netip.ParseAddr(address); err != nil {
			c.wrongForm(fmt.Sprintf("dns.%d", i), fmt.Sprintf("dns %q is not an IP address", address), "write the address of a name server")
		}
	}
	for _, key := range sortedKeys(c.s.Networks) {
		n := c.s.Networks[key]
		if n == nil {
			continue
		}
		c.static(key, "ipv4_address", n.Ipv4Address)
		c.static(key, "ipv6_address", n.Ipv6Address)
	}
}

// static checks an address that the service wants in a network.
func (c serviceCheck) static(network, attr, address string) {
	if address == "" {
		return
	}
	at := "networks." + network + "." + attr
	a, err := netip.ParseAddr(address)
	if err != nil || a.Is4() != (attr == "ipv4_address") {
		c.wrongForm(at, fmt.Sprintf("%s %q is no such address", attr, address), "write it as 10.0.0.5 or fd00::5")
		return
	}
	config := c.l.project.Networks[network].Ipam.Config
	same, in := 0, false
	for _, pool := range config {
		if p, err := netip.ParsePrefix(pool.Subnet); err == nil && p.Addr().Is4() == a.Is4() {
			same++
			in = in || p.Contains(a)
		}
	}
	if same == 0 && !bool(c.l.project.Networks[network].External) {
		c.wrongForm(at, fmt.Sprintf("network %s has no subnet in the file that %s could be of", network, address), "write one in its ipam.config")
	}
	if same > 0 && !in {
		c.wrongForm(at, fmt.Sprintf("%s is not in the subnet of network %s (%s)", address, network, c.l.where("networks."+network+".ipam.config")),
			"choose an address of the subnet")
	}
}

func (c serviceCheck) environment() {
	for _, name := range sortedKeys(c.s.Environment) {
		if name == "" || strings.ContainsAny(name, " \t\n\x00") {
			c.wrongForm("environment."+name, fmt.Sprintf("environment: %q is no name of a variable", name), "write NAME=value")
		}
		if v := c.s.Environment[name]; v != nil && strings.ContainsRune(*v, 0) {
			c.wrongForm("environment."+name, "environment."+name+" holds a NUL, which no environment can", "remove it")
		}
	}
}

// targets checks where things are mounted.
func (c serviceCheck) targets() {
	for i, v := range c.s.Volumes {
		at := fmt.Sprintf("volumes.%d", i)
		switch {
		case v.Target != "" && !path.IsAbs(v.Target):
			c.wrongForm(at, fmt.Sprintf("the target %q of a mount is not absolute", v.Target), "begin it with /")
		case path.Clean(v.Target) == "/":
			c.wrongForm(at, "a mount cannot cover the root of the container", "choose a folder below /")
		}
		if v.Volume != nil && outside(v.Volume.Subpath) {
			c.wrongForm(at, fmt.Sprintf("the subpath %q leads out of the volume", v.Volume.Subpath), "write a relative path without ..")
		}
		if v.Bind != nil && !slices.Contains(propagations, v.Bind.Propagation) {
			c.wrongForm(at, fmt.Sprintf("there is no propagation %s", v.Bind.Propagation), "write rprivate, rslave or rshared")
		}
	}
	for i, t := range c.s.Tmpfs {
		if target, _, _ := strings.Cut(t, ":"); !path.IsAbs(target) {
			c.wrongForm(fmt.Sprintf("tmpfs.%d", i), fmt.Sprintf("the target %q of a tmpfs is not absolute", target), "begin it with /")
		}
	}
}

// outside says that a path that should be relative to a folder leaves it.
func outside(p string) bool {
	return p != "" && (path.IsAbs(p) || slices.Contains(strings.Split(p, "/"), ".."))
}

func (c serviceCheck) devices() {
	for i, d := range c.s.Devices {
		if d.Permissions != "" && !deviceForm().MatchString(d.Permissions) {
			c.wrongForm(fmt.Sprintf("devices.%d", i), fmt.Sprintf("%q is no permission of a device", d.Permissions), "combine r, w and m")
		}
	}
	if s := c.s.CPUSet; s != "" && !cpusetForm().MatchString(s) {
		c.wrongForm("cpuset", fmt.Sprintf("cpuset %q names no CPUs", s), "write 0-3 or 0,2")
	}
}

// modes checks words of which only some mean something.
func (c serviceCheck) modes() {
	if d := c.s.Deploy; d != nil && !slices.Contains([]string{"", "vip", "dnsrr"}, d.EndpointMode) {
		c.wrongForm("deploy.endpoint_mode", fmt.Sprintf("deploy.endpoint_mode %q is unknown", d.EndpointMode), "write vip or dnsrr")
	}
	for i, p := range c.s.Ports {
		if !slices.Contains([]string{"", "ingress", "host"}, p.Mode) {
			c.wrongForm(fmt.Sprintf("ports.%d", i), fmt.Sprintf("the mode %q of a port is unknown", p.Mode), "write ingress or host")
		}
	}
}

// entries checks networks and volumes of the top level.
func (l *loading) entries() {
	p := l.project
	bad := func(path, message, hint string) { l.add(l.placedValue(l.atUp(), path, message, hint)) }
	name := func(kind, key, name string, external bool) {
		if name == "" && external {
			bad(kind+"s."+key, fmt.Sprintf("the external %s %s has an empty name", kind, key), "set the variable that gives its name")
		}
		if name != "" && !resourceForm().MatchString(name) {
			bad(kind+"s."+key+".name", fmt.Sprintf("%q is no name of a %s", name, kind), "use letters, digits, '_', '.' and '-'")
		}
	}
	var pools []pool
	for _, key := range sortedKeys(p.Networks) {
		n := p.Networks[key]
		name("network", key, n.Name, bool(n.External))
		if bool(n.External) {
			for _, attr := range []string{"driver", "driver_opts", "ipam", "internal"} {
				if path := "networks." + key + "." + attr; l.wrote(path) {
					l.add(l.placed(Warning, path, fmt.Sprintf("network %s is external, so %s has no effect", key, attr), "remove one of the two"))
				}
			}
			continue
		}
		pools = l.subnets(pools, key, n)
	}
	for _, key := range sortedKeys(p.Volumes) {
		name("volume", key, p.Volumes[key].Name, bool(p.Volumes[key].External))
	}
	if len(p.AllServices()) == 0 && len(p.AllJobs()) == 0 {
		l.add(l.placed(Warning, "services", "the stack has no service", "write one below services:"))
	}
}

// pool is a subnet and where it stands.
type pool struct {
	prefix netip.Prefix
	path   string
}

// subnets adds those of a network to pools and says which are wrong.
func (l *loading) subnets(pools []pool, key string, n types.NetworkConfig) []pool {
	bad := func(path, message, hint string) { l.add(l.placedValue(l.atUp(), path, message, hint)) }
	for i, config := range n.Ipam.Config {
		if config == nil || config.Subnet == "" {
			continue
		}
		at := fmt.Sprintf("networks.%s.ipam.config.%d.subnet", key, i)
		prefix, err := netip.ParsePrefix(config.Subnet)
		if err != nil {
			bad(at, fmt.Sprintf("subnet %q is none", config.Subnet), "write it as 10.1.0.0/24")
			continue
		}
		for _, other := range pools {
			if other.prefix.Overlaps(prefix) {
				bad(at, fmt.Sprintf("subnet %s overlaps with %s (%s)", prefix, other.prefix, l.where(other.path)), "choose another subnet")
			}
		}
		pools = append(pools, pool{prefix, at})
	}
	return pools
}
