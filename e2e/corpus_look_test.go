package e2e_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"berth/api"
)

// seen is what there is of a stack, and what of it is otherwise than the
// reference's model says.
type seen struct {
	*staged
	m *machine
	// tasks of each service, of this revision.
	tasks   map[string][]api.TaskInspect
	volumes map[string]string // folder by name
	wrong   []string
}

func (l *seen) say(format string, args ...any) {
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// compare holds what there is against the reference's model, attribute by
// attribute: from within the containers, from /proc and the cgroups.
func (m *machine) compare(t *testing.T, s *staged) []string {
	t.Helper()
	l := &seen{staged: s, m: m, tasks: map[string][]api.TaskInspect{}, volumes: map[string]string{}}
	for _, v := range jsonLines[api.Volume](t, m.must(t, "volume", "ls", "--format", "json")) {
		l.volumes[v.Name] = v.Mountpoint
	}
	var ids []string
	for _, c := range jsonLines[container](t, m.in(t, s, "ps", "-a", "--format", "json").out) {
		ids = append(ids, c.ID)
	}
	var all []api.TaskInspect
	if text := m.must(t, append([]string{"inspect"}, ids...)...); json.Unmarshal([]byte(text), &all) != nil {
		t.Fatalf("inspect: %s", text)
	}
	for _, task := range all {
		l.tasks[task.Task.Service] = append(l.tasks[task.Task.Service], task)
	}
	for name, svc := range s.ref.Services {
		l.service(t, name, svc)
	}
	l.order(t)
	return l.wrong
}

func jsonLines[T any](t *testing.T, text string) []T {
	t.Helper()
	var list []T
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		list = append(list, v)
	}
	return list
}

// service looks at one service's containers.
func (l *seen) service(t *testing.T, name string, svc types.ServiceConfig) {
	t.Helper()
	want := svc.GetScale()
	if svc.Deploy != nil && strings.HasPrefix(svc.Deploy.Mode, "global") {
		want = 1
	}
	if got := len(l.tasks[name]); got != want {
		l.say("%s: %d containers, want %d", name, got, want)
	}
	for _, task := range l.tasks[name] {
		at := task.Name
		for k, v := range svc.Labels {
			if got, ok := task.Labels[k]; !ok || got != v {
				l.say("%s: label %s is %q, want %q", at, k, got, v)
			}
		}
		if l.once[name] {
			if task.State != api.TaskExited || task.ExitCode != 0 {
				l.say("%s: %s, exit %d; it should have ended with 0", at, task.State, task.ExitCode)
			}
			continue
		}
		if task.State != api.TaskRunning || !task.Ready {
			l.say("%s: %s, ready %v: %s", at, task.State, task.Ready, task.Reason)
			continue
		}
		l.process(at, svc, task.Pid)
		l.limits(at, svc, task.Pid)
		l.mounts(at, svc, task.Pid)
		l.files(at, svc, task.Pid)
		l.network(t, at, svc, task)
	}
	if want > 0 && !l.once[name] {
		l.ports(name, svc)
	}
}

// process looks at what the kernel knows of the main process.
func (l *seen) process(at string, svc types.ServiceConfig, pid int) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	read := func(file string) string {
		b, err := os.ReadFile(proc + file)
		if err != nil {
			l.say("%s: %v", at, err)
		}
		return string(b)
	}
	env := map[string]string{}
	for kv := range strings.SplitSeq(read("environ"), "\x00") {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	for k, v := range svc.Environment {
		switch got, ok := env[k]; {
		case v == nil && ok && k != "PATH" && k != "HOME" && k != "HOSTNAME":
			l.say("%s: environment %s is %q, want none", at, k, got)
		case v != nil && got != *v:
			l.say("%s: environment %s is %q, want %q", at, k, got, *v)
		}
	}
	status := map[string]string{}
	for line := range strings.Lines(read("status")) {
		k, v, _ := strings.Cut(line, ":")
		status[k] = strings.Join(strings.Fields(v), " ")
	}
	uid, gid, _ := strings.Cut(svc.User, ":")
	if !numeric.MatchString(svc.User) {
		uid, gid = "1000", ""
	}
	uid = cmp.Or(uid, "0")
	gid = cmp.Or(gid, "0")
	if got := strings.Fields(status["Uid"]); len(got) == 0 || got[0] != uid {
		l.say("%s: runs as user %s, want %s", at, got, uid)
	}
	if got := strings.Fields(status["Gid"]); len(got) == 0 || got[0] != gid {
		l.say("%s: runs as group %s, want %s", at, got, gid)
	}
	for _, g := range svc.GroupAdd {
		if numeric.MatchString(g) && !slices.Contains(strings.Fields(status["Groups"]), g) {
			l.say("%s: groups %s, want %s among them", at, status["Groups"], g)
		}
	}
	l.capabilities(at, svc, status["CapBnd"])
	if slices.Contains(svc.SecurityOpt, "no-new-privileges:true") != (status["NoNewPrivs"] == "1") &&
		!slices.Contains(svc.SecurityOpt, "no-new-privileges") {
		l.say("%s: NoNewPrivs is %s, security_opt %q", at, status["NoNewPrivs"], svc.SecurityOpt)
	}
	limits := read("limits")
	for name, u := range svc.Ulimits {
		l.ulimit(at, limits, name, u)
	}
	if dir, err := os.Readlink(proc + "cwd"); svc.WorkingDir != "" && (err != nil || dir != filepath.Clean(svc.WorkingDir)) {
		l.say("%s: works in %s, want %s: %v", at, dir, svc.WorkingDir, err)
	}
	if in, _ := os.Readlink(proc + "fd/0"); svc.Tty != strings.HasPrefix(in, "/dev/pts/") {
		l.say("%s: stdin is %s, tty %v", at, in, svc.Tty)
	}
	for ns, mode := range map[string]string{"pid": svc.Pid, "ipc": svc.Ipc, "net": svc.NetworkMode} {
		own, _ := os.Readlink("/proc/self/ns/" + ns)
		if got, _ := os.Readlink(proc + "ns/" + ns); (got == own) != (mode == "host") {
			l.say("%s: %s namespace is %s, the host's %s; want %q", at, ns, got, own, mode)
		}
	}
}

