package testbed

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// process is one line of the process table.
type process struct {
	pid, ppid int
	state     byte
	comm      string
}

func (p process) String() string { return fmt.Sprintf("process %d (%s)", p.pid, p.comm) }

// descendants lists the living processes below pid, without pid itself.
// Zombies have ended; they don't count.
func descendants(pid int) []process {
	all := processes()
	below := map[int]bool{pid: true}
	// A parent's pid may be larger than its child's: repeat until stable.
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if below[p.ppid] && !below[p.pid] {
				below[p.pid], grown = true, true
			}
		}
	}
	var out []process
	for _, p := range all {
		if below[p.pid] && p.pid != pid && p.state != 'Z' && p.state != 'X' {
			out = append(out, p)
		}
	}
	return out
}

func processes() []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		if p, ok := parseStat(string(stat)); ok {
			p.pid = pid
			out = append(out, p)
		}
	}
	return out
}

// parseStat reads the start of /proc/PID/stat (proc(5)). The name may hold
// spaces and parentheses: the last one counts.
func parseStat(stat string) (process, bool) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	rest := strings.Fields(stat[end+1:])
	if len(rest) < 2 {
		return process{}, false
	}
	ppid, err := strconv.Atoi(rest[1])
	if err != nil {
		return process{}, false
	}
	return process{ppid: ppid, state: rest[0][0], comm: stat[open+1 : end]}, true
}
