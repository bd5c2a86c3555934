package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"berth/crash"
	"berth/runtime"
	"berth/runtime/volume"
	"berth/spec"
	"berth/store"
)

// mounts makes the volumes of t and lists its mounts, parents before what is
// mounted below them. release is called when the container has been created,
// or not: paths below volumes are held open until then.
func (a *Agent) mounts(ctx context.Context, t *store.Task, rootfs string, c *runtime.Container) (release func(), err error) {
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	r, err := a.revisionOf(t)
	if err != nil {
		return release, err
	}
	list := slices.Clone(t.Spec.Mounts)
	for target := range t.Anonymous {
		if !slices.ContainsFunc(list, func(m spec.Mount) bool { return m.Target == target }) {
			list = append(list, spec.Mount{Type: spec.MountVolume, Target: target})
		}
	}
	slices.SortStableFunc(list, func(x, y spec.Mount) int { return cmp.Compare(x.Target, y.Target) })
	for _, m := range list {
		var rm runtime.Mount
		var free func()
		switch m.Type {
		case spec.MountVolume:
			rm, free, err = a.volumeMount(ctx, t, &r.Stack, m, rootfs)
		case spec.MountBind:
			rm, err = bindMount(m)
		case spec.MountTmpfs:
			rm = tmpfsMount(m)
		default:
			err = fmt.Errorf("mount type %q at %s is not supported", m.Type, m.Target)
		}
		if free != nil {
			held = append(held, free)
		}
		if err != nil {
			return release, err
		}
		c.Mounts = append(c.Mounts, rm)
	}
	return release, nil
}

// volumeMount makes the volume if it is not there, fills it from the image,
// and mounts it.
func (a *Agent) volumeMount(ctx context.Context, t *store.Task, st *spec.Stack, m spec.Mount, rootfs string) (rm runtime.Mount, release func(), err error) {
	name := t.Anonymous[m.Target]
	key := ""
	if m.Source != "" {
		name, key = st.Volumes[m.Source].Name, m.Source
	}
	v, err := a.ensureVolume(st, key, name, t)
	if err != nil {
		return rm, nil, err
	}
	crash.At("volume.made")
	source, err := a.volumes.Prepare(ctx, v.Name)
	if err != nil {
		return rm, nil, err
	}
	if !m.NoCopy && m.Subpath == "" {
		if err := a.seed(ctx, v.Name, source, rootfs, m.Target); err != nil {
			return rm, nil, fmt.Errorf("fill volume %s from the image: %w", v.Name, err)
		}
	}
	if m.Subpath != "" {
		at := sha256.Sum256([]byte(m.Target))
		if source, release, err = a.pin(fmt.Sprintf("%s-%x", t.ID, at[:8]), source, m.Subpath); err != nil {
			return rm, nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return runtime.Mount{
		Type: "bind", Source: source, Target: m.Target, ReadOnly: m.ReadOnly, Options: []string{"rbind", "rprivate"},
	}, release, nil
}

// seed fills an empty volume from the image, one task at a time: replicas that
// start together would copy over each other.
func (a *Agent) seed(ctx context.Context, name, dir, rootfs, path string) error {
	lock, _ := a.seeding.LoadOrStore(name, &sync.Mutex{})
	lock.(*sync.Mutex).Lock()
	defer lock.(*sync.Mutex).Unlock()
	return volume.Seed(ctx, dir, rootfs, path)
}

func bindMount(m spec.Mount) (runtime.Mount, error) {
	if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
		if !m.CreateHostPath {
			return runtime.Mount{}, fmt.Errorf("bind source %s does not exist; create it, or set create_host_path", m.Source)
		}
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return runtime.Mount{}, fmt.Errorf("make bind source: %w", err)
		}
	} else if err != nil {
		return runtime.Mount{}, fmt.Errorf("bind source: %w", err)
	}
	source, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return runtime.Mount{}, fmt.Errorf("bind source: %w", err)
	}
	return runtime.Mount{
		Type: "bind", Source: source, Target: m.Target, ReadOnly: m.ReadOnly,
		Options: []string{"rbind", cmp.Or(m.Propagation, "rprivate")},
	}, nil
}

func tmpfsMount(m spec.Mount) runtime.Mount {
	options := []string{"nosuid", "nodev"}
	if m.TmpfsSize > 0 {
		options = append(options, "size="+strconv.FormatInt(m.TmpfsSize, 10))
	}
	mode := m.TmpfsMode
	if mode == 0 {
		mode = 0o1777
	}
	options = append(options, fmt.Sprintf("mode=%o", mode))
	return runtime.Mount{
		Type: "tmpfs", Source: "tmpfs", Target: m.Target, ReadOnly: m.ReadOnly,
		Options: append(options, m.TmpfsOptions...),
	}
}
