package runtime

import (
	"path/filepath"
	"slices"
	"strings"
)

// runtimeNamed is the OCI runtime of a name: one of Config.Runtimes, or crun
// or runc; "" is the one that Open chose.
func (r *Runtime) runtimeNamed(name string) (ociRuntime, error) {
	if name == "" {
		return r.oci, nil
	}
	if o, ok := r.others.Load(name); ok {
		return o.(ociRuntime), nil //nolint:forcetypeassert // only this function stores
	}
	path, known := r.cfg.Runtimes[name]
	switch {
	case known:
	case name == "io.containerd.runc.v2": // Docker's name of its default
		path = "runc"
	case name == "crun", name == "runc":
		path = name
	default:
		return ociRuntime{}, invalid("there is no runtime %q; the agent knows %s", clip(name), strings.Join(r.runtimes(), ", "))
	}
	found, err := lookHostPath(path)
	if err != nil {
		return ociRuntime{}, invalid("runtime %q: %s is not installed", clip(name), path)
	}
	o := ociRuntime{name: filepath.Base(found), path: found}
	if found == r.oci.path {
		o = r.oci
	} else if known {
		o.name = "named-" + name // a state folder of its own
	}
	r.others.Store(name, o)
	return o, nil
}

// CheckRuntime says whether there is an OCI runtime of this name.
func (r *Runtime) CheckRuntime(name string) error {
	_, err := r.runtimeNamed(name)
	return err
}

func (r *Runtime) runtimes() []string {
	out := []string{"crun", "runc"}
	for name := range r.cfg.Runtimes {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
