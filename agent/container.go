package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/miekg/dns"

	"berth/images"
	"berth/runtime"
	"berth/secrets"
	"berth/spec"
	"berth/store"
)

// container translates a task into what runtime creates: the service over the
// image's configuration, by the rules of Compose and Docker.
// release is called once the container has been created, or not.
func (a *Agent) container(ctx context.Context, t *store.Task, img images.Image, rootfs string) (c runtime.Container, release func(), err error) {
	s := &t.Spec
	release = func() {}
	c = runtime.Container{
		ID: t.ID, Name: t.Name(), Rootfs: rootfs,
		Args: arguments(s, img), Env: environment(s, img),
		User: first(s.User, img.Config.User), GroupAdd: s.GroupAdd,
		WorkingDir: first(s.WorkingDir, img.Config.WorkingDir),
		Hostname:   first(s.Hostname, t.ID), Domainname: s.Domainname,
		TTY: s.TTY, Stdin: s.StdinOpen, StdinOnce: t.OneOff != nil && !s.TTY, Init: s.Init,
		Labels: labels(t), Annotations: s.Annotations,
		Resources: resources(s.Resources), ShmSize: s.ShmSize, OomScore: s.OomScore,
		CapAdd: s.CapAdd, CapDrop: s.CapDrop, Privileged: s.Privileged, ReadOnly: s.ReadOnly,
		DeviceCgroupRules: s.DeviceCgroupRules, Sysctls: s.Sysctls, SecurityOpt: s.SecurityOpt,
		CgroupMode: s.CgroupMode, CgroupParent: s.CgroupParent, Runtime: s.Runtime, Umask: s.Umask, Blkio: blkio(s.Blkio),
		Ulimits: map[string]runtime.Ulimit{},
	}
	if len(c.Args) == 0 {
		return c, release, fmt.Errorf("%w: neither the service nor image %s has one; set command", errNoCommand, t.Image)
	}
	if err := a.namespaces(t, &c); err != nil {
		return c, release, err
	}
	if s.NetworkMode == "host" && s.Hostname == "" && s.UtsMode == "" {
		c.Hostname, c.UtsMode = "", "host"
	}
	if c.CDI, err = a.devices(s); err != nil {
		return c, release, err
	}
	if len(s.Secrets) > 0 {
		c.Ulimits["core"] = runtime.Ulimit{} // it would have them
	}
	for _, u := range s.Ulimits {
		c.Ulimits[u.Name] = runtime.Ulimit{Soft: u.Soft, Hard: u.Hard}
	}
	for _, d := range s.Devices {
		c.Devices = append(c.Devices, runtime.Device(d))
	}
	c.NoLog = s.Logging.Driver == spec.LogNone
	if c.LogMaxSize, c.LogMaxFiles, err = logCaps(s.Logging); err != nil {
		return c, release, err
	}
	if release, err = a.mounts(ctx, t, rootfs, &c); err != nil {
		return c, release, err
	}
	if err := a.deliver(t, &c); err != nil {
		return c, release, err
	}
	return c, release, a.hostFiles(t, &c)
}

var errNoCommand = errors.New("no command")

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// arguments are entrypoint and command. A service's entrypoint drops the
// image's command, as in Docker.
func arguments(s *spec.Service, img images.Image) []string {
	entrypoint, command := img.Config.Entrypoint, img.Config.Cmd
	if s.Entrypoint != nil {
		entrypoint, command = *s.Entrypoint, nil
	}
	if s.Command != nil {
		command = *s.Command
	}
	return slices.Concat(entrypoint, command)
}

func environment(s *spec.Service, img images.Image) []string {
	env := slices.Clone(img.Config.Env)
	for _, k := range slices.Sorted(maps.Keys(s.Environment)) {
		env = append(env, k+"="+s.Environment[k])
	}
	return env
}

func resources(r spec.Resources) runtime.Resources {
	return runtime.Resources{
		NanoCPUs: r.NanoCPUs, Memory: r.Memory, MemoryReservation: r.MemoryReservation, MemorySwap: r.MemorySwap,
		MemorySwappiness: r.MemorySwappiness, Pids: r.Pids, CPUShares: r.CPUShares, CPUQuota: r.CPUQuota,
		CPUPeriod: r.CPUPeriod, Cpuset: r.Cpuset, OomKillDisable: r.OomKillDisable,
		CPURTPeriod: r.CPURTPeriod, CPURTRuntime: r.CPURTRuntime,
	}
}

func logCaps(l spec.Logging) (size int64, files int, err error) {
	option := func(name string) string { return first(l.Options["cache-"+name], l.Options[name]) }
	if v := option("max-size"); v != "" && v != "-1" {
		if size, err = units.RAMInBytes(v); err != nil {
			return 0, 0, fmt.Errorf("logging option max-size %q: %w", v, err)
		}
	}
	if v := option("max-file"); v != "" {
		if files, err = strconv.Atoi(v); err != nil {
			return 0, 0, fmt.Errorf("logging option max-file %q is not a number", v)
		}
	}
	return size, files, nil
}

