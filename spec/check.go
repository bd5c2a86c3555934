package spec

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// check does what the reference loader calls consistency, but for all places
// at once, and what only fails later there: files that are named but missing,
// ports that collide. Then it narrows the project to what is used.
func (l *loading) check() {
	p := l.project
	if len(p.Name) > maxName {
		l.add(l.placed(Error, "name", fmt.Sprintf("the name %q is longer than %d characters", p.Name, maxName), nameHint))
	}
	l.checkName()
	for _, name := range sortedKeys(p.Services) {
		c := serviceCheck{l, name, "services." + name, p.Services[name]}
		c.all()
	}
	l.checkNetworks()
	l.checkJobs()
	l.entries()
	for _, key := range sortedKeys(p.Configs) {
		l.checkFile("configs."+key, types.FileObjectConfig(p.Configs[key]))
		l.checkSource("configs."+key, types.FileObjectConfig(p.Configs[key]))
	}
	for _, key := range sortedKeys(p.Secrets) {
		l.checkFile("secrets."+key, types.FileObjectConfig(p.Secrets[key]))
		l.checkSource("secrets."+key, types.FileObjectConfig(p.Secrets[key]))
		s := p.Secrets[key]
		if _, asked := s.Extensions[keyProvider]; !asked && !bool(s.External) && s.File == "" && s.Environment == "" {
			l.add(l.placed(Error, "secrets."+key, "secret "+key+" has no content", "give it with file or environment"))
		}
	}
	l.checkModels()
	l.checkCycles()
	if l.diags.Errors() {
		return
	}
	l.narrow()
	if l.diags.Errors() {
		return
	}
	l.checkSharing()
}

// checkName says when the loader has altered the name in the file.
func (l *loading) checkName() {
	place, ok := l.places["name"]
	if !ok || l.in.named {
		return
	}
	for _, u := range l.units {
		if u.src != place.src {
			continue
		}
		if text, ok := u.text(place.value); ok && text != "" && text != l.project.Name {
			l.add(l.placedValue(Warning, "name", fmt.Sprintf("the name %q becomes %q", text, l.project.Name), nameHint))
		}
	}
}

// narrow keeps the services that were asked for, then the resources they use,
// then reads env_file and label_file.
func (l *loading) narrow() {
	p := l.project
	var err error
	if len(l.o.Services) > 0 {
		option := types.IncludeDependencies
		if l.o.NoDeps {
			option = types.IgnoreDependencies
		}
		if p, err = p.WithSelectedServices(l.o.Services, option); err != nil {
			l.explain(err)
			return
		}
	}
	withJobs(p)
	if !l.o.NoEnvResolution {
		if p = l.readVariables(p); p == nil {
			return
		}
	}
	if !l.o.AllResources {
		p = p.WithoutUnnecessaryResources()
	}
	l.withoutJobs(p)
	l.project = p
}

// readVariables reads env_file and label_file into p. It gives nil when one
// can't be read, which is reported.
func (l *loading) readVariables(p *types.Project) *types.Project {
	if l.o.NoPathResolution {
		p = l.atProject(p)
	}
	l.checkFiles(p)
	if l.diags.Errors() {
		return nil
	}
	p, err := p.WithServicesEnvironmentResolved(true)
	if err == nil {
		p, err = p.WithServicesLabelsResolved(false)
	}
	if err != nil {
		l.explainFiles(p, err)
		return nil
	}
	return p
}

// checkFiles looks whether env_file and label_file can be read, so that each
// one that cannot is reported with its place.
func (l *loading) checkFiles(p *types.Project) {
	for _, name := range sortedKeys(p.Services) {
		s := p.Services[name]
		for i, f := range s.EnvFiles {
			if _, err := os.Stat(f.Path); os.IsNotExist(err) && !bool(f.Required) {
				continue
			}
			l.checkVariablesFile(name, "env_file", i, len(s.EnvFiles), f.Path, f.Format)
		}
		for i, f := range s.LabelFiles {
			l.checkVariablesFile(name, "label_file", i, len(s.LabelFiles), f, "")
		}
	}
}

func (l *loading) checkVariablesFile(service, attr string, i, n int, path, format string) {
	at := "services." + service + "." + attr
	if n > 1 || l.wrote(fmt.Sprintf("%s.%d", at, i)) {
		at = fmt.Sprintf("%s.%d", at, i)
	}
	data, err := readRegular(path, maxFile)
	if err != nil {
		hint := "make the file, or correct the path"
		if attr == "env_file" {
			hint += "; required: false leaves a missing one out"
		}
		l.add(l.placedValue(Error, at, attr+" of service "+service+": "+l.relative(err), hint))
		return
	}
	if format != "" {
		return
	}
	env := func(name string) (string, bool) { v, ok := l.in.environ[name]; return v, ok }
	if _, err := parseDotenv(data, env); err != nil && attr == "env_file" {
		l.add(dotenvDiagnostic(newSource(path, l.show(path), data), err))
	}
}

// explainFiles places an error in the content of an env_file or label_file
// that our own look did not find.
func (l *loading) explainFiles(p *types.Project, err error) {
	if p == nil {
		p = l.project
	}
	text := l.shortPaths(err.Error())
	for _, name := range sortedKeys(p.Services) {
		s := p.Services[name]
		for _, attr := range []string{"env_file", "label_file"} {
			if (attr == "env_file" && len(s.EnvFiles) > 0) || (attr == "label_file" && len(s.LabelFiles) > 0) {
				l.add(l.placed(Error, "services."+name+"."+attr, attr+": "+text, "correct the file"))
				return
			}
		}
	}
	l.add(l.placed(Error, "", text, ""))
}

