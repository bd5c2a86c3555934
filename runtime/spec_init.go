package runtime

import (
	"berth/runtime/initproc"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// These are in the container's own /dev, so that the image is not touched.
const (
	initPath = "/dev/" + initproc.Name
	envPath  = "/dev/" + initproc.EnvName
	envFile  = "/dev/" + initproc.EnvName + ".values"
)

// wrappers put what the container asks for in front of the command.
func (m *specMaker) wrappers(s *specs.Spec, c Container) error {
	if err := m.initProcess(s, c); err != nil || c.EnvFile == "" {
		return err
	}
	if m.init == "" {
		return invalid("a secret as a variable needs the agent's program in the container, and none is configured")
	}
	s.Mounts = append(s.Mounts, program(m.init, envPath), specs.Mount{
		Destination: envFile, Type: "bind", Source: c.EnvFile,
		Options: []string{"bind", "ro", "nosuid", "nodev", "noexec", "rprivate"},
	})
	s.Process.Args = append([]string{envPath, envFile, ""}, s.Process.Args...)
	return nil
}

func program(source, target string) specs.Mount {
	return specs.Mount{
		Destination: target, Type: "bind", Source: source,
		Options: []string{"bind", "ro", "nosuid", "nodev", "rprivate"},
	}
}

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
	s.Mounts = append(s.Mounts, program(m.init, initPath))
	s.Process.Args = append([]string{initPath}, c.Args...)
	return nil
}
