package runtime

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupOf is the cgroup of a container that is to be made.
func cgroupOf(parent string, c Container) string {
	return path.Join(parent, path.Clean("/"+c.CgroupParent), c.ID)
}

// cgroup is that of a container that is known, else where most are.
func (r *Runtime) cgroup(id string) string {
	r.mu.Lock()
	t := r.tasks[id]
	r.mu.Unlock()
	if t != nil && t.rec.Cgroup != "" {
		return t.rec.Cgroup
	}
	return path.Join(r.cfg.CgroupParent, id)
}

// checkCgroupParent refuses what leads out of Config.CgroupParent, or into the
// cgroup of a container: processes of the two would mix.
func (r *Runtime) checkCgroupParent(c Container) error {
	if c.CgroupParent == "" {
		return nil
	}
	for _, part := range strings.Split(strings.Trim(c.CgroupParent, "/"), "/") {
		if part == "" || part[0] == '.' || strings.ContainsAny(part, "\x00\n") {
			return invalid("cgroup parent %q", clip(c.CgroupParent))
		}
		if checkID(part) == nil && r.find(part) != nil {
			return invalid("cgroup parent %q: %s is a container", clip(c.CgroupParent), part)
		}
	}
	return nil
}

// pruneCgroup removes the empty parents of a cgroup that has gone, up to
// Config.CgroupParent, unless a container is being created in one of them.
func (r *Runtime) pruneCgroup(cgroup string) {
	if !r.nested.TryLock() {
		return // who creates, or the next to prune, comes by
	}
	defer r.nested.Unlock()
	for p := path.Dir(cgroup); strings.HasPrefix(p, r.cfg.CgroupParent+"/"); p = path.Dir(p) {
		r.cg.removeEmpty(p)
	}
}

// removeEmptyBelow removes the cgroups below parent that nothing is in.
func (c cgroupFS) removeEmptyBelow(parent string) {
	for _, dir := range c.dirs(parent) {
		var below []string
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				below = append(below, p)
			}
			return nil
		})
		for i := len(below) - 1; i > 0; i-- {
			_ = unix.Rmdir(below[i])
		}
	}
}
