package spec

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// service converts one service. What it reads is consistent: check ran.
func (l *loading) service(name string, s types.ServiceConfig) Service {
	at := "services." + name
	out := Service{
		Name: name, Image: s.Image, Platform: s.Platform, PullPolicy: pullPolicy(s),
		ContainerName: s.ContainerName, Hostname: s.Hostname, Domainname: s.DomainName,
		Entrypoint: command(s.Entrypoint), Command: command(s.Command),
		Environment: l.modelVariables(environment(s.Environment), s.Models), User: s.User, GroupAdd: list(s.GroupAdd),
		WorkingDir: s.WorkingDir, TTY: s.Tty, StdinOpen: s.StdinOpen, Init: s.Init != nil && *s.Init,
		Labels: filled(s.Labels), Annotations: filled(s.Annotations),
		Mounts: l.mounts(s), VolumesFrom: list(s.VolumesFrom),
		Expose:     exposedPorts(s.Expose),
		ExtraHosts: extraHosts(s.ExtraHosts), Links: list(s.Links), ExternalLinks: list(s.ExternalLinks),
		DNS: list(s.DNS), DNSSearch: list(s.DNSSearch), DNSOptions: list(s.DNSOpts), MACAddress: s.MacAddress,
		Resources: l.resources(at, s), Ulimits: ulimits(s.Ulimits), ShmSize: int64(s.ShmSize),
		OomScore: int(s.OomScoreAdj), CapAdd: list(s.CapAdd), CapDrop: list(s.CapDrop),
		Privileged: s.Privileged, ReadOnly: s.ReadOnly, Devices: devices(s.Devices),
		DeviceCgroupRules: list(s.DeviceCgroupRules), Sysctls: filled(s.Sysctls), SecurityOpt: l.securityOpt(at, s),
		UsernsMode: s.UserNSMode, PidMode: s.Pid, IpcMode: s.Ipc, UtsMode: s.Uts,
		CgroupMode: s.Cgroup, CgroupParent: strings.Trim(s.CgroupParent, "/"), Runtime: s.Runtime,
		Blkio: blkio(s.BlkioConfig), Umask: s.Umask, CDI: cdiNames(s.Devices), Requests: deviceRequests(s),
		Generic:    genericResources(s),
		StopSignal: s.StopSignal, StopGracePeriod: duration(s.StopGracePeriod),
		PostStart: l.hooks(s.PostStart), PreStop: l.hooks(s.PreStop),
		Restart: restart(s), Healthcheck: healthcheck(s.HealthCheck), Logging: logging(s),
		DependsOn: l.dependencies(s), Replicas: s.GetScale(), Profiles: list(s.Profiles),
		Attach: s.Attach,
	}
	out.StorageSize, _ = storageSize(s.StorageOpt)
	ext := l.extended[name]
	out.Readiness, out.Liveness = ext.readiness, ext.liveness
	out.MinReady, out.Drain, out.ProgressDeadline = ext.minReady, ext.drain, ext.deadline
	l.watch(&out, ext.watched)
	out.Build = build(s.Build)
	for _, c := range s.Configs {
		out.Configs = append(out.Configs, fileMount(types.FileReferenceConfig(c), configDir))
	}
	for _, c := range s.Secrets {
		out.Secrets = append(out.Secrets, fileMount(types.FileReferenceConfig(c), secretDir))
	}
	for _, p := range s.Ports {
		if port, err := port(p); err == nil {
			out.Ports = append(out.Ports, port)
		}
	}
	l.networking(&out, s)
	if d := s.Deploy; d != nil {
		l.deploy(&out, d)
	}
	return out
}

// pullPolicy writes the policy refresh with its age as every_AGE.
func pullPolicy(s types.ServiceConfig) string {
	switch {
	case s.PullPolicy != types.PullPolicyRefresh:
		return s.PullPolicy
	case s.PullRefreshAfter == "":
		return types.PullPolicyAlways
	}
	return "every_" + s.PullRefreshAfter
}

// command keeps the difference between silent (nil) and empty.
func command(c types.ShellCommand) *[]string {
	if c == nil {
		return nil
	}
	args := append([]string{}, c...)
	return &args
}