// capabilities looks for those added and dropped by name.
func (l *seen) capabilities(at string, svc types.ServiceConfig, bounding string) {
	set, _ := strconv.ParseUint(bounding, 16, 64)
	numbers := map[string]int{
		"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8, "NET_BIND_SERVICE": 10,
		"NET_ADMIN": 12, "NET_RAW": 13, "IPC_LOCK": 14, "SYS_MODULE": 16, "SYS_CHROOT": 18, "SYS_PTRACE": 19, "SYS_ADMIN": 21,
		"SYS_NICE": 23, "SYS_RESOURCE": 24, "SYS_TIME": 25, "AUDIT_WRITE": 29, "SYSLOG": 34, "PERFMON": 38, "BPF": 39,
	}
	bit := func(name string) (has, known bool) {
		n, known := numbers[strings.TrimPrefix(strings.ToUpper(name), "CAP_")]
		return set&(1<<n) != 0, known
	}
	for _, c := range svc.CapAdd {
		if has, known := bit(c); known && !has {
			l.say("%s: lacks capability %s", at, c)
		}
	}
	for _, c := range svc.CapDrop {
		if has, known := bit(c); known && has && !slices.Contains(svc.CapAdd, c) && !svc.Privileged {
			l.say("%s: has capability %s", at, c)
		}
		if strings.EqualFold(c, "ALL") && len(svc.CapAdd) == 0 && set != 0 && !svc.Privileged {
			l.say("%s: has capabilities %s", at, bounding)
		}
	}
	if has, _ := bit("SYS_MODULE"); svc.Privileged && !has {
		l.say("%s: is not privileged", at)
	}
}

func (l *seen) ulimit(at, limits, name string, u *types.UlimitsConfig) {
	title, ok := map[string]string{
		"nofile": "Max open files", "nproc": "Max processes", "memlock": "Max locked memory", "core": "Max core file size",
		"stack": "Max stack size", "fsize": "Max file size",
	}[name]
	if !ok {
		return
	}
	most := hardLimit("/proc/self/limits", title)
	text := func(n int) string { // what the agent may not have, it can't give
		switch {
		case most >= 0 && (n < 0 || n > most):
			return strconv.Itoa(most)
		case n < 0:
			return "unlimited"
		}
		return strconv.Itoa(n)
	}
	soft, hard := text(cmp.Or(u.Soft, u.Single)), text(cmp.Or(u.Hard, u.Single))
	_, rest, _ := strings.Cut(limits, title)
	if got := strings.Fields(rest); len(got) < 2 || got[0] != soft || got[1] != hard {
		l.say("%s: ulimit %s is %.40q, want %s and %s", at, name, rest, soft, hard)
	}
}

// hardLimit reads a file as /proc/PID/limits; -1 is no limit.
func hardLimit(file, title string) int {
	b, _ := os.ReadFile(file) // it is the kernel's
	_, rest, _ := strings.Cut(string(b), title)
	if fields := strings.Fields(rest); len(fields) > 1 {
		if n, err := strconv.Atoi(fields[1]); err == nil {
			return n
		}
	}
	return -1
}

// limits looks into the cgroups, of either version.
func (l *seen) limits(at string, svc types.ServiceConfig, pid int) {
	memory, cpus, pids := int64(svc.MemLimit), float64(svc.CPUS), svc.PidsLimit
	if d := svc.Deploy; d != nil && d.Resources.Limits != nil {
		memory = cmp.Or(int64(d.Resources.Limits.MemoryBytes), memory)
		cpus = cmp.Or(float64(d.Resources.Limits.NanoCPUs), cpus)
		pids = cmp.Or(d.Resources.Limits.Pids, pids)
	}
	if memory > 0 {
		l.cgroup(at, pid, "memory", "memory.limit_in_bytes", "memory.max", strconv.FormatInt(memory&^4095, 10))
	}
	if n := float64(runtime.NumCPU()); cpus > 0 && cpus <= n {
		quota := strconv.FormatInt(int64(math.Round(cpus*100000)), 10)
		l.cgroup(at, pid, "cpu", "cpu.cfs_quota_us", "cpu.max", quota)
	}
	if pids > 0 {
		l.cgroup(at, pid, "pids", "pids.max", "pids.max", strconv.FormatInt(pids, 10))
	}
	if svc.CPUShares > 0 {
		l.cgroup(at, pid, "cpu", "cpu.shares", "", strconv.FormatInt(int64(svc.CPUShares), 10))
	}
}

