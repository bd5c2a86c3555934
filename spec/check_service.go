package spec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// serviceCheck holds one service against the rest of the project.
type serviceCheck struct {
	l    *loading
	name string
	at   string // services.NAME
	s    types.ServiceConfig
}

func (c serviceCheck) fail(path, message, hint string) {
	c.l.add(c.l.placed(Error, path, message, hint))
}

func (c serviceCheck) failValue(path, message, hint string) {
	c.l.add(c.l.placedValue(Error, path, message, hint))
}

func (c serviceCheck) all() {
	c.image()
	c.networks()
	c.healthcheck()
	c.dependencies()
	c.references()
	c.scale()
	c.limits()
	c.mounts()
	c.values()
	c.box()
	c.updates()
	c.forms()
	c.placement()
	c.hooks()
	c.logging()
	c.l.extended[c.name] = c.extensions()
}

func (c serviceCheck) image() {
	s := c.s
	if s.Provider != nil {
		c.fail(c.at+".provider", "Berth starts no providers: service "+c.name+" can't run",
			"start what it gives yourself, and pass its address in environment")
		return
	}
	if s.Build == nil && s.Image == "" {
		c.fail(c.at, "service "+c.name+" has no image", "add image: NAME")
	}
	if s.Build == nil {
		return
	}
	if s.Build.DockerfileInline != "" && s.Build.Dockerfile != "" && c.l.wrote(c.at+".build.dockerfile") {
		c.fail(c.at+".build.dockerfile_inline", "build has both dockerfile and dockerfile_inline", "keep one")
	}
	for _, name := range sortedKeys(s.Build.AdditionalContexts) {
		target, ok := strings.CutPrefix(s.Build.AdditionalContexts[name], types.ServicePrefix)
		if !ok {
			continue
		}
		other, known := c.l.project.AllServices()[target]
		at := c.at + ".build.additional_contexts." + name
		if !known {
			c.failValue(at, "there is no service "+target, c.near(target))
		} else if other.Build == nil {
			c.failValue(at, "service "+target+" is not built", "name a service that has build")
		}
	}
	if len(s.Build.Platforms) > 0 && s.Platform != "" {
		for _, p := range s.Build.Platforms {
			if p == s.Platform {
				return
			}
		}
		c.failValue(c.at+".platform", "platform "+s.Platform+" is not one of build.platforms", "add it there")
	}
}

func (c serviceCheck) healthcheck() {
	h := c.s.HealthCheck
	if h == nil || len(h.Test) == 0 {
		return
	}
	switch h.Test[0] {
	case "CMD", "CMD-SHELL", "NONE":
	default:
		c.failValue(c.at+".healthcheck.test", "healthcheck.test begins with "+strconv.Quote(h.Test[0]),
			"begin the list with CMD or CMD-SHELL, or write it as one text")
	}
}

func (c serviceCheck) dependencies() {
	p := c.l.project
	for _, dep := range sortedKeys(c.s.DependsOn) {
		if _, ok := p.Services[dep]; ok {
			continue
		}
		at := c.l.dependencyPath(c.name, dep)
		fail := c.fail
		if !within(at, c.at+".depends_on") {
			fail = c.failValue
		}
		disabled, off := p.DisabledServices[dep]
		_, job := p.Jobs[dep]
		switch {
		case off && !c.s.DependsOn[dep].Required:
		case job:
			fail(at, "service "+c.name+" depends on "+dep+", which is a job", "depend on a service")
		case off:
			fail(at, fmt.Sprintf("service %s depends on %s, whose profile is not active (%s)",
				c.name, dep, strings.Join(disabled.Profiles, ", ")), "add --profile "+firstOf(disabled.Profiles)+", or write required: false")
		default:
			fail(at, "service "+c.name+" depends on "+dep+", which is not defined", c.near(dep))
		}
	}
}

func firstOf(list []string) string {
	if len(list) == 0 {
		return "NAME"
	}
	return list[0]
}

// near suggests a service with a similar name.
func (c serviceCheck) near(name string) string {
	known := map[string]*element{}
	for other := range c.l.project.Services {
		if other != c.name {
			known[other] = nil
		}
	}
	if s := (&element{keys: known}).suggest(name); s != "" {
		return fmt.Sprintf("did you mean %q?", s)
	}
	return "define it under services, or remove this"
}

