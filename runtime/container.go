package runtime

import (
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// Config places a Runtime on the machine.
type Config struct {
	// Root holds what survives a reboot: logs. Run holds what does not:
	// bundles, runtime state, exit files.
	Root, Run string
	// CgroupParent is the parent cgroup of all containers, "/berth" by
	// default; each container gets CgroupParent/ID.
	CgroupParent string
	// Runtime is the path of crun or runc; "" tries crun, then runc, by
	// running a container with each until one works.
	Runtime string
	// Runtimes are paths of further OCI runtimes, by the name that
	// Container.Runtime has. crun and runc need no entry.
	Runtimes map[string]string
	// CDI are the folders of device specifications; /etc/cdi and /run/cdi when
	// nil. The same device in a later folder wins.
	CDI []string
	// Conmon is its path; "" looks in PATH and /usr/libexec, /usr/lib.
	Conmon string
	// Init is the path of a static program that imports initproc: berthd itself.
	// Needed for Container.Init and Container.EnvFile.
	Init string
	// Warn is told what was changed in a container that could not be made as
	// asked (a limit clamped, an option ignored). It may be called from
	// several goroutines. nil: nobody is told.
	Warn func(id, text string)
}

// Container is everything that is needed to create one. The caller has
// resolved names: users of the image are looked up by Create inside Rootfs,
// nothing else is.
type Container struct {
	ID     string // [a-z0-9]{1,64}; also the name of its cgroup
	Name   string // for people: conmon's -n
	Rootfs string // mounted root filesystem, absolute
	// Netns is the path of a network namespace; "" is the host's.
	Netns string

	Args []string // entrypoint and command, not empty
	Env  []string // KEY=VALUE, later wins; PATH, HOME, HOSTNAME, TERM are filled in if missing
	// EnvFile is the host path of a file with further variables, for the command
	// and for execs: NAME=VALUE entries, each ended by a zero byte. They win over
	// Env, and are in no configuration. Its owner must be User (LookupUser).
	EnvFile     string
	User        string // as in an image's USER: name or number, with optional group; "" is root
	GroupAdd    []string
	WorkingDir  string // created in Rootfs if missing; "" is /
	Hostname    string
	Domainname  string
	TTY         bool
	Stdin       bool // keep stdin open for Attach
	StdinOnce   bool // until the input of the first Attach ends
	Init        bool // run Args below a small init that reaps and forwards signals
	Labels      map[string]string
	Annotations map[string]string

	Mounts []Mount
	// HostsFile, HostnameFile and ResolvFile are host paths, bound read-write
	// over /etc/hosts, /etc/hostname and /etc/resolv.conf when not empty and
	// when no Mount has that target.
	HostsFile, HostnameFile, ResolvFile string

	Resources  Resources
	Ulimits    map[string]Ulimit // "nofile" ...
	ShmSize    int64             // bytes, 0: 64 MiB
	OomScore   int
	CapAdd     []string // "ALL", "NET_ADMIN" or "CAP_NET_ADMIN"
	CapDrop    []string
	Privileged bool
	ReadOnly   bool
	Devices    []Device
	// DeviceCgroupRules are rules such as "c 1:3 mr".
	DeviceCgroupRules []string
	Sysctls           map[string]string
	// SecurityOpt is Compose's security_opt: no-new-privileges[:BOOL],
	// seccomp=unconfined|PATH, apparmor=…, label=…, systempaths=unconfined.
	SecurityOpt []string
	// PidMode, IpcMode, UtsMode and CgroupMode are "", "private", "host", the
	// path of a namespace, or "container:ID" for that of a running container of
	// this Runtime. IpcMode also "shareable" (as private), and "none": private,
	// without a /dev/shm.
	PidMode, IpcMode, UtsMode, CgroupMode string
	// ShmDir is a tmpfs of the host that becomes /dev/shm; "": its own.
	ShmDir string
	// CgroupParent is a path below Config.CgroupParent.
	CgroupParent string
	// Runtime is the name of an OCI runtime, "" is the one that Open chose.
	Runtime string
	// Umask of the command and of execs; nil: the runtime's default, 0022.
	Umask *uint32
	// CDI are names of devices, vendor.com/class=name.
	CDI   []string
	Blkio *Blkio

	// LogMaxSize and LogMaxFiles cap the log: 10 MiB and 3 when zero.
	LogMaxSize  int64
	LogMaxFiles int
	// NoLog keeps nothing of what it writes.
	NoLog bool
}

// Mount is one mount below the container's root. Source is an absolute host
// path for a bind.
type Mount struct {
	Type     string // bind, tmpfs
	Source   string
	Target   string
	Options  []string // mount options as in fstab: ro, nosuid, size=64m, rslave …
	ReadOnly bool
}

// Resources are cgroup limits; zero means no limit, except Pids, whose zero
// means 2048 and whose -1 means no limit.
type Resources struct {
	NanoCPUs, Memory, MemoryReservation, MemorySwap int64
	MemorySwappiness                                *int64
	Pids, CPUShares, CPUQuota, CPUPeriod            int64
	Cpuset                                          string
	OomKillDisable                                  bool
	CPURTPeriod, CPURTRuntime                       int64 // µs, cgroup v1
}

// Blkio weighs and limits the use of block devices, which are named by path.
type Blkio struct {
	Weight                                 uint16 // 10 to 1000, 0: as the kernel has it
	WeightDevice                           []DeviceRate
	ReadBps, ReadIOps, WriteBps, WriteIOps []DeviceRate
}

// DeviceRate is a number for one block device: a weight, bytes or operations
// per second.
type DeviceRate struct {
	Path string
	Rate int64
}

// Ulimit is one resource limit. A value above the agent's own hard limit is
// clamped and reported as a warning.
type Ulimit struct{ Soft, Hard int64 }

// Device maps a host device, or a folder of devices, into the container.
type Device struct{ Source, Target, Permissions string }

// State of a container.
type State int

// States. StateUnknown is a container of which only traces are left.
const (
	StateUnknown State = iota
	StateCreated
	StateRunning
	StatePaused
	StateExited
)

// Status is what is known of a container now.
type Status struct {
	ID    string
	State State
	Pid   int // 0 unless running or paused
	// StartedAt of a container that is only created is when a Start began that
	// was cut off with its process, else zero. Whether its program runs is not
	// known; Start, once more, ends it.
	StartedAt  time.Time
	FinishedAt time.Time
	// ExitCode is -1 when nobody could tell (conmon was killed, the disk was
	// full); 128+N for signal N.
	ExitCode  int
	OOMKilled bool
}

// Exec describes a further process in a running container.
type Exec struct {
	Args       []string
	Env        []string // added to the container's
	User       string   // "" is the container's
	WorkingDir string
	TTY        bool
	Privileged bool
	Stdin      io.Reader // nil: /dev/null
	Stdout     io.Writer // nil: discarded
	Stderr     io.Writer // unused with TTY
	Resize     <-chan WindowSize
}

// WindowSize of a terminal.
type WindowSize struct{ Rows, Cols uint16 }

// LogLine is one line, or a part of one, that a container wrote.
type LogLine struct {
	Time   time.Time
	Stream string // stdout or stderr
	Text   string // without the newline
	// Partial says that the line goes on in the next LogLine.
	Partial bool
}

// LogOptions select lines. Zero times select everything.
type LogOptions struct {
	Since, Until time.Time
	Tail         int // last N lines; <0: all
	Follow       bool
}

// Stats are counters of a container's cgroup, at Time.
type Stats struct {
	Time        time.Time `json:"time"`
	CPUNanos    uint64    `json:"cpu_nanos"`
	Memory      uint64    `json:"memory"` // bytes without the reclaimable page cache
	MemoryLimit uint64    `json:"memory_limit"`
	Pids        uint64    `json:"pids"`
	BlockRead   uint64    `json:"block_read"`
	BlockWrite  uint64    `json:"block_write"`
	NetRx       uint64    `json:"net_rx"`
	NetTx       uint64    `json:"net_tx"`
	// OOMKills counts processes of the container that the kernel killed for
	// want of memory, its first one or others.
	OOMKills uint64 `json:"oom_kills"`
}

// Signal is a signal by number, as parsed by ParseSignal.
type Signal = unix.Signal
