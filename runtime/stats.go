package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stats reads the counters of a running container. What the kernel does not
// count is zero.
func (r *Runtime) Stats(_ context.Context, id string) (Stats, error) {
	t, err := r.need(id)
	if err != nil {
		return Stats{}, err
	}
	init, _ := t.handles()
	if !init.alive() {
		return Stats{}, fmt.Errorf("stats of container %s: %w", id, ErrNotRunning)
	}
	s := r.cg.stats(r.cgroup(id))
	s.Time = time.Now()
	s.NetRx, s.NetTx = netCounters(init.Pid)
	return s, nil
}

func (c cgroupFS) stats(path string) Stats {
	if c.v2 {
		return c.statsV2(path)
	}
	return c.statsV1(path)
}

func (c cgroupFS) statsV2(path string) Stats {
	dir := c.dir("", path)
	file := func(name string) string { return filepath.Join(dir, name) }
	s := Stats{
		CPUNanos:    keyed(file("cpu.stat"))["usage_usec"] * 1000,
		Memory:      less(single(file("memory.current")), keyed(file("memory.stat"))["inactive_file"]),
		MemoryLimit: single(file("memory.max")),
		Pids:        single(file("pids.current")),
		OOMKills:    keyed(file("memory.events"))["oom_kill"],
	}
	for line := range strings.Lines(readHead(file("io.stat"))) {
		for _, f := range strings.Fields(line) {
			switch k, v, _ := strings.Cut(f, "="); k {
			case "rbytes":
				s.BlockRead += parseCount(v)
			case "wbytes":
				s.BlockWrite += parseCount(v)
			}
		}
	}
	return s
}

func (c cgroupFS) statsV1(path string) Stats {
	file := func(controller, name string) string {
		return filepath.Join(c.dir(controller, path), controller+"."+name)
	}
	s := Stats{
		CPUNanos: single(file("cpuacct", "usage")),
		Memory: less(single(file("memory", "usage_in_bytes")),
			keyed(file("memory", "stat"))["total_inactive_file"]),
		MemoryLimit: noLimit(single(file("memory", "limit_in_bytes"))),
		Pids:        single(file("pids", "current")),
		OOMKills:    keyed(file("memory", "oom_control"))["oom_kill"],
	}
	text := readHead(file("blkio", "throttle.io_service_bytes_recursive"))
	if text == "" {
		text = readHead(file("blkio", "throttle.io_service_bytes"))
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		switch f[1] {
		case "Read":
			s.BlockRead += parseCount(f[2])
		case "Write":
			s.BlockWrite += parseCount(f[2])
		}
	}
	return s
}

// noLimit: cgroup v1 writes the largest multiple of a page for "no limit".
func noLimit(n uint64) uint64 {
	if n >= 1<<62 {
		return 0
	}
	return n
}

func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// single reads a file of one number; "max" and what cannot be read are 0.
func single(path string) uint64 { return parseCount(strings.TrimSpace(readHead(path))) }

// keyed reads a file of lines "name number".
func keyed(path string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(readHead(path)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			out[k] = parseCount(v)
		}
	}
	return out
}

func parseCount(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// netCounters sums the interfaces that a process sees, but for the loopback.
func netCounters(pid int) (rx, tx uint64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 9 || strings.TrimSpace(name) == "lo" {
			continue
		}
		rx += parseCount(f[0])
		tx += parseCount(f[8])
	}
	return rx, tx
}
