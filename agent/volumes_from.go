package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"berth/spec"
	"berth/store"
)

// slotOwner is whom the anonymous volumes of a slot belong to: a successor
// finds its data again, until they are renewed. A one-off task is its own.
func slotOwner(s *store.Stack, service string, slot int) string {
	return fmt.Sprintf("%s/%s/%d/%d", s.UID, service, slot, s.Renewals[service])
}

// anonymousVolumes names the volumes that have no name in the file, by target:
// of mounts without a source, and of the image's VOLUMEs that nothing else is
// mounted on.
func (a *Agent) anonymousVolumes(s *store.Stack, service, owner, digest string, mounts []spec.Mount) map[string]string {
	targets := map[string]bool{}
	for _, target := range a.imageVolumes(digest) {
		targets[target] = true
	}
	for _, m := range mounts {
		if m.Type == spec.MountVolume && m.Source == "" && m.From == "" {
			targets[m.Target] = true
			continue
		}
		delete(targets, m.Target)
	}
	if len(targets) == 0 {
		return nil
	}
	out := map[string]string{}
	for target := range targets {
		sum := sha256.Sum256([]byte(owner + "/" + target))
		out[target] = strings.Join([]string{s.Name, service, hex.EncodeToString(sum[:8])}, "_")
	}
	return out
}

// giveVolumes notes the volumes that t uses. owner is whom its anonymous ones
// belong to.
func (a *Agent) giveVolumes(c *change, s *store.Stack, r *store.Revision, t *store.Task, owner string) error {
	for _, m := range t.Spec.Mounts {
		if m.Type == spec.MountVolume && m.Source != "" {
			t.Volumes = append(t.Volumes, r.Stack.Volumes[m.Source].Name)
		}
	}
	t.Anonymous = a.anonymousVolumes(s, t.Service, owner, t.Digest, t.Spec.Mounts)
	return a.volumesFrom(c, s, r, t)
}

// firstSlot is the replica whose anonymous volumes volumes_from brings.
const firstSlot = 1

// volumesFrom gives t what its volumes_from has beyond what spec has put among
// its mounts: the names of the anonymous volumes of services, the VOLUMEs of
// their images, and the volumes and binds of containers of any stack. What t
// mounts itself wins.
func (a *Agent) volumesFrom(c *change, s *store.Stack, r *store.Revision, t *store.Task) error {
	t.Spec.Mounts = slices.Clone(t.Spec.Mounts)
	for i := range t.Spec.Mounts {
		m := &t.Spec.Mounts[i]
		if m.From != "" {
			svc := r.Stack.Services[m.From]
			setNamed(t, m.Target, a.anonymousVolumes(s, m.From, slotOwner(s, m.From, firstSlot), r.Digests[m.From], svc.Mounts)[m.Target])
		}
	}
	for _, from := range t.Spec.VolumesFrom {
		if name, readOnly, ok := spec.VolumesFromContainer(from); ok {
			if err := a.mountsOf(c, t, name, readOnly); err != nil {
				return err
			}
			continue
		}
		name, readOnly, _ := spec.VolumesFromService(from)
		svc, ok := r.Stack.Services[name]
		if !ok {
			return fmt.Errorf("volumes_from %s: no such service", name)
		}
		for target, volume := range a.anonymousVolumes(s, name, slotOwner(s, name, firstSlot), r.Digests[name], svc.Mounts) {
			addNamed(t, target, volume, readOnly)
		}
	}
	return nil
}

// mountsOf adds the volumes and binds of a container that lives.
func (a *Agent) mountsOf(c *change, t *store.Task, name string, readOnly bool) error {
	o := containerNamed(slices.Collect(maps.Values(c.w.tasks)), name)
	if o == nil {
		return fmt.Errorf("volumes_from container:%s: no such container runs", name)
	}
	theirs := c.w.revisions[o.Stack]
	for _, m := range o.Spec.Mounts {
		switch {
		case m.Type == spec.MountBind && !mountsAt(t, m.Target):
			m.ReadOnly = m.ReadOnly || readOnly
			t.Spec.Mounts = append(t.Spec.Mounts, m)
		case m.Type == spec.MountVolume && m.Source != "" && theirs != nil:
			addNamed(t, m.Target, theirs.Stack.Volumes[m.Source].Name, m.ReadOnly || readOnly)
		}
	}
	for target, volume := range o.Anonymous {
		addNamed(t, target, volume, readOnly)
	}
	return nil
}

// willBeNamed says that r has a service whose container gets that name.
func willBeNamed(r *store.Revision, name string) bool {
	for _, svc := range r.Stack.Services {
		rest, ok := strings.CutPrefix(name, r.Stack.Name+"-"+svc.Name+"-")
		if n, err := strconv.Atoi(rest); svc.ContainerName == name || ok && err == nil && n >= firstSlot && n <= svc.Replicas {
			return true
		}
	}
	return false
}

func mountsAt(t *store.Task, target string) bool {
	return slices.ContainsFunc(t.Spec.Mounts, func(m spec.Mount) bool { return m.Target == target })
}

// addNamed mounts a volume by its name at target, if nothing is there.
func addNamed(t *store.Task, target, volume string, readOnly bool) {
	if volume == "" || mountsAt(t, target) {
		return
	}
	t.Spec.Mounts = append(t.Spec.Mounts, spec.Mount{Type: spec.MountVolume, Target: target, ReadOnly: readOnly})
	setNamed(t, target, volume)
}

// setNamed says which volume a mount without a source is of.
func setNamed(t *store.Task, target, volume string) {
	if t.Anonymous == nil {
		t.Anonymous = map[string]string{}
	}
	t.Anonymous[target] = volume
}
