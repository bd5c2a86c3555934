package runtime

import (
	"berth/runtime/initproc"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// initPath is in the container's own /dev, so that the image is not touched.
const initPath = "/dev/" + initproc.Name

// initProcess puts the small init in front of the command.
func (m *specMaker) initProcess(s *specs.Spec, c Container) error {
	if !c.Init {
		return nil
	}
	if m.init == "" {
		return invalid("init: true needs the agent's init program, and none is configured")
	}
	if !private(c.PidMode) {
		m.warn(c.ID, "init: true has no effect: the pid namespace is not the container's own")
		return nil
	}
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: initPath, Type: "bind", Source: m.init,
		Options: []string{"bind", "ro", "nosuid", "nodev", "rprivate"},
	})
	s.Process.Args = append([]string{initPath}, c.Args...)
	return nil
}
