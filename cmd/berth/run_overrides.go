package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"berth/api"
	"berth/spec"
)

// runOverrides are what `run` changes of a service.
type runOverrides struct {
	command          []string
	entrypoint       string
	entrypointSet    bool
	env, envFiles    []string
	user, workdir    string
	labels           []string
	volumes, publish []string
	capAdd, capDrop  []string
}

func (o *runOverrides) add(f *pflag.FlagSet) {
	f.StringVar(&o.entrypoint, "entrypoint", "", "run this `PROGRAM` instead of the service's entrypoint and command")
	f.StringArrayVarP(&o.env, "env", "e", nil, "`KEY=VALUE`, or KEY to pass on this one's value")
	f.StringArrayVar(&o.envFiles, "env-from-file", nil, "read variables from this `FILE`")
	f.StringVarP(&o.user, "user", "u", "", "as this `USER`: NAME or UID, with :GROUP")
	f.StringVarP(&o.workdir, "workdir", "w", "", "in this `FOLDER`")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "add a label, `KEY=VALUE`")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "mount `SOURCE:TARGET`, a path or a volume")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "publish a port, `HOST:CONTAINER`")
	f.StringSliceVar(&o.capAdd, "cap-add", nil, "add a `CAPABILITY`")
	f.StringSliceVar(&o.capDrop, "cap-drop", nil, "take a `CAPABILITY` away")
}

// apply changes the service that req runs.
func (o *runOverrides) apply(ctx context.Context, a *app, req *api.RunRequest) error {
	s := &req.Spec
	if o.entrypointSet {
		args, err := spec.SplitCommand(o.entrypoint)
		if err != nil {
			return fmt.Errorf("--entrypoint: %w", err)
		}
		s.Entrypoint, s.Command = &args, nil
	}
	if o.command != nil {
		s.Command = &o.command
	}
	if o.user != "" {
		s.User = o.user
	}
	if o.workdir != "" {
		s.WorkingDir = o.workdir
	}
	s.CapAdd, s.CapDrop = slices.Concat(s.CapAdd, o.capAdd), slices.Concat(s.CapDrop, o.capDrop)
	s.Labels = cloned(s.Labels)
	for _, l := range o.labels {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return fmt.Errorf("--label %q has no key", l)
		}
		s.Labels[key] = value
	}
	for _, text := range o.publish {
		ports, err := spec.ParsePorts(text)
		if err != nil {
			return fmt.Errorf("--publish: %w", err)
		}
		s.Ports = append(slices.Clip(s.Ports), ports...)
	}
	if err := o.environment(s); err != nil {
		return err
	}
	return o.mounts(ctx, a, req)
}

func cloned(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

// environment lays --env over --env-from-file over the service's. A KEY alone
// is what it is here; one that is not set here is not set there either.
func (o *runOverrides) environment(s *spec.Service) error {
	s.Environment = cloned(s.Environment)
	for _, path := range o.envFiles {
		env, err := spec.ReadEnvFile(path, os.LookupEnv)
		if err != nil {
			return fmt.Errorf("--env-from-file: %w", err)
		}
		maps.Copy(s.Environment, env)
	}
	for _, e := range o.env {
		key, value, given := strings.Cut(e, "=")
		if key == "" {
			return fmt.Errorf("--env %q has no name", e)
		}
		if !given {
			if value, given = os.LookupEnv(key); !given {
				delete(s.Environment, key)
				continue
			}
		}
		s.Environment[key] = value
	}
	return nil
}

// mounts puts --volume in the place of what the service has at the same path.
// A volume is the stack's of that key, else the one of that name.
func (o *runOverrides) mounts(ctx context.Context, a *app, req *api.RunRequest) error {
	s := &req.Spec
	s.Mounts = slices.Clone(s.Mounts)
	dir, err := here()
	if err != nil {
		return err
	}
	for _, text := range o.volumes {
		m, err := spec.ParseMount(text, dir)
		if err != nil {
			return fmt.Errorf("--volume: %w", err)
		}
		s.Mounts = slices.DeleteFunc(s.Mounts, func(old spec.Mount) bool { return old.Target == m.Target })
		s.Mounts = append(s.Mounts, m)
		if m.Type == spec.MountVolume && m.Source != "" {
			if err := a.addVolume(ctx, &req.Stack, m.Source); err != nil {
				return err
			}
		}
	}
	return nil
}

// addVolume makes the volume with this key known to st: as the Compose file has
// it, though the service does not use it, or under its own name.
func (a *app) addVolume(ctx context.Context, st *spec.Stack, key string) error {
	if _, known := st.Volumes[key]; known {
		return nil
	}
	o, err := a.options()
	if err != nil {
		return err
	}
	o.AllResources = true
	result, err := a.read(ctx, o)
	if err != nil {
		return err
	}
	v := spec.Volume{Key: key, Name: key}
	if result.Stack != nil {
		if known, ok := result.Stack.Volumes[key]; ok {
			v = known
		}
	}
	volumes := maps.Clone(st.Volumes)
	if volumes == nil {
		volumes = map[string]spec.Volume{}
	}
	volumes[key] = v
	st.Volumes = volumes
	return nil
}
