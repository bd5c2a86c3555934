package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where every distribution mounts cgroups.
const cgroupRoot = "/sys/fs/cgroup"

// cgroupFS reads and kills cgroups of either version. crun and runc create
// them and set the limits; the readers are small enough to be ours, and cost
// no process.
type cgroupFS struct {
	v2     bool
	hybrid bool // v1 with a v2 hierarchy beside it, which crun may refuse
	// mounts has the folder of each v1 controller.
	mounts map[string]string
}

func findCgroups() cgroupFS {
	var st unix.Statfs_t
	if unix.Statfs(cgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return cgroupFS{v2: true}
	}
	c := cgroupFS{mounts: map[string]string{}}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return c
	}
	for _, e := range entries {
		dir := filepath.Join(cgroupRoot, e.Name())
		if unix.Statfs(dir, &st) != nil {
			continue
		}
		if st.Type == unix.CGROUP2_SUPER_MAGIC {
			c.hybrid = true
			continue
		}
		if st.Type != unix.CGROUP_SUPER_MAGIC {
			continue
		}
		for _, name := range strings.Split(e.Name(), ",") {
			c.mounts[name] = dir
		}
	}
	return c
}

// removeEmpty removes the cgroup, in every hierarchy, where nothing is below or
// in it; elsewhere it stays.
func (c cgroupFS) removeEmpty(cgroup string) {
	for _, dir := range c.dirs(cgroup) {
		_ = unix.Rmdir(dir) // refused while in use, as it should be
	}
}

// mode is a word for people.
func (c cgroupFS) mode() string {
	switch {
	case c.v2:
		return "v2"
	case c.hybrid:
		return "v1, hybrid"
	case len(c.mounts) > 0:
		return "v1"
	default:
		return "none"
	}
}

// dir is a cgroup's folder; for v1 in the hierarchy of a controller. "" if
// there is no such controller.
func (c cgroupFS) dir(controller, path string) string {
	if c.v2 {
		return filepath.Join(cgroupRoot, path)
	}
	m := c.mounts[controller]
	if m == "" {
		return ""
	}
	return filepath.Join(m, path)
}

// dirs are all folders of a cgroup. Beside v1 there may be one of v2, which
// runc uses, and which crun makes as a plain folder where it is not mounted.
func (c cgroupFS) dirs(path string) []string {
	if c.v2 {
		return []string{filepath.Join(cgroupRoot, path)}
	}
	seen := map[string]bool{}
	out := []string{filepath.Join(cgroupRoot, "unified", path)}
	for _, m := range c.mounts {
		if !seen[m] {
			seen[m] = true
			out = append(out, filepath.Join(m, path))
		}
	}
	return out
}

// pids lists the processes of a cgroup and of those below it.
func (c cgroupFS) pids(path string) []int {
	dir := c.dir("pids", path)
	if dir == "" {
		dir = c.dir("memory", path)
	}
	if dir == "" {
		return nil
	}
	var out []int
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a cgroup that vanished has no processes
		}
		b, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				out = append(out, pid)
			}
		}
		return nil
	})
	return out
}

// kill sends SIGKILL to all of a cgroup, thawed first: on v1 a frozen process
// does not even die of it. Again and again, since a process may fork between
// the list and the signal; v2 has cgroup.kill for that.
func (c cgroupFS) kill(path string) {
	c.thaw(path)
	if c.v2 {
		if err := os.WriteFile(filepath.Join(cgroupRoot, path, "cgroup.kill"), []byte("1"), 0); err == nil {
			return
		}
	}
	for range 20 {
		pids := c.pids(path)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (c cgroupFS) thaw(path string) {
	if c.v2 {
		_ = os.WriteFile(filepath.Join(cgroupRoot, path, "cgroup.freeze"), []byte("0"), 0)
		return
	}
	if d := c.dir("freezer", path); d != "" {
		_ = os.WriteFile(filepath.Join(d, "freezer.state"), []byte("THAWED"), 0)
	}
}

func (c cgroupFS) frozen(path string) bool {
	if c.v2 {
		b, err := os.ReadFile(filepath.Join(cgroupRoot, path, "cgroup.freeze"))
		return err == nil && strings.TrimSpace(string(b)) == "1"
	}
	d := c.dir("freezer", path)
	if d == "" {
		return false
	}
	b, err := os.ReadFile(filepath.Join(d, "freezer.state"))
	return err == nil && strings.HasPrefix(string(b), "FR")
}

// remove deletes a cgroup's folders. A process that has just died keeps its
// cgroup busy for a moment.
func (c cgroupFS) remove(path string) error {
	var last error
	for _, dir := range c.dirs(path) {
		if err := removeCgroup(dir); err != nil {
			last = err
		}
	}
	return last
}

func removeCgroup(dir string) error {
	var st unix.Statfs_t
	switch err := unix.Statfs(dir, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err == nil && st.Type != unix.CGROUP_SUPER_MAGIC && st.Type != unix.CGROUP2_SUPER_MAGIC:
		return os.RemoveAll(dir) // crun's: no cgroup, the files in it are plain ones
	}
	var last error
	for try := range 50 {
		var below []string
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				below = append(below, p)
			}
			return nil
		})
		last = nil
		for i := len(below) - 1; i >= 0; i-- {
			if err := unix.Rmdir(below[i]); err != nil && !errors.Is(err, unix.ENOENT) {
				last = fmt.Errorf("remove cgroup %s: %w", below[i], err)
			}
		}
		if last == nil {
			return nil
		}
		<-time.After(time.Duration(min(try+1, 10)) * time.Millisecond)
	}
	return last
}

// conmonCgroup is where conmons live. In the agent's own cgroup, the end of
// its systemd unit would be theirs.
type conmonCgroup struct {
	dir *os.File // v2: opened for clone3; nil: conmons stay with the agent
	v1  string   // v1: cgroup.procs of the hierarchy that systemd looks at
}

func findConmonCgroup(c cgroupFS, parent string) conmonCgroup {
	if atCgroupRoot() {
		return conmonCgroup{} // no unit to be stopped with
	}
	base := filepath.Join(cgroupRoot, "systemd")
	if c.v2 {
		base = cgroupRoot
	}
	if _, err := os.Stat(filepath.Join(base, "cgroup.procs")); err != nil {
		return conmonCgroup{}
	}
	dir := filepath.Join(base, parent+"-conmon")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return conmonCgroup{}
	}
	if !c.v2 {
		return conmonCgroup{v1: filepath.Join(dir, "cgroup.procs")}
	}
	f, err := os.Open(dir)
	if err != nil {
		return conmonCgroup{}
	}
	return conmonCgroup{dir: f}
}

// atCgroupRoot says whether this process is in the root of the hierarchy that
// systemd uses.
func atCgroupRoot() bool {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		_, rest, _ := strings.Cut(line, ":")
		name, path, _ := strings.Cut(rest, ":")
		if (name == "" || name == "name=systemd") && path != "/" {
			return false
		}
	}
	return true
}