// environment drops keys without a value: the loader found none to inherit.
func environment(env types.MappingWithEquals) map[string]string {
	var out map[string]string
	for k, v := range env {
		if v == nil {
			continue
		}
		if out == nil {
			out = make(map[string]string, len(env))
		}
		out[k] = *v
	}
	return out
}

// dependencies are depends_on and what the loader derived from links,
// volumes_from and the service: modes. One that is optional and not in the
// stack is left out.
func (l *loading) dependencies(s types.ServiceConfig) []Dependency {
	var out []Dependency
	for name, d := range s.DependsOn {
		if _, ok := l.project.Services[name]; !ok {
			continue
		}
		out = append(out, Dependency{
			Service: name, Condition: cmp.Or(d.Condition, DependsStarted), Required: d.Required, Restart: d.Restart,
		})
	}
	slices.SortFunc(out, func(a, b Dependency) int { return cmp.Compare(a.Service, b.Service) })
	return out
}

// restart takes deploy.restart_policy, else `restart` (Compose Deploy
// Specification, restart_policy).
func restart(s types.ServiceConfig) RestartPolicy {
	if s.Restart != "" && (s.Deploy == nil || s.Deploy.RestartPolicy == nil) {
		cond, max, _ := strings.Cut(s.Restart, ":")
		n, _ := strconv.Atoi(max)
		return RestartPolicy{Condition: cond, MaxAttempts: n}
	}
	if s.Deploy == nil || s.Deploy.RestartPolicy == nil {
		return RestartPolicy{}
	}
	p := s.Deploy.RestartPolicy
	out := RestartPolicy{Condition: RestartAlways}
	switch strings.ToLower(p.Condition) {
	case "none", RestartNo:
		out.Condition = RestartNo
	case "on-failure":
		out.Condition = RestartOnFailure
	}
	if p.MaxAttempts != nil {
		out.MaxAttempts = int(min(*p.MaxAttempts, 1<<31-1))
	}
	if p.Delay != nil {
		out.Delay = time.Duration(*p.Delay)
	}
	if p.Window != nil {
		out.Window = time.Duration(*p.Window)
	}
	return out
}

func healthcheck(h *types.HealthCheckConfig) *Healthcheck {
	if h == nil {
		return nil
	}
	if h.Disable || (len(h.Test) > 0 && h.Test[0] == "NONE") {
		return &Healthcheck{Disable: true}
	}
	value := func(d *types.Duration) time.Duration {
		if d == nil {
			return 0
		}
		return time.Duration(*d)
	}
	out := &Healthcheck{
		Test: list(h.Test), Interval: value(h.Interval), Timeout: value(h.Timeout),
		StartPeriod: value(h.StartPeriod), StartInterval: value(h.StartInterval),
	}
	if h.Retries != nil {
		out.Retries = int(min(*h.Retries, 1<<31-1))
	}
	return out
}

func extraHosts(hosts types.HostsList) []string {
	out := hosts.AsList("=")
	if len(out) == 0 {
		return nil
	}
	slices.Sort(out)
	return out
}

func duration(d *types.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	v := time.Duration(*d)
	return &v
}

// ratio undoes what the loader's float32 does to 0.1.
func ratio(r float32) float64 {
	v, _ := strconv.ParseFloat(strconv.FormatFloat(float64(r), 'g', -1, 32), 64)
	return v
}

// updateConfig keeps silence apart from zero: the positions know which keys
// the user wrote. A failure action that is none of the known ones was reported.
func (l *loading) updateConfig(at string, u *types.UpdateConfig, known ...string) *UpdateConfig {
	if u == nil {
		return nil
	}
	out := &UpdateConfig{MaxFailureRatio: ratio(u.MaxFailureRatio), Order: u.Order}
	if slices.Contains(known, u.FailureAction) {
		out.FailureAction = u.FailureAction
	}
	if u.Parallelism != nil {
		n := int(min(*u.Parallelism, 1<<31-1))
		out.Parallelism = &n
	}
	if l.wrote(at + ".delay") {
		out.Delay = duration(&u.Delay)
	}
	if l.wrote(at + ".monitor") {
		out.Monitor = duration(&u.Monitor)
	}
	return out
}
