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
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"berth/crash"
	"berth/images"
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
		rm, free, err := a.mount(ctx, t, &r.Stack, m, rootfs)
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

// mount makes one mount of t ready. release may be nil.
func (a *Agent) mount(ctx context.Context, t *store.Task, st *spec.Stack, m spec.Mount, rootfs string) (rm runtime.Mount, release func(), err error) {
	switch m.Type {
	case spec.MountVolume:
		return a.volumeMount(ctx, t, st, m, rootfs)
	case spec.MountBind:
		return a.bindMount(t, m)
	case spec.MountTmpfs:
		rm = tmpfsMount(m)
	case spec.MountImage:
		return a.imageMount(ctx, t, m)
	default:
		err = fmt.Errorf("mount type %q at %s is not supported", m.Type, m.Target)
	}
	return rm, nil, err
}

// imageMount mounts an image, or a path in it, read-only. The container has a
// mount of its own of it: ours is only there until release.
func (a *Agent) imageMount(ctx context.Context, t *store.Task, m spec.Mount) (rm runtime.Mount, release func(), err error) {
	place := mountPlace(t, m)
	source := filepath.Join(a.subpaths(), place+"-image")
	release = func() { a.unpinLogged(source) }
	if err := a.images.Mount(ctx, m.Digest, images.Mount{Target: source}); err != nil {
		return rm, release, fmt.Errorf("mount image %s at %s: %w", m.Source, m.Target, err)
	}
	rm = runtime.Mount{Type: "bind", Source: source, Target: m.Target, ReadOnly: true, Options: []string{"rbind", "rprivate"}}
	if m.Subpath == "" {
		return rm, release, nil
	}
	path, free, err := a.pin(place, source, m.Subpath)
	if err != nil {
		return rm, release, fmt.Errorf("image %s: %w", m.Source, err)
	}
	rm.Source = path
	return rm, func() { free(); a.unpinLogged(source) }, nil
}

// mountPlace names a place of our own for one mount of t.
func mountPlace(t *store.Task, m spec.Mount) string {
	at := sha256.Sum256([]byte(m.Target))
	return fmt.Sprintf("%s-%x", t.ID, at[:8])
}

// volumeMount makes the volume if it is not there, fills it from the image,
// and mounts it.
func (a *Agent) volumeMount(ctx context.Context, t *store.Task, st *spec.Stack, m spec.Mount, rootfs string) (rm runtime.Mount, release func(), err error) {
	name := t.Anonymous[m.Target]
	key := ""
	if m.Source != "" {
		name, key = st.Volumes[m.Source].Name, m.Source
	}
	v, err := a.ensureVolume(st, key, name, t, m.Labels)
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
		if source, release, err = a.pin(mountPlace(t, m), source, m.Subpath); err != nil {
			return rm, nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	rm = runtime.Mount{
		Type: "bind", Source: source, Target: m.Target, ReadOnly: m.ReadOnly, Options: []string{"rbind", "rprivate"},
	}
	// The runtime's own mount of it must not be more open.
	for o := range strings.SplitSeq(v.Options["o"], ",") {
		switch o {
		case "ro":
			rm.ReadOnly = true
		case "nosuid", "nodev", "noexec":
			rm.Options = append(rm.Options, o)
		}
	}
	return rm, release, nil
}

// seed fills an empty volume from the image, one task at a time: replicas that
// start together would copy over each other.
func (a *Agent) seed(ctx context.Context, name, dir, rootfs, path string) error {
	lock, _ := a.seeding.LoadOrStore(name, &sync.Mutex{})
	lock.(*sync.Mutex).Lock()
	defer lock.(*sync.Mutex).Unlock()
	return volume.Seed(ctx, dir, rootfs, path)
}

// bindMount mounts a path of the host. release may be nil.
func (a *Agent) bindMount(t *store.Task, m spec.Mount) (rm runtime.Mount, release func(), err error) {
	source, err := bindSource(m)
	if err != nil {
		return rm, nil, fmt.Errorf("bind source: %w", err)
	}
	if m.Recursive == "disabled" {
		// crun 1.8 takes what is mounted below along, whatever it is told.
		if source, release, err = a.mountAside(mountPlace(t, m), source, unix.MS_BIND); err != nil {
			return rm, nil, fmt.Errorf("bind source: %w", err)
		}
	}
	return runtime.Mount{
		Type: "bind", Source: source, Target: m.Target, ReadOnly: m.ReadOnly,
		Options: append(bindOptions(m, source), cmp.Or(m.Propagation, "rprivate")),
	}, release, nil
}

// bindSource makes the source of a bind, if the file wants that, and follows
// its links.
func bindSource(m spec.Mount) (string, error) {
	if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
		if !m.CreateHostPath {
			return "", fmt.Errorf("%s does not exist; create it, or set create_host_path", m.Source)
		}
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", err
	}
	source, err := filepath.EvalSymlinks(m.Source)
	if err == nil && m.SELinux != "" {
		err = volume.Relabel(source)
	}
	return source, err
}

// bindOptions say what a bind takes along of the mounts below its source, and
// whether those are read-only with it: all and yes, if the file is silent and
// the kernel can (Linux 5.12). bind.recursive readonly insists on it. Below a
// file nothing is mounted, and crun 1.8 takes rro for folders only.
func bindOptions(m spec.Mount, source string) []string {
	info, err := os.Stat(source)
	if folder := err == nil && info.IsDir(); m.ReadOnly && folder && (m.Recursive == "readonly" || m.Recursive == "" && recursiveReadOnly()) {
		return []string{"rbind", "rro"}
	}
	return []string{"rbind"}
}

// recursiveReadOnly says whether the kernel has mount_setattr(2).
var recursiveReadOnly = sync.OnceValue(func() bool {
	err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{})
	return !errors.Is(err, unix.ENOSYS)
})

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
