package runtime

import (
	"fmt"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostLimits are what this process may hand on.
type hostLimits struct {
	caps   []string // bounding set
	rlimit map[int]unix.Rlimit
	oom    int // own oom_score_adj
}

// rlimitNumbers has the names of setrlimit(2).
var rlimitNumbers = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

func readHostLimits() hostLimits {
	h := hostLimits{rlimit: map[int]unix.Rlimit{}}
	for _, n := range rlimitNumbers {
		var l unix.Rlimit
		if unix.Prlimit(0, n, nil, &l) == nil {
			h.rlimit[n] = l
		}
	}
	b, err := os.ReadFile("/proc/self/status")
	if err == nil {
		h.caps = capsOf(string(b), "CapBnd:")
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		h.oom, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	return h
}

// capsOf reads a capability mask of /proc/PID/status.
func capsOf(status, field string) []string {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, field)
		if !ok {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
		if err != nil {
			return nil
		}
		var out []string
		for i, n := range capNames {
			if mask&(1<<i) != 0 {
				out = append(out, n)
			}
		}
		slices.Sort(out)
		return out
	}
	return nil
}

func (h hostLimits) may(capability string) bool { return slices.Contains(h.caps, capability) }

// Defaults for open files: enough for a server, not so many that programs
// which close every possible descriptor take seconds to start.
const (
	defaultNofileSoft = 65536
	defaultNofileHard = 1 << 20
)

// rlimits: those asked for, clamped to what the agent itself may set; open
// files and core dumps get a default of their own.
func (m *specMaker) rlimits(s *specs.Spec, c Container) error {
	want := map[string]Ulimit{"nofile": {Soft: defaultNofileSoft, Hard: defaultNofileHard}, "core": {Soft: 0, Hard: -1}}
	for n, u := range c.Ulimits {
		n = strings.ToLower(n)
		if _, ok := rlimitNumbers[n]; !ok {
			return invalid("unknown ulimit %q", clip(n))
		}
		want[n] = u
	}
	for _, n := range sortedKeys(want) {
		u := want[n]
		soft, hard := limitValue(u.Soft), limitValue(u.Hard)
		if soft > hard {
			return invalid("ulimit %s: the soft limit %d is above the hard limit %d", n, u.Soft, u.Hard)
		}
		if own, ok := m.limits.rlimit[rlimitNumbers[n]]; ok && hard > own.Max && !m.limits.may("CAP_SYS_RESOURCE") {
			if _, asked := c.Ulimits[n]; asked {
				m.warn(c.ID, fmt.Sprintf("ulimit %s lowered to %d, the agent's own hard limit", n, own.Max))
			}
			hard, soft = own.Max, min(soft, own.Max)
		}
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(n), Soft: soft, Hard: hard})
	}
	return nil
}

// limitValue: -1 is no limit, as in Compose.
func limitValue(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}

// oomScore is always written: conmon runs with -1000 and before 2.1.9 the
// container would inherit that, and never be chosen.
func (m *specMaker) oomScore(s *specs.Spec, c Container) error {
	score := c.OomScore
	if score < -1000 || score > 1000 {
		return invalid("oom_score_adj %d is not between -1000 and 1000", score)
	}
	if score < m.limits.oom && !m.limits.may("CAP_SYS_RESOURCE") {
		if c.OomScore != 0 {
			m.warn(c.ID, fmt.Sprintf("oom_score_adj raised from %d to the agent's own %d", score, m.limits.oom))
		}
		score = m.limits.oom
	}
	s.Process.OOMScoreAdj = &score
	return nil
}

const (
	defaultPids   = 2048
	cpuPeriod     = 100_000 // µs
	minimumMemory = 6 << 20 // below it the runtime itself does not fit
)

// resources: cgroup limits and the device rules that devices left in s.
func (m *specMaker) resources(s *specs.Spec, c Container) error {
	r, err := m.ociResources(c.ID, c.Resources)
	if err != nil {
		return err
	}
	m.realtime(c.ID, path.Dir(s.Linux.CgroupsPath), c.Resources, r)
	if s.Linux.Resources != nil {
		r.Devices = s.Linux.Resources.Devices
	}
	s.Linux.Resources = r
	return nil
}

func (m *specMaker) ociResources(id string, r Resources) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{}
	if r.Memory != 0 && r.Memory < minimumMemory {
		return nil, invalid("memory limit of %d bytes; the least is 6 MiB", r.Memory)
	}
	if r.MemorySwap > 0 && r.Memory > 0 && r.MemorySwap < r.Memory {
		return nil, invalid("memory and swap together (%d) are less than memory (%d)", r.MemorySwap, r.Memory)
	}
	mem := specs.LinuxMemory{
		Limit: positive(r.Memory), Reservation: positive(r.MemoryReservation), Swap: m.swap(id, r),
	}
	switch {
	case r.MemorySwappiness == nil || *r.MemorySwappiness < 0:
	case m.cg.v2:
		m.warn(id, "mem_swappiness has no effect: cgroup v2 has none")
	default:
		v := uint64(*r.MemorySwappiness)
		mem.Swappiness = &v
	}
	switch {
	case !r.OomKillDisable:
	case m.cg.v2:
		m.warn(id, "oom_kill_disable has no effect: cgroup v2 has no such switch; oom_score_adj: -1000 comes nearest")
	default:
		mem.DisableOOMKiller = &r.OomKillDisable
	}
	if mem != (specs.LinuxMemory{}) {
		out.Memory = &mem
	}
	cpu, err := ociCPU(r)
	if err != nil {
		return nil, err
	}
	if *cpu != (specs.LinuxCPU{}) {
		out.CPU = cpu
	}
	pids := r.Pids
	if pids == 0 {
		pids = defaultPids
	}
	out.Pids = &specs.LinuxPids{Limit: &pids}
	return out, nil
}

