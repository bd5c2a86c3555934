package spec

import (
	"path/filepath"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// A Result may hold a Stack, only a Project (a partial load), or only a model
// (without interpolation). Its lists are of whatever there is.

// partial says that what is loaded is no whole stack, but only to be printed.
func (o *Options) partial() bool { return o.NoNormalize || o.NoPathResolution || o.NoConsistency }

// atProject is p with the paths of env_file and label_file made absolute: the
// files are read although the paths stay as they were written.
func (l *loading) atProject(p *types.Project) *types.Project {
	abs := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(l.in.projectDir, path)
	}
	for name, s := range p.Services {
		s.EnvFiles, s.LabelFiles = slices.Clone(s.EnvFiles), slices.Clone(s.LabelFiles)
		for i := range s.EnvFiles {
			s.EnvFiles[i].Path = abs(s.EnvFiles[i].Path)
		}
		for i := range s.LabelFiles {
			s.LabelFiles[i] = abs(s.LabelFiles[i])
		}
		p.Services[name] = s
	}
	return p
}

// Services are the names of the services, sorted.
func (r *Result) Services() []string {
	if r.Project != nil {
		return sortedKeys(r.Project.Services)
	}
	return sortedKeys(children(r.model["services"]))
}

// Volumes are the keys of the volumes, sorted.
func (r *Result) Volumes() []string {
	if r.Project != nil {
		return sortedKeys(r.Project.Volumes)
	}
	return sortedKeys(children(r.model["volumes"]))
}

// Networks are the keys of the networks, sorted.
func (r *Result) Networks() []string {
	if r.Project != nil {
		return sortedKeys(r.Project.Networks)
	}
	return sortedKeys(children(r.model["networks"]))
}

// Models are the models that the file names, sorted, each once.
func (r *Result) Models() []string {
	set := map[string]bool{}
	for _, m := range children(r.model["models"]) {
		name, _ := m["model"].(string)
		set[name] = true
	}
	if r.Project != nil {
		for _, m := range r.Project.Models {
			set[m.Model] = true
		}
	}
	delete(set, "")
	return sortedKeys(set)
}

// Images are the references of the services, sorted, each once. A service
// that is only built has the one that its build gets: STACK-SERVICE.
func (r *Result) Images() []string {
	set := map[string]bool{}
	for _, image := range r.imageByService() {
		set[image] = true
	}
	return sortedKeys(set)
}

func (r *Result) imageByService() map[string]string {
	images := map[string]string{}
	if r.Project != nil {
		for name, s := range r.Project.Services {
			if images[name] = s.Image; s.Image == "" {
				images[name] = r.Project.Name + "-" + name
			}
		}
		return images
	}
	stack, _ := r.model["name"].(string)
	for name, s := range children(r.model["services"]) {
		if image, _ := s["image"].(string); image != "" {
			images[name] = image
		} else {
			images[name] = stack + "-" + name
		}
	}
	return images
}

// Pull lists the references of the services that a registry has, and not a
// build: those that PinImages wants digests of.
func (r *Result) Pull() []string {
	set := map[string]bool{}
	if r.Project != nil {
		for _, s := range r.Project.Services {
			if s.Image != "" && s.Build == nil {
				set[s.Image] = true
			}
		}
	}
	return sortedKeys(set)
}

// PinImages replaces references by what pinned has for them. With only,
// nothing but these images is left: a file to be merged with the one that was
// loaded.
func (r *Result) PinImages(pinned map[string]string, only bool) {
	for name, s := range r.Project.Services {
		at, known := pinned[s.Image]
		if known {
			s.Image = at
		}
		if only {
			var bare types.ServiceConfig
			bare.Image = s.Image
			s = bare
		}
		r.Project.Services[name] = s
		if only && !known {
			delete(r.Project.Services, name)
		}
	}
	if only {
		r.Project = &types.Project{Services: r.Project.Services}
	}
}

// children are the mappings below a place of a model; one without a value is
// an empty mapping.
func children(at any) map[string]map[string]any {
	all, _ := at.(map[string]any)
	out := make(map[string]map[string]any, len(all))
	for key, v := range all {
		m, _ := v.(map[string]any)
		out[key] = m
	}
	return out
}

// texts are the texts of a list of a model.
func texts(at any) []string {
	list, _ := at.([]any)
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