// cgroup compares the first word of a file of pid's cgroup; without a name for
// version 2 it looks in version 1 only.
func (l *seen) cgroup(at string, pid int, controller, v1, v2, want string) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // without it nothing is found below
	file := ""
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case slices.Contains(strings.Split(parts[1], ","), controller):
			file = filepath.Join("/sys/fs/cgroup", parts[1], parts[2], v1)
		case parts[1] == "" && file == "" && v2 != "":
			file = filepath.Join("/sys/fs/cgroup", parts[2], v2)
		}
	}
	if file == "" {
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		l.say("%s: %v", at, err)
	} else if got := strings.Fields(string(b)); got[0] != want {
		l.say("%s: %s is %s, want %s", at, filepath.Base(file), got[0], want)
	}
}

// order holds the events against depends_on.
func (l *seen) order(t *testing.T) {
	t.Helper()
	moment := func(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }
	// An earlier stack may have had this one's name.
	r := l.m.in(t, l.staged, "events", "--json", "--since", moment(l.began), "--until", moment(time.Now()))
	list := jsonLines[api.Event](t, r.out)
	first := func(service, action string) int {
		return slices.IndexFunc(list, func(e api.Event) bool { return e.Service == service && e.Action == action })
	}
	for name, svc := range l.ref.Services {
		start := first(name, "start")
		for dep, d := range svc.DependsOn {
			if _, ok := l.ref.Services[dep]; !ok || start < 0 {
				continue
			}
			action := map[string]string{
				types.ServiceConditionHealthy: "health_status: healthy", types.ServiceConditionCompletedSuccessfully: "die",
			}[d.Condition]
			if met := first(dep, cmp.Or(action, "start")); met < 0 || met > start {
				l.say("%s started before %s was %s", name, dep, d.Condition)
			}
		}
	}
}

// ports asks at every published port; the answer is the name of a container
// of the service, or of one in the same network namespace.
func (l *seen) ports(name string, svc types.ServiceConfig) {
	if svc.NetworkMode == "host" {
		return
	}
	mapped := l.tasks[name][0].Ports
	if len(mapped) < len(svc.Ports) {
		l.say("%s: %d ports are published, want %d", name, len(mapped), len(svc.Ports))
	}
	for _, p := range svc.Ports {
		proto := cmp.Or(p.Protocol, "tcp")
		i := slices.IndexFunc(mapped, func(m api.PortMapping) bool {
			number := strconv.Itoa(int(m.Published))
			low, _, ranged := strings.Cut(p.Published, "-")
			return m.Target == uint16(p.Target) && m.Protocol == proto && (p.Published == "" || ranged && number >= low || number == p.Published)
		})
		if i < 0 {
			l.say("%s: port %s:%d/%s is not published: %+v", name, p.Published, p.Target, proto, mapped)
			continue
		}
		host := p.HostIP
		if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		address := net.JoinHostPort(host, strconv.Itoa(int(mapped[i].Published)))
		if err := standinAnswers(proto, address); err != nil {
			l.say("%s: port %s:%d/%s: %v", name, p.Published, p.Target, proto, err)
		}
	}
}

// standinAnswers wants a line from a stand-in.
func standinAnswers(proto, address string) error {
	var err error
	for range 3 { // a datagram may be lost
		var c net.Conn
		if c, err = net.DialTimeout(proto, address, time.Second); err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if proto == "udp" {
			_, _ = c.Write([]byte("?")) // read tells
		}
		b := make([]byte, 256)
		n, readErr := c.Read(b)
		_ = c.Close()
		if err = readErr; err == nil && bytes.HasSuffix(b[:n], []byte("\n")) {
			return nil
		}
	}
	return fmt.Errorf("no answer at %s %s: %w", proto, address, err)
}

// sameFile says that both paths lead to one file or folder.
func sameFile(a, b string) bool {
	var x, y syscall.Stat_t
	return syscall.Stat(a, &x) == nil && syscall.Stat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// names are all the names by which svc is known on the network with that key.
func names(name string, svc types.ServiceConfig, key string) []string {
	list := []string{name}
	if n := svc.Networks[key]; n != nil {
		list = append(list, n.Aliases...)
	}
	if svc.ContainerName != "" {
		list = append(list, svc.ContainerName)
	}
	return list
}

// joined are the networks of svc; a service that is silent joins the default.
func joined(svc types.ServiceConfig) []string {
	if svc.NetworkMode != "" {
		return nil
	}
	return slices.Sorted(maps.Keys(svc.Networks))
}
