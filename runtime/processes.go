package runtime

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Process is one process of a container, as the host sees it.
type Process struct {
	PID, PPID int
	UID       uint32
	TTY       int // its device number; 0: none
	Started   time.Time
	CPU       time.Duration
	Command   string
}

// userHz is the unit of times in /proc/PID/stat (proc(5)).
const userHz = 100

// Processes lists the processes of a running container, by pid.
func (r *Runtime) Processes(_ context.Context, id string) ([]Process, error) {
	t, err := r.need(id)
	if err != nil {
		return nil, err
	}
	if init, _ := t.handles(); !init.alive() {
		return nil, fmt.Errorf("processes of container %s: %w", id, ErrNotRunning)
	}
	boot := bootTime()
	var out []Process
	for _, pid := range r.cg.pids(r.cgroup(id)) {
		if p, err := readProcess(pid, boot); err == nil { // it may have ended
			out = append(out, p)
		}
	}
	return out, nil
}

func readProcess(pid int, boot time.Time) (Process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Process{}, err
	}
	text := string(stat)
	end := strings.LastIndexByte(text, ')')
	f := strings.Fields(text[end+1:])
	if end < 0 || len(f) < 20 {
		return Process{}, fmt.Errorf("stat of process %d is too short", pid)
	}
	ppid, _ := strconv.Atoi(f[1])
	tty, _ := strconv.Atoi(f[4])
	ticks := func(s string) time.Duration {
		return time.Duration(parseCount(s)) * time.Second / userHz //nolint:gosec // a process is not that old
	}
	p := Process{PID: pid, PPID: ppid, TTY: tty, CPU: ticks(f[11]) + ticks(f[12]), Started: boot.Add(ticks(f[19]))}
	for line := range strings.Lines(readHead(dir + "/status")) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			p.UID = uint32(parseCount(strings.Fields(rest)[0])) //nolint:gosec // a uid
		}
	}
	args, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return Process{}, err
	}
	p.Command = strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))
	if p.Command == "" { // a kernel thread or a zombie
		p.Command = "[" + text[strings.IndexByte(text, '(')+1:end] + "]"
	}
	return p, nil
}