// swap: without a word about it, a memory limit is one for memory and swap
// together twice as large, as in Docker; without the kernel's accounting it is
// left out.
func (m *specMaker) swap(id string, r Resources) *int64 {
	v := r.MemorySwap
	if v == 0 && r.Memory > 0 {
		v = 2 * r.Memory
	}
	if v == 0 {
		return nil
	}
	if !m.cg.v2 && !pathExists(m.cg.dir("memory", "memory.memsw.limit_in_bytes")) {
		if r.MemorySwap > 0 {
			m.warn(id, "memswap_limit has no effect: this kernel does not account swap")
		}
		return nil
	}
	return &v
}

func ociCPU(r Resources) (*specs.LinuxCPU, error) {
	cpu := &specs.LinuxCPU{Quota: positive(r.CPUQuota), Cpus: r.Cpuset}
	if r.CPUShares > 0 {
		cpu.Shares = unsigned(r.CPUShares)
	}
	if r.CPUPeriod > 0 {
		cpu.Period = unsigned(r.CPUPeriod)
	}
	if r.NanoCPUs < 0 {
		return nil, invalid("cpus %d is negative", r.NanoCPUs)
	}
	if r.NanoCPUs > 0 {
		if r.CPUQuota != 0 {
			return nil, invalid("cpus and cpu_quota are both set; write one")
		}
		// The kernel takes no quota below 1 ms.
		quota := max(r.NanoCPUs*cpuPeriod/1e9, 1000)
		cpu.Quota, cpu.Period = &quota, unsigned(cpuPeriod)
	}
	return cpu, nil
}

func positive(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

func unsigned(n int64) *uint64 {
	u := uint64(n)
	return &u
}

// ipcSysctls are namespaced with IPC, in addition to fs.mqueue.*.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// sysctls: only those that belong to a namespace of the container; any other
// would change the host.
func (m *specMaker) sysctls(s *specs.Spec, c Container) error {
	out := map[string]string{}
	if c.Netns != "" {
		// What NET_BIND_SERVICE and NET_RAW are mostly wanted for.
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	for k, v := range c.Sysctls {
		k = strings.ReplaceAll(k, "/", ".")
		if err := checkSysctl(k, v, c); err != nil {
			return err
		}
		out[k] = v
	}
	if c.Domainname != "" && private(c.UtsMode) {
		out["kernel.domainname"] = c.Domainname
	}
	if len(out) > 0 {
		s.Linux.Sysctl = out
	}
	return nil
}

func checkSysctl(k, v string, c Container) error {
	for _, ch := range k {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", ch) {
			return invalid("sysctl name %q", clip(k))
		}
	}
	if strings.ContainsAny(v, "\x00\n") || strings.Contains(k, "..") {
		return invalid("sysctl %s=%q", clip(k), clip(v))
	}
	switch {
	case strings.HasPrefix(k, "net."):
		if c.Netns == "" {
			return invalid("sysctl %s would change the host: the container has no network namespace of its own", k)
		}
	case strings.HasPrefix(k, "fs.mqueue."), slices.Contains(ipcSysctls, k):
		if c.IpcMode == "host" {
			return invalid("sysctl %s would change the host: ipc is host", k)
		}
	case k == "kernel.domainname" || k == "kernel.hostname":
		if !private(c.UtsMode) {
			return invalid("sysctl %s would change another's names: uts is %s", k, c.UtsMode)
		}
	default:
		return invalid("sysctl %s belongs to no namespace: it would change the host", k)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (m *specMaker) swapAccounted() bool {
	return m.cg.v2 || pathExists(m.cg.dir("memory", "memory.memsw.limit_in_bytes"))
}

// lift writes "no limit" for what had a limit and shall have none: a runtime
// leaves alone what an update does not name. Not all is among them: see
// cgroupFS.free.
func lift(o *specs.LinuxResources, old Resources, swap, v2 bool) {
	none := int64(-1)
	if o.Memory == nil {
		o.Memory = &specs.LinuxMemory{}
	}
	if o.Memory.Limit == nil && old.Memory != 0 {
		o.Memory.Limit = &none
		if swap {
			o.Memory.Swap = &none
		}
	}
	if o.Memory.Reservation == nil && old.MemoryReservation != 0 {
		o.Memory.Reservation = &none
	}
	if o.Memory.Swappiness == nil && old.MemorySwappiness != nil && !v2 {
		usual := uint64(60) // vm.swappiness, as the kernel has it
		o.Memory.Swappiness = &usual
	}
	if *o.Memory == (specs.LinuxMemory{}) {
		o.Memory = nil
	}
	if o.CPU == nil {
		o.CPU = &specs.LinuxCPU{}
	}
	if o.CPU.Shares == nil && old.CPUShares != 0 {
		o.CPU.Shares = unsigned(1024) // the kernel's default
	}
	if *o.CPU == (specs.LinuxCPU{}) {
		o.CPU = nil
	}
}