// deliver mounts the configs and secrets of t, with their owners and modes,
// from a tmpfs of its own.
func (a *Agent) deliver(t *store.Task, c *runtime.Container) error {
	r, err := a.revisionOf(t)
	if err != nil {
		return err
	}
	deliveries, err := deliveries(&t.Spec, r)
	if err != nil || len(deliveries) == 0 {
		return err
	}
	files := make([]secrets.File, len(deliveries))
	for i := range deliveries {
		d := &deliveries[i]
		if err := a.expand(d, t, &t.Spec, &r.Stack, a.secrets.Get); err != nil {
			return fmt.Errorf("deliver the secrets of %s: %s: %w", t.Name(), d.subject(), err)
		}
		files[i] = d.file
	}
	env, err := a.variables(c, &t.Spec, deliveries)
	if err != nil {
		return fmt.Errorf("deliver the secrets of %s: %w", t.Name(), a.nameDamaged(err))
	}
	if env != nil {
		files = append(files, *env)
	}
	dir, err := a.secrets.Deliver(t.ID, files)
	if err != nil {
		return fmt.Errorf("deliver the secrets of %s: %w", t.Name(), a.nameDamaged(err))
	}
	if env != nil {
		c.EnvFile = filepath.Join(dir, env.Name)
	}
	for _, d := range deliveries {
		c.Mounts = append(c.Mounts, runtime.Mount{
			Type: "bind", Source: filepath.Join(dir, d.file.Name), Target: d.mount.Target, ReadOnly: true,
			Options: append([]string{"bind", "rprivate", "nosuid", "nodev"}, d.execution()),
		})
	}
	return nil
}

func number(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number below 2^31", s)
	}
	return int(n), nil
}

// hostFiles writes /etc/hosts, /etc/hostname and /etc/resolv.conf of t.
func (a *Agent) hostFiles(t *store.Task, c *runtime.Container) error {
	dir := a.taskRun(t.ID)
	write := func(name, content string) (string, error) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return "", fmt.Errorf("write the task's %s: %w", name, err)
		}
		return path, nil
	}
	var err error
	if t.Parent != "" {
		// The names of the task whose network it is in; a restart of the agent
		// or of the parent's files changes nothing in here.
		return a.parentFiles(t, c)
	}
	if c.HostsFile, err = write("hosts", a.hosts(t, c.Hostname)); err != nil {
		return err
	}
	if c.Hostname != "" {
		if c.HostnameFile, err = write("hostname", c.Hostname+"\n"); err != nil {
			return err
		}
	}
	c.ResolvFile, err = write("resolv.conf", a.resolvConf(t))
	return err
}

func (a *Agent) parentFiles(t *store.Task, c *runtime.Container) error {
	dir := a.taskRun(t.Parent)
	for name, path := range map[string]*string{"hosts": &c.HostsFile, "resolv.conf": &c.ResolvFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			*path = filepath.Join(dir, name)
		}
	}
	return nil
}

// hosts is the content of /etc/hosts.
func (a *Agent) hosts(t *store.Task, hostname string) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if t.Spec.NetworkMode == "host" {
		if data, err := os.ReadFile("/etc/hosts"); err == nil {
			b.Reset()
			b.Write(data)
		}
	}
	name := hostname
	if t.Spec.Domainname != "" {
		name = hostname + "." + t.Spec.Domainname + " " + hostname
	}
	gateway := ""
	for _, e := range t.Endpoints {
		if e.IPv4.IsValid() {
			fmt.Fprintf(&b, "%s\t%s\n", e.IPv4, name)
		}
		if e.IPv6.IsValid() {
			fmt.Fprintf(&b, "%s\t%s\n", e.IPv6, name)
		}
		if e.Default || gateway == "" {
			a.w.mu.RLock()
			if n := a.w.networks[e.Network]; n != nil {
				gateway = n.Gateway4.String()
			}
			a.w.mu.RUnlock()
		}
	}
	if gateway == "" {
		gateway = "127.0.0.1" // network_mode host or none
	}
	for _, h := range t.Spec.ExtraHosts {
		name, addr, ok := strings.Cut(h, "=")
		if !ok {
			continue
		}
		if addr == "host-gateway" {
			addr = gateway
		}
		fmt.Fprintf(&b, "%s\t%s\n", strings.Trim(addr, "[]"), name)
	}
	return b.String()
}

// maxServers is how many name servers the C library asks (MAXNS, resolver(3)).
// Each of the gateways knows all names.
const maxServers = 3

// hostSearch are the domains in which the host looks for names.
func hostSearch() []string {
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	return conf.Search
}

// resolvConf is the content of /etc/resolv.conf: the gateways of its networks,
// or what the file or the host says.
func (a *Agent) resolvConf(t *store.Task) string {
	var b strings.Builder
	if t.Spec.NetworkMode == "host" {
		if data, err := os.ReadFile("/etc/resolv.conf"); err == nil && len(t.Spec.DNS) == 0 {
			return string(data)
		}
	}
	// A dot alone means none, as in Docker; a silent file has the host's.
	search := t.Spec.DNSSearch
	if len(search) == 0 {
		search = hostSearch()
	}
	if len(search) > 0 && !slices.Equal(search, []string{"."}) {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	a.w.mu.RLock()
	for _, e := range t.Endpoints[:min(len(t.Endpoints), maxServers)] {
		if n := a.w.networks[e.Network]; n != nil {
			fmt.Fprintf(&b, "nameserver %s\n", n.Gateway4)
		}
	}
	a.w.mu.RUnlock()
	for _, d := range t.Spec.DNS {
		if len(t.Endpoints) == 0 { // else the gateways ask these
			fmt.Fprintf(&b, "nameserver %s\n", d)
		}
	}
	options := slices.Clone(t.Spec.DNSOptions)
	if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		options = append(options, "ndots:0")
	}
	fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	return b.String()
}
