package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/api"
	"berth/images"
	"berth/runtime/volume"
	"berth/spec"
	"berth/store"
)

// Labels of the volumes that stacks make.
const (
	labelStack     = "com.docker.compose.project"
	labelVolume    = "com.docker.compose.volume"
	labelAnonymous = "sh.berth.anonymous"
	// labelAdopted marks a volume that shows a folder of somebody else's: a
	// stack takes it as it is.
	labelAdopted = "sh.berth.adopted"
)

// ensureVolume makes the volume if it is missing. key is its key in the file,
// "" for an anonymous one. further labels are those of the mount.
func (a *Agent) ensureVolume(st *spec.Stack, key, name string, t *store.Task, further map[string]string) (volume.Volume, error) {
	if key != "" && st.Volumes[key].External {
		v, err := a.volumes.Get(name)
		if err != nil {
			return v, fmt.Errorf("external volume %s: %w", name, err)
		}
		return v, nil
	}
	// Ours last: who may delete a volume is not for a file to say.
	labels := map[string]string{}
	maps.Copy(labels, further)
	if key == "" {
		// One that volumes_from brings may be another stack's.
		if v, err := a.volumes.Get(name); err == nil {
			return v, nil
		}
		labels[labelStack], labels[labelAnonymous] = t.Stack, "true"
		return a.volumes.Create(name, labels, nil)
	}
	if v, err := a.volumes.Get(name); err == nil && v.Labels[labelAdopted] != "" {
		return v, nil
	}
	maps.Copy(labels, st.Volumes[key].Labels)
	delete(labels, labelAdopted)
	labels[labelStack], labels[labelVolume] = t.Stack, key
	return a.volumes.Create(name, labels, st.Volumes[key].DriverOpts)
}

// releaseVolumes unmounts what t was the last to use. A failure is logged: the
// next task mounts it again, and the last one tries again.
func (a *Agent) releaseVolumes(t *store.Task) {
	for _, name := range t.Volumes {
		err := a.volumes.Release(name, func() bool { return len(volumeUsers(a.w.view())[name]) > 0 })
		if err != nil {
			a.log.Warn("unmount a volume", "volume", name, "err", err)
		}
	}
}

func (a *Agent) volumeExists(name string) bool {
	_, err := a.volumes.Get(name)
	return err == nil
}

func (a *Agent) mountpoint(name string) string {
	v, err := a.volumes.Get(name)
	if err != nil {
		return ""
	}
	return v.Mountpoint
}

// volumeUsers gives the names of the tasks that use each volume.
func volumeUsers(v view) map[string][]string {
	out := map[string][]string{}
	for _, t := range v.tasks {
		if t.State == store.StateRemoved {
			continue
		}
		for _, name := range t.Anonymous {
			out[name] = append(out[name], t.Name())
		}
		for _, name := range t.Volumes {
			out[name] = append(out[name], t.Name())
		}
	}
	return out
}

func (a *Agent) listVolumes(stack string) ([]api.Volume, error) {
	list, err := a.volumes.List()
	if err != nil {
		return nil, err
	}
	users := volumeUsers(a.w.view())
	out := []api.Volume{}
	for _, v := range list {
		if stack != "" && v.Labels[labelStack] != stack {
			continue
		}
		out = append(out, apiVolume(v, users[v.Name]))
	}
	return out, nil
}

func apiVolume(v volume.Volume, users []string) api.Volume {
	return api.Volume{
		Name: v.Name, Driver: "local", Mountpoint: v.Mountpoint, Stack: v.Labels[labelStack],
		Key: v.Labels[labelVolume], Labels: v.Labels, Options: shownOptions(v.Options), CreatedAt: v.CreatedAt,
		Anonymous: v.Labels[labelAnonymous] != "", UsedBy: users,
	}
}

// shownOptions are options of a volume without what is secret in them.
func shownOptions(options map[string]string) map[string]string {
	out := maps.Clone(options)
	if o, ok := out["o"]; ok {
		list := strings.Split(o, ",")
		for i, opt := range list {
			if key, _, found := strings.Cut(opt, "="); found && slices.Contains([]string{"password", "pass", "password2"}, key) {
				list[i] = key + "=***"
			}
		}
		out["o"] = strings.Join(list, ",")
	}
	return out
}

