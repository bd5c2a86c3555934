package spec

import (
	"maps"
	"path/filepath"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"
)

// SecretValues are the values of the secrets that stand in files and variables
// here, so that whoever prints something of r can leave them out. It reads the
// files; what can't be read is left out. It also tells what it can of files
// with errors: a Diagnostic may quote a value.
func (r *Result) SecretValues() [][]byte {
	if r.values != nil {
		r.known, r.values = r.values(), nil // which frees what was loaded
	}
	return r.known
}

// secretValues is SecretValues while the loading is at hand.
func (l *loading) secretValues() [][]byte {
	var files, variables []string
	if l.project != nil {
		for _, s := range l.project.Secrets {
			files, variables = append(files, s.File), append(variables, s.Environment)
		}
	}
	for _, src := range slices.Concat(l.main, slices.Collect(maps.Values(l.bySource))) {
		for _, n := range src.secrets() {
			if file := get(n, "file"); file != nil {
				files = append(files, below(filepath.Dir(src.path), file.Value), file.Value)
			}
			if variable := get(n, "environment"); variable != nil {
				variables = append(variables, variable.Value)
			}
		}
	}
	var out [][]byte
	seen := map[string]bool{"": true}
	for _, path := range files {
		if path != "" {
			path = below(l.in.projectDir, path)
		}
		if seen[path] {
			continue
		}
		seen[path] = true
		if content, err := readRegular(path, maxSecret); err == nil {
			out = append(out, content)
		}
	}
	slices.Sort(variables)
	for _, name := range slices.Compact(variables) {
		if value := l.in.environ[name]; name != "" && value != "" {
			out = append(out, []byte(value))
		}
	}
	return out
}

// secrets are the top-level secrets as they are written.
func (s *source) secrets() (out []*yaml.Node) {
	for _, doc := range s.docs {
		if len(doc.Content) == 0 {
			continue
		}
		if all := get(doc.Content[0], "secrets"); all != nil {
			for i := 1; i < len(all.Content); i += 2 {
				out = append(out, all.Content[i])
			}
		}
	}
	return out
}

// Names are what a stack and its parts are called, and where they come from:
// images and paths are among them. Everybody who sees the stack sees them.
func (st *Stack) Names() []string {
	out := slices.Concat([]string{st.Name, st.Dir}, st.Files, st.EnvFiles, sortedKeys(st.Jobs))
	for name, s := range st.Services {
		out = append(out, name, s.Image, s.ContainerName, s.Hostname)
		for _, at := range s.Networks {
			out = append(out, at.Aliases...)
		}
	}
	for key, n := range st.Networks {
		out = append(out, key, n.Name)
	}
	for key, v := range st.Volumes {
		out = append(out, key, v.Name)
	}
	for _, files := range []map[string]File{st.Configs, st.Secrets} {
		for key, f := range files {
			out = append(out, key, f.Name)
		}
	}
	return out
}

// projectNames are the same of what is only loaded to be printed.
func projectNames(p *types.Project) []string {
	out := []string{p.Name, p.WorkingDir}
	out = slices.Concat(out, p.ComposeFiles, p.ServiceNames(), p.NetworkNames(), p.VolumeNames(), p.SecretNames(), p.ConfigNames())
	for _, s := range p.Services {
		out = append(out, s.Image, s.ContainerName, s.Hostname)
	}
	return out
}

// Names are the names in what was loaded; none of files with errors.
func (r *Result) Names() []string {
	switch {
	case r.Stack != nil:
		return r.Stack.Names()
	case r.Project != nil:
		return projectNames(r.Project)
	}
	return nil
}