func (c serviceCheck) undefined(path, kind, key string, known []string) {
	keys := map[string]*element{}
	for _, k := range known {
		keys[k] = nil
	}
	hint := fmt.Sprintf("define it at the top level: %ss: {%s: }", kind, key)
	if kind == "config" || kind == "secret" {
		hint = fmt.Sprintf("define it at the top level: %ss: {%s: {file: PATH}}", kind, key)
	}
	if near := (&element{keys: keys}).suggest(key); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	c.fail(path, fmt.Sprintf("service %s uses %s %s, which is not defined", c.name, kind, key), hint)
}

func (c serviceCheck) references() {
	p := c.l.project
	for i, v := range c.s.Volumes {
		if v.Type != types.VolumeTypeVolume || v.Source == "" {
			continue
		}
		if _, ok := p.Volumes[v.Source]; !ok {
			c.undefined(c.item("volumes", i, v.Source), "volume", v.Source, sortedKeys(p.Volumes))
		}
	}
	for i, ref := range c.s.Configs {
		if _, ok := p.Configs[ref.Source]; !ok {
			c.undefined(c.item("configs", i, ref.Source), "config", ref.Source, sortedKeys(p.Configs))
		}
	}
	for i, ref := range c.s.Secrets {
		if _, ok := p.Secrets[ref.Source]; !ok {
			c.undefined(c.item("secrets", i, ref.Source), "secret", ref.Source, sortedKeys(p.Secrets))
		}
	}
	if c.s.Build != nil {
		for i, ref := range c.s.Build.Secrets {
			if _, ok := p.Secrets[ref.Source]; !ok {
				c.undefined(c.item("build.secrets", i, ref.Source), "secret", ref.Source, sortedKeys(p.Secrets))
			}
			if isTemplate(types.FileObjectConfig(p.Secrets[ref.Source])) {
				c.failValue(c.item("build.secrets", i, ref.Source), "secret "+ref.Source+" is a template, and a build has no task to fill it in for",
					"give the build a secret of its own")
			}
		}
	}
	for _, key := range sortedKeys(c.s.Models) {
		if _, ok := p.Models[key]; !ok {
			c.undefined(c.at+".models."+key, "model", key, sortedKeys(p.Models))
		}
	}
}

// item finds entry i of a list. With several files the lists are merged, so
// the entry is also looked for by what it says.
func (c serviceCheck) item(attr string, i int, source string) string {
	path := fmt.Sprintf("%s.%s.%d", c.at, attr, i)
	says := func(p place) bool {
		if p.value == nil {
			return false
		}
		n := resolve(p.value)
		if s := get(n, "source"); s != nil {
			n = s
		}
		return n.Value == source || strings.HasPrefix(n.Value, source+":")
	}
	if p, ok := c.l.places[path]; ok && says(p) {
		return path
	}
	for k := 0; ; k++ {
		other := fmt.Sprintf("%s.%s.%d", c.at, attr, k)
		p, ok := c.l.places[other]
		if !ok {
			return path
		}
		if says(p) {
			return other
		}
	}
}

func (c serviceCheck) scale() {
	s := c.s
	if s.Scale != nil && s.Deploy != nil && s.Deploy.Replicas != nil && *s.Scale != *s.Deploy.Replicas {
		c.failValue(c.at+".scale", fmt.Sprintf("scale is %d but deploy.replicas is %d (%s)", *s.Scale, *s.Deploy.Replicas,
			c.l.where(c.at+".deploy.replicas")), "keep one of them")
	}
	attr := ".deploy.replicas"
	if s.Scale != nil {
		attr = ".scale"
	}
	if s.GetScale() < 0 {
		c.failValue(c.at+attr, fmt.Sprintf("%s replicas", c.written(attr[1:])), "write a number from 0 on")
	}
	if s.GetScale() > 1 && s.ContainerName != "" {
		c.fail(c.at+".container_name", fmt.Sprintf("container_name names one container, but there are %d replicas (%s)",
			s.GetScale(), c.l.where(c.at+attr)), "remove container_name: the service's name leads to all of them")
	}
}

