package spec

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Limits of a config's and a secret's content in bytes, those of Docker Swarm.
const (
	maxConfig = 1000 << 10
	maxSecret = 500 << 10
)

// convert makes the Stack from the loaded project. It adds diagnostics for
// what only shows here.
func (l *loading) convert() {
	p := l.project
	st := &Stack{
		Name:     p.Name,
		Dir:      p.WorkingDir,
		Files:    slices.Clone(p.ComposeFiles),
		EnvFiles: slices.Clone(l.in.envFiles),
		Services: make(map[string]Service, len(p.Services)),
		Networks: map[string]Network{},
		Volumes:  map[string]Volume{},
		Configs:  map[string]File{},
		Secrets:  map[string]File{},
	}
	for name, s := range p.Services {
		st.Services[name] = l.service(name, s)
	}
	for key, n := range p.Networks {
		if hostNetwork(n) == "" {
			n.Name = l.resourceName(p.Name, key, n.Name, bool(n.External))
			st.Networks[key] = network(key, n)
		}
	}
	for key, v := range p.Volumes {
		st.Volumes[key] = Volume{
			Key: key, Name: l.resourceName(p.Name, key, v.Name, bool(v.External)), External: bool(v.External), Driver: v.Driver,
			DriverOpts: honoured("volumes.*.driver_opts.*", v.DriverOpts), Labels: filled(v.Labels),
		}
	}
	for key, c := range p.Configs {
		st.Configs[key] = l.file("configs."+key, key, types.FileObjectConfig(c))
	}
	for key, s := range p.Secrets {
		st.Secrets[key] = l.file("secrets."+key, key, types.FileObjectConfig(s))
	}
	for _, s := range st.Services {
		for i := range s.Configs {
			s.Configs[i].inherit(st.Configs[s.Configs[i].Source])
		}
		for i := range s.Secrets {
			s.Secrets[i].inherit(st.Secrets[s.Secrets[i].Source])
		}
	}
	l.convertJobs(st)
	l.preStart(st)
	l.joinByName(st)
	markOneShots(st)
	shareIpc(st)
	st.Positions = l.positions()
	l.placeSteps(st.Positions)
	l.placeMounts(st)
	l.stack = st
}

// markOneShots marks the services whose completion another one waits for.
func markOneShots(st *Stack) {
	for _, s := range st.Services {
		for _, d := range s.DependsOn {
			if target, ok := st.Services[d.Service]; ok && d.Condition == DependsCompleted {
				target.OneShot = true
				st.Services[d.Service] = target
			}
		}
	}
}

// file reads what a config or a secret delivers.
func (l *loading) file(path, key string, c types.FileObjectConfig) File {
	f := File{Key: key, Name: c.Name, External: bool(c.External), Labels: filled(c.Labels)}
	if f.OnChange, _ = onChange(c.Extensions); f.OnChange == OnChangeReplace {
		f.OnChange = ""
	}
	f.Template = isTemplate(c)
	problem := func(attr, message, hint string) {
		l.add(l.placed(l.atUp(), path+attr, message, hint))
	}
	kind, _, _ := strings.Cut(path, ".")
	kind = strings.TrimSuffix(kind, "s")
	limit := int64(maxConfig)
	if kind == "secret" {
		limit = maxSecret
	}
	switch {
	case f.External:
	case c.Extensions[keyProvider] != nil:
		f.Provider = l.provider(path, c)
	case c.File != "":
		content, encrypted, err := readContent(c, limit)
		if err != nil {
			hint := "make the file, or correct the path"
			if info, statErr := os.Stat(c.File); statErr == nil {
				hint = "a " + kind + " is one small file; mount what is larger, or a folder, with a bind in volumes"
				if info.Mode().IsRegular() && info.Size() <= limit {
					hint = "let this user read it"
				}
			}
			problem(".file", kind+" "+key+": "+l.relative(err), hint)
		}
		f.Content, f.Encrypted = content, encrypted
	case c.Environment != "":
		value, ok := l.in.environ[c.Environment]
		if !ok {
			problem(".environment", kind+" "+key+": the variable "+c.Environment+" is not set", "set it, or give the "+kind+" with file")
		}
		f.Content = []byte(value)
	default:
		f.Content = []byte(c.Content)
	}
	if l.o.Inspect {
		f.Content, f.Encrypted = nil, ""
	}
	return f
}

// atUp is the severity of what only fails when the stack is started.
func (l *loading) atUp() Severity {
	if l.o.Inspect {
		return Warning
	}
	return Error
}

// relative is the text of an error about a file, with the file named as the
// user sees it.
func (l *loading) relative(err error) string {
	if fe, ok := err.(*fileError); ok { //nolint:errorlint // only ever returned bare
		return l.show(fe.path) + " " + fe.reason
	}
	return err.Error()
}

// honoured is a copy of m without the options that are reported as ignored.
func honoured(path string, m map[string]string) map[string]string {
	out := filled(m)
	maps.DeleteFunc(out, func(k, _ string) bool { return !slices.Contains(honouredDriverOpts[path], k) })
	return filled(out)
}

// filled is a copy of m, nil when it is empty, so that equal stacks are equal
// values.
func filled[M ~map[string]string](m M) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(map[string]string(m))
}

// resourceName of a network or volume: what a variable left empty is as if it
// were not written.
func (l *loading) resourceName(stack, key, name string, external bool) string {
	if name == "" && !external && !l.o.NoNormalize {
		return stack + "_" + key
	}
	return name
}

// exposedPorts are the container's.
func exposedPorts(list []string) []string {
	var out []string
	for _, e := range list {
		out = append(out, exposed(e))
	}
	return out
}

// exposed is an entry of expose without a port of the host before it, as the
// short form of ports has one. Docker Compose takes both.
func exposed(entry string) string {
	if host, port, ok := strings.Cut(entry, ":"); ok {
		if _, err := strconv.ParseUint(host, 10, 16); err == nil {
			return port
		}
	}
	return entry
}

func list[S ~[]string](s S) []string {
	if len(s) == 0 {
		return nil
	}
	return slices.Clone([]string(s))
}
