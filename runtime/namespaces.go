package runtime

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// private says that a mode asks for a namespace of the container's own.
func private(mode string) bool { return mode == "" || mode == "private" }

// nsFiles are the names in /proc/PID/ns.
var nsFiles = map[specs.LinuxNamespaceType]string{
	specs.PIDNamespace: "pid", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.CgroupNamespace: "cgroup",
}

// join replaces "container:ID" modes by the paths of open namespaces. They are
// held open until release: a path with a pid could lead to another process by
// the time that the OCI runtime opens it.
func (r *Runtime) join(c *Container) (release func(), err error) {
	var held []*os.File
	release = func() {
		for _, f := range held {
			f.Close()
		}
	}
	for kind, mode := range map[specs.LinuxNamespaceType]*string{
		specs.PIDNamespace: &c.PidMode, specs.IPCNamespace: &c.IpcMode,
		specs.UTSNamespace: &c.UtsMode, specs.CgroupNamespace: &c.CgroupMode,
	} {
		id, ok := strings.CutPrefix(*mode, "container:")
		if !ok {
			continue
		}
		f, err := r.openNamespace(id, kind)
		if err != nil {
			release()
			return func() {}, fmt.Errorf("join the %s namespace of container %s: %w", nsFiles[kind], id, err)
		}
		held = append(held, f)
		*mode = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	}
	return release, nil
}

func (r *Runtime) openNamespace(id string, kind specs.LinuxNamespaceType) (*os.File, error) {
	t, err := r.running(id)
	if err != nil {
		return nil, err
	}
	init, _ := t.handles()
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", init.Pid, nsFiles[kind]))
	if err != nil {
		return nil, errors.Join(ErrNotRunning, err)
	}
	if !init.alive() { // the pid may have been another's
		f.Close()
		return nil, ErrNotRunning
	}
	return f, nil
}