func (c serviceCheck) limits() {
	s := c.s
	if s.Deploy == nil {
		return
	}
	differ := func(short, long, a, b string) {
		c.failValue(c.at+"."+short, fmt.Sprintf("%s is %s but %s is %s (%s)", short, a, long, b, c.l.where(c.at+"."+long)),
			"keep one of them")
	}
	if limits := s.Deploy.Resources.Limits; limits != nil {
		if s.CPUS != 0 && limits.NanoCPUs.Value() != s.CPUS {
			differ("cpus", "deploy.resources.limits.cpus", fmt.Sprint(s.CPUS), fmt.Sprint(limits.NanoCPUs.Value()))
		}
		if s.MemLimit != 0 && limits.MemoryBytes != s.MemLimit {
			differ("mem_limit", "deploy.resources.limits.memory", size(int64(s.MemLimit)), size(int64(limits.MemoryBytes)))
		}
		if s.PidsLimit != 0 && limits.Pids != s.PidsLimit {
			differ("pids_limit", "deploy.resources.limits.pids", fmt.Sprint(s.PidsLimit), fmt.Sprint(limits.Pids))
		}
	}
	if r := s.Deploy.Resources.Reservations; r != nil && s.MemReservation != 0 && r.MemoryBytes != s.MemReservation {
		differ("mem_reservation", "deploy.resources.reservations.memory", size(int64(s.MemReservation)), size(int64(r.MemoryBytes)))
	}
}

// mount holds one entry of volumes to what its type can be.
func (c serviceCheck) mount(path string, v types.ServiceVolumeConfig) {
	switch v.Type {
	case types.VolumeTypeNamedPipe:
		c.failValue(path+".type", "a mount of type npipe is for Windows", "use a bind")
	case types.VolumeTypeCluster:
		c.failValue(path+".type", "a mount of type cluster needs a Swarm with a CSI plugin", "use a volume; driver_opts mounts nfs and cifs")
	case types.VolumeTypeImage:
		if v.Source == "" {
			c.fail(path, "a mount of type image names no image", "write source: NAME")
		}
	}
	if v.Image != nil && outside(v.Image.SubPath) {
		c.failAtUp(path+".image.subpath", fmt.Sprintf("subpath %q leads out of the image", v.Image.SubPath), "write a path below it, without a / at its beginning")
	}
	if b := v.Bind; v.Type == types.VolumeTypeBind && b != nil {
		c.bind(path, v)
	}
}

func (c serviceCheck) bind(path string, v types.ServiceVolumeConfig) {
	switch v.Bind.Recursive {
	case "", "enabled", "disabled", "writable":
	case "readonly":
		if !v.ReadOnly {
			c.failValue(path+".bind.recursive", "bind.recursive is readonly, but the mount is not", "add read_only: true")
		}
		if p := v.Bind.Propagation; p != "" && p != "rprivate" {
			c.failValue(path+".bind.propagation", "bind.recursive readonly goes with propagation rprivate only", "remove propagation")
		}
	}
}

func (c serviceCheck) mounts() {
	taken := map[string]string{}
	use := func(target, path string) {
		if target == "" {
			return
		}
		if other, ok := taken[target]; ok {
			c.failValue(path, fmt.Sprintf("something is mounted at %s already (%s)", target, c.l.where(other)), "choose another target, or remove one")
			return
		}
		taken[target] = path
	}
	for i, t := range c.s.Tmpfs {
		target, _, _ := strings.Cut(t, ":")
		path := fmt.Sprintf("%s.tmpfs.%d", c.at, i)
		use(target, path)
		if _, err := tmpfs(t); err != nil {
			c.failValue(path, err.Error(), "")
		}
	}
	for i, v := range c.s.Volumes {
		path := fmt.Sprintf("%s.volumes.%d", c.at, i)
		use(v.Target, path)
		c.mount(c.item("volumes", i, v.Source), v)
	}
	for i, from := range c.s.VolumesFrom {
		if name, _, ok := VolumesFromContainer(from); ok && (name == "" || strings.Contains(name, ":")) {
			c.failValue(fmt.Sprintf("%s.volumes_from.%d", c.at, i), fmt.Sprintf("volumes_from %q names no container", from),
				"write container:NAME, and :ro after it if nothing is to be written")
		}
	}
	if c.s.Develop != nil {
		for i, w := range c.s.Develop.Watch {
			if w.Target == "" && w.Action != types.WatchActionRebuild && w.Action != types.WatchActionRestart {
				c.fail(fmt.Sprintf("%s.develop.watch.%d", c.at, i), "the watch has no target", "add target:")
			}
		}
	}
}