func (l *loading) checkJobs() {
	p := l.project
	for _, name := range sortedKeys(p.AllJobs()) {
		_, on := p.Services[name]
		_, off := p.DisabledServices[name]
		if on || off {
			l.add(l.placed(Error, "jobs."+name, fmt.Sprintf("%q is a service too", name), "give the job another name"))
		}
	}
	for _, name := range sortedKeys(p.Jobs) {
		l.checkJob(name, p.Jobs[name])
		for dep, d := range p.Jobs[name].DependsOn {
			if _, ok := p.Jobs[dep]; ok {
				continue
			}
			if _, ok := p.Services[dep]; ok {
				continue
			}
			if _, off := p.DisabledServices[dep]; off && !d.Required {
				continue
			}
			l.add(l.placed(Error, "jobs."+name+".depends_on."+dep, fmt.Sprintf("job %s depends on %s, which is not there", name, dep),
				"add the service, or remove the dependency"))
		}
	}
}

// checkCycles finds services that wait for each other, each circle once.
func (l *loading) checkCycles() {
	const (
		fresh = iota
		open
		done
	)
	state := map[string]int{}
	var trail []string
	var follow func(name string)
	follow = func(name string) {
		state[name] = open
		trail = append(trail, name)
		for _, dep := range sortedKeys(l.project.Services[name].DependsOn) {
			if _, ok := l.project.Services[dep]; !ok {
				continue
			}
			switch state[dep] {
			case fresh:
				follow(dep)
			case open:
				circle := append(slices.Clone(trail[slices.Index(trail, dep):]), dep)
				l.add(l.placed(Error, l.dependencyPath(name, dep),
					"services wait for each other in a circle: "+strings.Join(circle, " → "), "remove one of these dependencies"))
			}
		}
		trail = trail[:len(trail)-1]
		state[name] = done
	}
	for _, name := range sortedKeys(l.project.Services) {
		if state[name] == fresh {
			follow(name)
		}
	}
}

// dependencyPath finds what makes service wait for dep: depends_on, or what
// implies it.
func (l *loading) dependencyPath(service, dep string) string {
	at := "services." + service
	if path := at + ".depends_on." + dep; l.wrote(path) {
		return path
	}
	s := l.project.Services[service]
	for attr, value := range map[string]string{
		"network_mode": s.NetworkMode, "ipc": s.Ipc, "pid": s.Pid, "uts": s.Uts, "cgroup": s.Cgroup,
	} {
		if value == types.ServicePrefix+dep {
			return at + "." + attr
		}
	}
	for attr, entries := range map[string][]string{"links": s.Links, "volumes_from": s.VolumesFrom} {
		for i, e := range entries {
			if name, _, _ := strings.Cut(e, ":"); name == dep {
				return fmt.Sprintf("%s.%s.%d", at, attr, i)
			}
		}
	}
	return at + ".depends_on"
}

// checkSharing finds what two services cannot both have.
func (l *loading) checkSharing() {
	names := map[string]string{} // container name -> service
	ports := portTable{}
	for _, name := range sortedKeys(l.project.Services) {
		s := l.project.Services[name]
		if c := s.ContainerName; c != "" {
			if other, ok := names[c]; ok {
				l.add(l.placedValue(Warning, "services."+name+".container_name",
					fmt.Sprintf("container_name %s is the name of service %s too (%s)", c, other, l.where("services."+other+".container_name")),
					"give each its own; as a name in DNS it leads to both"))
			} else {
				names[c] = name
			}
		}
		if s.NetworkMode == "host" {
			if at := "services." + name + ".ports"; len(s.Ports) > 0 && l.wrote(at) {
				l.add(l.placed(Warning, at, "ports have no effect in the host's network: the service listens there itself",
					"remove them"))
			}
			continue
		}
		for i, p := range s.Ports {
			if converted, err := port(p); err == nil {
				l.checkPort(ports, converted, portUse{name, fmt.Sprintf("services.%s.ports.%d", name, i)})
			}
		}
	}
}

// where is the place of an attribute, for a message that names two.
func (l *loading) where(path string) string {
	if p, _, ok := l.places.nearest(path); ok {
		return p.position().String()
	}
	return path
}

type portUse struct{ service, path string }

// portTable holds the addresses that a published port is taken on.
type portTable map[string]map[string]portUse // "tcp/80" -> host address -> use

func (l *loading) checkPort(t portTable, p Port, use portUse) {
	// One free port of a range is taken, so a range collides with nothing.
	if p.Published == 0 || p.PublishedEnd != 0 {
		return
	}
	key := fmt.Sprintf("%s/%d", p.Protocol, p.Published)
	if t[key] == nil {
		t[key] = map[string]portUse{}
	}
	for _, host := range sortedKeys(t[key]) {
		other := t[key][host]
		if host != p.HostIP && !anyAddress(host) && !anyAddress(p.HostIP) {
			continue
		}
		if other.service == use.service && host == p.HostIP {
			// The loader drops the same entry, so this one leads elsewhere.
			l.add(l.placedValue(l.atUp(), use.path, fmt.Sprintf("port %s is published twice (%s)", key, l.where(other.path)),
				"publish another port, or on another address"))
			return
		}
		l.add(l.placedValue(l.atUp(), use.path,
			fmt.Sprintf("port %s is published by service %s too (%s)", key, other.service, l.where(other.path)),
			"publish another port, or on another address"))
		return
	}
	t[key][p.HostIP] = use
}

func anyAddress(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