func (a *Agent) createVolume(req *api.VolumeCreate) (api.Volume, error) {
	if req.Driver != "" && req.Driver != "local" {
		return api.Volume{}, invalid("volume driver %q is not supported; use local", req.Driver)
	}
	labels := maps.Clone(req.Labels)
	for _, own := range []string{labelStack, labelVolume, labelAnonymous, labelAdopted} {
		delete(labels, own) // they say which stack may delete it
	}
	options := req.Options
	if req.Adopt != "" {
		info, err := os.Stat(req.Adopt)
		if err != nil || !info.IsDir() || !filepath.IsAbs(req.Adopt) {
			return api.Volume{}, invalid("volume %s: %s is no folder of this machine", req.Name, req.Adopt)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[labelAdopted] = req.Adopt
		options = map[string]string{"type": "none", "o": "bind", "device": req.Adopt}
	}
	v, err := a.volumes.Create(req.Name, labels, options)
	if err != nil {
		return api.Volume{}, err
	}
	a.events.emit(apiEvent{Type: "volume", Action: "create", Name: v.Name})
	return apiVolume(v, nil), nil
}

func (a *Agent) removeVolume(name string) error {
	if users := volumeUsers(a.w.view())[name]; len(users) > 0 {
		return &api.Error{
			Status: http.StatusConflict, Code: api.CodeInUse,
			Detail: fmt.Sprintf("volume %s is in use by %s", name, users[0]), Hint: "`berth down` its stack first",
		}
	}
	if _, err := a.volumes.Get(name); err != nil {
		return err
	}
	if err := a.volumes.Remove(name); err != nil {
		return err
	}
	a.events.emit(apiEvent{Type: "volume", Action: "destroy", Name: name})
	return nil
}

// pruneVolumes removes anonymous volumes that nobody uses; all also named
// ones that no stack declares.
func (a *Agent) pruneVolumes(all bool) (api.Removed, error) {
	list, err := a.volumes.List()
	if err != nil {
		return api.Removed{}, err
	}
	v := a.w.view()
	used := volumeUsers(v)
	for _, r := range v.revisions {
		for _, d := range r.Stack.Volumes {
			used[d.Name] = append(used[d.Name], r.Stack.Name)
		}
	}
	out := api.Removed{Names: []string{}}
	for _, vol := range list {
		if len(used[vol.Name]) > 0 || vol.Labels[labelAnonymous] == "" && !all {
			continue
		}
		if vol.Labels[labelAnonymous] != "" && v.stacks[vol.Labels[labelStack]] != nil {
			continue // its slot may come back
		}
		if err := a.volumes.Remove(vol.Name); err != nil {
			return out, err
		}
		out.Names = append(out.Names, vol.Name)
	}
	return out, nil
}

// removeStackVolumes removes what a stack made: its named volumes that are not
// external, and its anonymous ones.
func (a *Agent) removeStackVolumes(stack string) error {
	list, err := a.volumes.List()
	if err != nil {
		return err
	}
	v := a.w.view()
	used := volumeUsers(v)
	for name, r := range v.revisions {
		for _, d := range r.Stack.Volumes {
			if name != stack {
				used[d.Name] = append(used[d.Name], name)
			}
		}
	}
	var errs []error
	for _, vol := range list {
		if vol.Labels[labelStack] != stack {
			continue
		}
		if users := used[vol.Name]; len(users) > 0 {
			a.log.Warn("a volume stays: somebody else uses it", "volume", vol.Name, "user", users[0])
			continue
		}
		errs = append(errs, a.volumes.Remove(vol.Name))
	}
	return errors.Join(errs...)
}

// pinned are the digests that no collection may take: those of every wanted
// and kept revision and of every task.
func (a *Agent) pinned() (map[string]bool, error) {
	out := map[string]bool{}
	for _, t := range a.w.view().tasks {
		if t.State != store.StateRemoved {
			out[t.Digest] = true
			pinMounts(out, &t.Spec)
		}
	}
	err := a.db.View(func(tx store.Tx) error {
		return store.Each(tx, store.Revisions, "", func(_ string, r store.Revision) error {
			for _, d := range r.Digests {
				out[d] = true
			}
			for _, svc := range r.Stack.Services {
				pinMounts(out, &svc)
			}
			return nil
		})
	})
	return out, err
}

// pinMounts adds the images that s mounts.
func pinMounts(out map[string]bool, s *spec.Service) {
	for _, m := range s.Mounts {
		if m.Type == spec.MountImage {
			out[m.Digest] = true
		}
	}
}

// removeStackImages removes the images of a stack that nobody else needs.
// local limits it to images without a registry's name of their own. A failure
// is logged: the stack is gone, its images can be pruned later.
func (a *Agent) removeStackImages(r *store.Revision, which string) {
	var refs []string
	for _, s := range r.Stack.Services {
		if which == "local" && s.Build == nil {
			continue
		}
		refs = append(refs, s.Image)
	}
	slices.Sort(refs)
	for _, ref := range slices.Compact(refs) {
		_, err := a.collect(func(pinned map[string]bool) (images.Removed, error) { return a.images.Remove(ref, false, pinned) })
		if err != nil && !errors.Is(err, images.ErrInUse) && !errors.Is(err, images.ErrNotFound) {
			a.log.Error("remove an image", "image", ref, "err", err)
		}
	}
}
