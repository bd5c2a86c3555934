package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memory is what Berth itself takes while the services run, in bytes. Conmons
// share their program's pages, so their proportional set size is what each one
// costs.
type memory struct {
	agentRSS, agentPSS uint64
	dataplanePSS       uint64
	dataplane          int // its pid; 0: none
	conmonPSS          uint64
	conmons            int
}

// measureMemory looks at the agent, at its dataplane and at every conmon that
// has run in its command line.
func measureMemory(agent int, run string) (memory, error) {
	var m memory
	var err error
	if m.agentRSS, m.agentPSS, err = rollup(agent); err != nil {
		return m, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return m, fmt.Errorf("list processes: %w", err)
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == agent {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !bytes.Contains(cmdline, []byte(run)) {
			continue // it has ended, or is somebody else's
		}
		args := strings.Split(string(cmdline), "\x00")
		conmon := filepath.Base(args[0]) == "conmon"
		if !conmon && (len(args) < 2 || args[1] != "dataplane") {
			continue
		}
		_, pss, err := rollup(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return m, err
		}
		if conmon {
			m.conmonPSS += pss
			m.conmons++
		} else {
			m.dataplanePSS += pss
			m.dataplane = pid
		}
	}
	return m, nil
}

// rollup reads /proc/PID/smaps_rollup (proc(5)).
func rollup(pid int) (rss, pss uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		kb, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("memory of process %d: %q: %w", pid, line, err)
		}
		switch fields[0] {
		case "Rss:":
			rss = kb << 10
		case "Pss:":
			pss = kb << 10
		}
	}
	return rss, pss, nil
}

func (m memory) report(w io.Writer, n int) {
	const mb, kb = 1e6, 1e3
	fmt.Fprintf(w, "\nmemory with %d containers:\n", n)
	fmt.Fprintf(w, "  agent          %6.1f MB resident, %.1f MB proportional\n", float64(m.agentRSS)/mb, float64(m.agentPSS)/mb)
	fmt.Fprintf(w, "  dataplane      %6.1f MB proportional\n", float64(m.dataplanePSS)/mb)
	if m.conmons > 0 {
		fmt.Fprintf(w, "  each container %6.0f kB proportional, beyond its own processes (conmon, %d of them)\n",
			float64(m.conmonPSS)/float64(m.conmons)/kb, m.conmons)
	}
}
