package runtime

import (
	"fmt"
	"os"
	"path/filepath"
)

// free takes away the limits that old has and now has not, where the runtimes
// can't.
func (c cgroupFS) free(path string, old, now Resources, quota bool) error {
	if !quota {
		if err := c.freeCPU(path); err != nil {
			return err
		}
	}
	if old.Cpuset != "" && now.Cpuset == "" {
		if err := c.freeCpuset(path); err != nil {
			return err
		}
	}
	if old.OomKillDisable && !now.OomKillDisable && !c.v2 {
		// crun writes this file only to disable.
		if err := os.WriteFile(filepath.Join(c.dir("memory", path), "memory.oom_control"), []byte("0"), 0); err != nil {
			return fmt.Errorf("let the kernel kill for memory again: %w", err)
		}
	}
	return nil
}

// freeCPU takes the CPU quota away. Not through the runtime: crun 1.8 writes -1
// as an unsigned number on v1, which the kernel refuses.
func (c cgroupFS) freeCPU(path string) error {
	file, value := filepath.Join(c.dir("cpu", path), "cpu.cfs_quota_us"), "-1"
	if c.v2 {
		file, value = filepath.Join(c.dir("", path), "cpu.max"), "max"
	}
	if !pathExists(file) {
		return nil // the controller is not there: nothing is limited
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return fmt.Errorf("lift the CPU limit: %w", err)
	}
	return nil
}

// freeCpuset gives all processors back: those of the parent, which on v1 a
// cgroup must be told.
func (c cgroupFS) freeCpuset(path string) error {
	dir := c.dir("cpuset", path)
	if dir == "" {
		return nil
	}
	value := []byte("\n")
	if !c.v2 {
		var err error
		if value, err = os.ReadFile(filepath.Join(filepath.Dir(dir), "cpuset.cpus")); err != nil {
			return fmt.Errorf("lift the limit to some processors: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "cpuset.cpus"), value, 0); err != nil {
		return fmt.Errorf("lift the limit to some processors: %w", err)
	}
	return nil
}
