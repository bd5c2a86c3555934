package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"berth/spec"
)

// Labels of Docker Compose.
const (
	labelProject    = "com.docker.compose.project"
	labelService    = "com.docker.compose.service"
	labelOneOff     = "com.docker.compose.oneoff"
	labelFiles      = "com.docker.compose.project.config_files"
	labelWorkingDir = "com.docker.compose.project.working_dir"
	labelEnvFiles   = "com.docker.compose.project.environment_file"
)

// Origin is where a project that runs under Docker Compose came from.
type Origin struct {
	Dir             string
	Files, EnvFiles []string
}

// OriginOf reads it from the labels of the project's containers.
func OriginOf(containers []DockerContainer) Origin {
	var o Origin
	for _, c := range containers {
		if o.Files = commaList(c.Labels[labelFiles]); o.Files != nil {
			o.Dir, o.EnvFiles = c.Labels[labelWorkingDir], commaList(c.Labels[labelEnvFiles])
			break
		}
	}
	return o
}

func commaList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

// Adoption is how a stack goes from Docker to Berth: one service after the
// other, dependencies first.
type Adoption struct {
	Stack    string
	Services []AdoptedService
	Warnings []string
}

// AdoptedService is one step of an Adoption.
type AdoptedService struct {
	Name       string
	Image      string // as Docker's containers have it
	Containers []DockerContainer
	Volumes    []DockerVolume // first used by this service
}

// PlanAdoption decides what is taken over. Services of the file that have no
// container are left out, unless one that has depends on them.
func PlanAdoption(stack *spec.Stack, containers []DockerContainer, volumes []DockerVolume) Adoption {
	out := Adoption{Stack: stack.Name}
	byService := map[string][]DockerContainer{}
	for _, c := range containers {
		name := c.Labels[labelService]
		switch _, inFile := stack.Services[name]; {
		case strings.EqualFold(c.Labels[labelOneOff], "true"):
		case !inFile:
			out.warn("container %s is of service %s, which the file does not have: it stays with Docker", dockerName(c), cmp.Or(name, "?"))
		default:
			byService[name] = append(byService[name], c)
		}
	}
	known := map[string]DockerVolume{}
	for _, v := range volumes {
		known[v.Name] = v
	}
	taken := map[string]bool{}
	for _, name := range adoptionOrder(stack, byService) {
		s := AdoptedService{Name: name, Image: stack.Services[name].Image, Containers: byService[name]}
		if len(s.Containers) > 0 {
			s.Image = s.Containers[0].Image
		}
		for _, m := range stack.Services[name].Mounts {
			v, named := stack.Volumes[m.Source]
			if m.Type != spec.MountVolume || !named || taken[v.Name] {
				continue
			}
			taken[v.Name] = true
			switch d, there := known[v.Name]; {
			case !there:
			case d.Driver != "local":
				out.warn("volume %s has driver %s: Berth has local only, and service %s gets an empty one", v.Name, d.Driver, name)
			case len(d.Options) == 0: // with options, Berth mounts the same device itself
				s.Volumes = append(s.Volumes, d)
			}
		}
		out.anonymous(stack, s)
		out.Services = append(out.Services, s)
	}
	return out
}

func (a *Adoption) warn(format string, args ...any) {
	a.Warnings = append(a.Warnings, fmt.Sprintf(format, args...))
}

// anonymous warns of what no name leads to.
func (a *Adoption) anonymous(stack *spec.Stack, s AdoptedService) {
	for _, c := range s.Containers {
		for _, m := range c.Mounts {
			named := slices.ContainsFunc(slices.Collect(maps.Values(stack.Volumes)), func(v spec.Volume) bool { return v.Name == m.Name })
			if m.Type == "volume" && !named {
				a.warn("%s of service %s is on an anonymous volume, which stays with Docker (%.12s…): the new container begins with an empty one", m.Destination, s.Name, m.Name)
			}
		}
	}
}

func dockerName(c DockerContainer) string {
	if len(c.Names) > 0 {
		return strings.TrimPrefix(c.Names[0], "/")
	}
	return c.ID[:min(12, len(c.ID))]
}

// adoptionOrder lists the services that have containers, and what they need,
// dependencies first.
func adoptionOrder(stack *spec.Stack, have map[string][]DockerContainer) []string {
	var order []string
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		s, there := stack.Services[name]
		if seen[name] || !there {
			return
		}
		seen[name] = true
		for _, d := range s.DependsOn {
			visit(d.Service)
		}
		order = append(order, name)
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		visit(name)
	}
	return order
}

// Write writes what is about to be done.
func (a *Adoption) Write(w io.Writer) error {
	fmt.Fprintf(w, "%s: %d services from Docker, in this order\n", Escape(a.Stack), len(a.Services))
	t := Table{Head: []string{"SERVICE", "IMAGE", "CONTAINERS TO STOP", "VOLUMES, WHICH STAY WHERE THEY ARE"}}
	for _, s := range a.Services {
		var names, volumes []string
		for _, c := range s.Containers {
			if c.State == "running" || c.State == "restarting" || c.State == "paused" {
				names = append(names, dockerName(c))
			}
		}
		for _, v := range s.Volumes {
			volumes = append(volumes, v.Name)
		}
		t.Add(s.Name, s.Image, strings.Join(names, ", "), strings.Join(volumes, ", "))
	}
	for _, text := range a.Warnings {
		defer fmt.Fprintln(w, "warning: "+Escape(text))
	}
	return t.Write(w)
}
