package agent

import (
	"context"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/danielgtaylor/huma/v2"

	"berth/api"
	"berth/images"
	"berth/store"
)

func (a *Agent) systemRoutes(h huma.API) {
	huma.Register(h, op(http.MethodGet, "/v1/system/df", "Tell what takes how much space"),
		func(ctx context.Context, _ *struct{}) (*reply[api.SystemUsage], error) {
			u, err := a.systemUsage(ctx)
			return &reply[api.SystemUsage]{u}, fail(err)
		})
}

func (a *Agent) systemUsage(ctx context.Context) (api.SystemUsage, error) {
	v := a.w.view()
	out := api.SystemUsage{Images: []api.ImageUsage{}, Volumes: []api.VolumeUsage{}, Stacks: []api.StackUsage{}}
	stacks := map[string]*api.StackUsage{}
	for _, name := range sortedKeys(v.stacks) {
		stacks[name] = &api.StackUsage{Stack: name}
	}
	if err := a.imageUsage(v, &out, stacks); err != nil {
		return out, err
	}
	for _, t := range v.tasks {
		s := stacks[t.Stack]
		if s == nil || t.State == store.StateRemoved {
			continue
		}
		s.Containers++
		s.Written += diskUsage(ctx, filepath.Join(a.taskRoot(t.ID), "upper"))
		logs, _ := filepath.Glob(a.containers.LogPath(t.ID) + "*") // and what was rotated; the pattern is well formed
		for _, log := range logs {
			s.Logs += diskUsage(ctx, log)
		}
	}
	volumes, err := a.listVolumes("")
	if err != nil {
		return out, err
	}
	for _, vol := range volumes {
		u := api.VolumeUsage{Name: vol.Name, Stack: vol.Stack, Anonymous: vol.Anonymous, UsedBy: vol.UsedBy}
		if len(vol.Options) == 0 {
			u.Bytes = diskUsage(ctx, vol.Mountpoint)
		}
		out.Volumes = append(out.Volumes, u)
		if s := stacks[vol.Stack]; s != nil {
			s.Volumes += u.Bytes
		}
	}
	for _, name := range sortedKeys(stacks) {
		out.Stacks = append(out.Stacks, *stacks[name])
	}
	return out, ctx.Err()
}

// imageUsage fills in the images and what each stack has of them.
func (a *Agent) imageUsage(v view, out *api.SystemUsage, stacks map[string]*api.StackUsage) error {
	list, err := a.images.List()
	if err != nil {
		return err
	}
	pinned, err := a.pinned()
	if err != nil {
		return err
	}
	users := map[string][]string{}
	note := func(digest, stack string) {
		if !slices.Contains(users[digest], stack) {
			users[digest] = append(users[digest], stack)
		}
	}
	for _, name := range sortedKeys(v.revisions) {
		for _, digest := range v.revisions[name].Digests {
			note(digest, name)
		}
	}
	for _, t := range v.tasks {
		if t.State != store.StateRemoved {
			note(t.Digest, t.Stack)
		}
	}
	usage, total := a.images.Usage()
	out.ImagesTotal = total
	size := map[string]images.Usage{}
	for _, u := range usage {
		size[u.Digest] = u
	}
	for _, img := range list {
		u := size[img.Digest]
		slices.Sort(users[img.Digest])
		out.Images = append(out.Images, api.ImageUsage{
			Digest: img.Digest, ID: img.ID, References: img.References, Shared: u.Shared, Unique: u.Unique,
			Stacks: users[img.Digest], Needed: pinned[img.Digest],
		})
		for _, name := range users[img.Digest] {
			if s := stacks[name]; s != nil {
				s.Images += u.Shared + u.Unique
				s.Unique += u.Unique
			}
		}
	}
	return nil
}

// diskUsage is how many bytes the blocks below a path take, each file counted
// once. What goes away meanwhile is not counted; nor is another file system.
func diskUsage(ctx context.Context, path string) (bytes int64) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var root *uint64
	// The walk's own errors are files that went away; ctx's is looked at by the caller.
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if dev := uint64(st.Dev); root == nil {
			root = &dev
		} else if *root != dev {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if at := (inode{uint64(st.Dev), st.Ino}); st.Nlink > 1 && !d.IsDir() {
			if seen[at] {
				return nil
			}
			seen[at] = true
		}
		bytes += st.Blocks * 512
		return ctx.Err()
	})
	return bytes
}
