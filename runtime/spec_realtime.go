package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// realtime: what a cgroup may use for real-time tasks is taken from its
// parent, where the runtimes put nothing: it is put there before. Only cgroup
// v1 has it, with a kernel that was built for it (CONFIG_RT_GROUP_SCHED).
func (m *specMaker) realtime(id, parent string, r Resources, out *specs.LinuxResources) {
	if r.CPURTRuntime <= 0 {
		return
	}
	if err := m.cg.grantRealtime(m.parent, parent, r.CPURTRuntime, r.CPURTPeriod); err != nil {
		m.warn(id, fmt.Sprintf("cpu_rt_runtime has no effect: %v", err))
		return
	}
	if out.CPU == nil {
		out.CPU = &specs.LinuxCPU{}
	}
	if r.CPURTPeriod > 0 {
		out.CPU.RealtimePeriod = unsigned(r.CPURTPeriod)
	}
	out.CPU.RealtimeRuntime = &r.CPURTRuntime
}

// rtPeriod is the kernel's default of cpu.rt_period_us.
const rtPeriod = 1_000_000

// grantRealtime adds runtime µs in each period to all cgroups from top to
// parent.
func (c cgroupFS) grantRealtime(top, parent string, runtime, period int64) error {
	if c.v2 {
		return errors.New("cgroup v2 has no share of real time")
	}
	if !pathExists(c.dir("cpu", "cpu.rt_runtime_us")) {
		return errors.New("this kernel gives no real time to cgroups (CONFIG_RT_GROUP_SCHED)")
	}
	if period <= 0 {
		period = rtPeriod
	}
	for _, cgroup := range between(top, parent) {
		dir := c.dir("cpu", cgroup)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("give real time: %w", err)
		}
		more := runtime * rtPeriod / period
		have := readNumber(filepath.Join(dir, "cpu.rt_runtime_us"))
		err := os.WriteFile(filepath.Join(dir, "cpu.rt_runtime_us"), []byte(strconv.FormatInt(have+more, 10)), 0)
		if err != nil && have < realtimeBelow(dir)+more {
			return fmt.Errorf("the host has less real time than %d of %d µs to give", runtime, period)
		}
	}
	return nil
}

// between lists top and the cgroups on the way to p, which is below it.
func between(top, p string) []string {
	out := []string{top}
	at := top
	for _, part := range strings.Split(strings.Trim(strings.TrimPrefix(p, top), "/"), "/") {
		if part != "" {
			at = filepath.Join(at, part)
			out = append(out, at)
		}
	}
	return out
}

// realtimeBelow is what the children of a cgroup's folder have been given, in
// µs of rtPeriod.
func realtimeBelow(dir string) int64 {
	found, _ := filepath.Glob(filepath.Join(dir, "*", "cpu.rt_runtime_us"))
	var sum int64
	for _, f := range found {
		period := readNumber(filepath.Join(filepath.Dir(f), "cpu.rt_period_us"))
		sum += max(readNumber(f), 0) * rtPeriod / max(period, 1)
	}
	return sum
}

// readNumber reads a cgroup file of one number; 0 if it can't.
func readNumber(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
