package spec

import "time"

// Stack is one Compose project, resolved: interpolated, merged, its env files
// read, its configs and secrets carried by content. It is a value: safe to
// copy, to encode as JSON and to compare.
type Stack struct {
	// Name is the project name: [a-z0-9][a-z0-9_-]*, at most 63 bytes.
	Name string `json:"name"`
	// Dir is the absolute project directory: where relative paths start.
	Dir string `json:"dir"`
	// Files are the Compose files as they were merged, absolute.
	Files []string `json:"files"`
	// EnvFiles are the .env files that took part in interpolation, absolute.
	EnvFiles []string `json:"env_files,omitempty"`

	Services map[string]Service `json:"services"`
	Networks map[string]Network `json:"networks,omitempty"`
	Volumes  map[string]Volume  `json:"volumes,omitempty"`
	Configs  map[string]File    `json:"configs,omitempty"`
	Secrets  map[string]File    `json:"secrets,omitempty"`
	Jobs     map[string]Job     `json:"jobs,omitempty"`

	// Positions gives the place in the user's files of a path such as
	// "services.web.ports.0" or "volumes.data". Paths that came from no file
	// (defaults) are absent.
	Positions map[string]Position `json:"positions,omitempty"`
}

// Service is one service of a Stack. The class tag says what a change of the
// field does to running tasks; a field without one replaces them.
type Service struct {
	Name string `json:"name" class:"ignored"`

	// Image is the reference as the user wrote it; empty for a service that
	// is only built.
	Image      string `json:"image,omitempty" class:"ignored"` // identity is the digest
	Platform   string `json:"platform,omitempty"`
	PullPolicy string `json:"pull_policy,omitempty" class:"ignored"`
	Build      *Build `json:"build,omitempty" class:"ignored"`

	// ContainerName is a further DNS name of the service's task; it does not
	// name a kernel object and never forces stop-first.
	ContainerName string `json:"container_name,omitempty"`
	Hostname      string `json:"hostname,omitempty"`
	Domainname    string `json:"domainname,omitempty"`

	// Entrypoint and Command: nil means the image's; empty and not nil
	// (`entrypoint: []`) means none.
	Entrypoint  *[]string         `json:"entrypoint,omitempty"`
	Command     *[]string         `json:"command,omitempty"`
	Environment map[string]string `json:"environment,omitempty"` // env_file merged in
	User        string            `json:"user,omitempty"`
	GroupAdd    []string          `json:"group_add,omitempty"`
	WorkingDir  string            `json:"working_dir,omitempty"`
	TTY         bool              `json:"tty,omitempty"`
	StdinOpen   bool              `json:"stdin_open,omitempty"`
	Init        bool              `json:"init,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`

	// Mounts include those that VolumesFrom brings from services.
	Mounts []Mount `json:"mounts,omitempty"`
	// VolumesFrom are "service", or "container:NAME", and then ":ro".
	VolumesFrom []string    `json:"volumes_from,omitempty"`
	Configs     []FileMount `json:"configs,omitempty"`
	Secrets     []FileMount `json:"secrets,omitempty"`

	// NetworkMode is "", "host", "none", "service:NAME" or "container:NAME".
	// With "" the service is on Networks; so is one whose file names a network.
	NetworkMode  string       `json:"network_mode,omitempty"`
	Networks     []Attachment `json:"networks,omitempty"` // sorted by network
	Ports        []Port       `json:"ports,omitempty" class:"inplace"`
	Expose       []string     `json:"expose,omitempty" class:"ignored"`
	EndpointMode string       `json:"endpoint_mode,omitempty" class:"inplace"` // "vip" (default) or "dnsrr"
	ExtraHosts   []string     `json:"extra_hosts,omitempty"`                   // "name=address"
	Links        []string     `json:"links,omitempty"`                         // "service" or "service:alias"
	// ExternalLinks are "container" or "container:alias", of any stack.
	ExternalLinks []string `json:"external_links,omitempty"`
	DNS           []string `json:"dns,omitempty"`
	DNSSearch     []string `json:"dns_search,omitempty"`
	DNSOptions    []string `json:"dns_opt,omitempty"`
	MACAddress    string   `json:"mac_address,omitempty"`

	Resources  Resources `json:"resources,omitzero" class:"inplace"`
	Ulimits    []Ulimit  `json:"ulimits,omitempty"` // sorted by name
	ShmSize    int64     `json:"shm_size,omitempty"`
	OomScore   int       `json:"oom_score_adj,omitempty"`
	CapAdd     []string  `json:"cap_add,omitempty"`
	CapDrop    []string  `json:"cap_drop,omitempty"`
	Privileged bool      `json:"privileged,omitempty"`
	ReadOnly   bool      `json:"read_only,omitempty"`
	Devices    []Device  `json:"devices,omitempty"`
	// DeviceCgroupRules are rules such as "c 1:3 mr".
	DeviceCgroupRules []string          `json:"device_cgroup_rules,omitempty"`
	Sysctls           map[string]string `json:"sysctls,omitempty"`
	// SecurityOpt is as written, but that seccomp=FILE carries the profile
	// itself, as JSON.
	SecurityOpt []string `json:"security_opt,omitempty"`
	UsernsMode  string   `json:"userns_mode,omitempty"`
	// PidMode, IpcMode and UtsMode are "", "private", "host", "service:NAME" or
	// "container:NAME"; IpcMode also "shareable" and "none". CgroupMode is "",
	// "private" or "host".
	PidMode    string `json:"pid,omitempty"`
	IpcMode    string `json:"ipc,omitempty"`
	UtsMode    string `json:"uts,omitempty"`
	CgroupMode string `json:"cgroup,omitempty"`
	// CgroupParent is a path below the agent's own cgroup (CheckCgroupParent).
	CgroupParent string  `json:"cgroup_parent,omitempty"`
	Runtime      string  `json:"runtime,omitempty"` // "": the agent's own
	Blkio        *Blkio  `json:"blkio_config,omitempty"`
	Umask        *uint32 `json:"umask,omitempty"`        // nil: the runtime's, 0022
	StorageSize  int64   `json:"storage_size,omitempty"` // bytes that it may write outside volumes; 0: no limit
	// CDI are names of devices such as vendor.com/class=name, Requests what is
	// asked for by what it can do: gpus and deploy.resources.reservations.devices.
	CDI      []string        `json:"cdi,omitempty"`
	Requests []DeviceRequest `json:"device_requests,omitempty"`
	// Generic are amounts of the node's generic resources.
	Generic []GenericResource `json:"generic_resources,omitempty" class:"ignored"`

	StopSignal      string         `json:"stop_signal,omitempty"`
	StopGracePeriod *time.Duration `json:"stop_grace_period,omitempty" class:"inplace"` // nil: 10 s
	// PostStart and PreStop are run inside of a container: after its start, before
	// it counts as ready, and before its stop signal, within the grace.
	PostStart   []Hook        `json:"post_start,omitempty"`
	PreStop     []Hook        `json:"pre_stop,omitempty"`
	Restart     RestartPolicy `json:"restart,omitzero" class:"inplace"`
	Healthcheck *Healthcheck  `json:"healthcheck,omitempty" class:"inplace"` // nil: the image's
	Logging     Logging       `json:"logging,omitzero"`

	// Readiness (x-readiness) decides, beside Healthcheck, whether a task takes
	// traffic; Liveness (x-liveness) whether it is replaced. nil: none.
	Readiness *Probe `json:"readiness,omitempty" class:"inplace"`
	Liveness  *Probe `json:"liveness,omitempty" class:"inplace"`
	// MinReady (x-min-ready) is how long a task must be ready without a break
	// before it takes traffic.
	MinReady time.Duration `json:"min_ready,omitempty" class:"ignored"`
	// Drain (x-drain) is how long a withdrawn task may finish its connections;
	// nil: 30 s.
	Drain *time.Duration `json:"drain,omitempty" class:"ignored"`
	// ProgressDeadline (x-progress-deadline) is how long a task may take to
	// become ready; 0: what its health test may take and a minute, at least 120 s.
	ProgressDeadline time.Duration `json:"progress_deadline,omitempty" class:"ignored"`

	DependsOn []Dependency `json:"depends_on,omitempty" class:"ignored"` // sorted by service
	// Replicas is how many tasks the service has (deploy.replicas or scale).
	Replicas int           `json:"replicas" class:"ignored"`
	Mode     string        `json:"mode,omitempty" class:"ignored"` // deploy.mode, see Mode…
	Update   *UpdateConfig `json:"update_config,omitempty" class:"ignored"`
	Rollback *UpdateConfig `json:"rollback_config,omitempty" class:"ignored"`
	// DeployLabels (deploy.labels) are the service's, not its containers'.
	DeployLabels map[string]string `json:"deploy_labels,omitempty" class:"ignored"`
	// Constraints (deploy.placement.constraints) say which nodes may run its
	// tasks; see ParseConstraint. MaxPerNode is how many on each; 0: any number.
	Constraints []string `json:"constraints,omitempty" class:"ignored"`
	MaxPerNode  int      `json:"max_replicas_per_node,omitempty" class:"ignored"`
	Profiles    []string `json:"profiles,omitempty" class:"ignored"`
	Attach      *bool    `json:"attach,omitempty" class:"ignored"` // nil: true

	// OneShot says that another service waits for this one to complete
	// (depends_on condition service_completed_successfully), or that it is a job
	// (deploy.mode): it runs once per revision and is not restarted.
	OneShot bool `json:"one_shot,omitempty" class:"ignored"`
	// StepOf is the service of which this one runs a pre_start step.
	StepOf string `json:"step_of,omitempty" class:"ignored"`
	// PerReplica says of a step that it runs once for each replica: it has as
	// many tasks as StepOf.
	PerReplica bool `json:"per_replica,omitempty" class:"ignored"`
}

// Mount types.
const (
	MountVolume = "volume"
	MountBind   = "bind"
	MountTmpfs  = "tmpfs"
	MountImage  = "image"
)

// Mount is one entry of `volumes` or `tmpfs`.
type Mount struct {
	Type string `json:"type"`
	// Source is the key in Stack.Volumes ("" for an anonymous volume), the
	// absolute host path of a bind, or an image reference.
	Source   string `json:"source,omitempty"`
	Target   string `json:"target"` // absolute, clean
	ReadOnly bool   `json:"read_only,omitempty"`

	CreateHostPath bool   `json:"create_host_path,omitempty"` // bind
	Propagation    string `json:"propagation,omitempty"`      // bind
	Recursive      string `json:"recursive,omitempty"`        // bind: disabled, writable, readonly
	SELinux        string `json:"selinux,omitempty"`          // bind: z or Z
	NoCopy         bool   `json:"nocopy,omitempty"`           // volume: do not seed from the image
	Subpath        string `json:"subpath,omitempty"`          // volume, image
	// Labels are for the volume, if this mount makes it.
	Labels map[string]string `json:"labels,omitempty"`
	// From is the service, of VolumesFrom, whose anonymous volume this is.
	From string `json:"from,omitempty"`
	// Digest is the hash of a bind's content, if x-watch-content asks for it, or
	// the digest of an image, which the agent fills in: a change replaces the tasks.
	Digest    string `json:"digest,omitempty"`
	TmpfsSize int64  `json:"tmpfs_size,omitempty"` // bytes; 0: no limit of its own
	TmpfsMode uint32 `json:"tmpfs_mode,omitempty"` // 0: 01777
	// TmpfsOptions are further mount options of a short-form tmpfs, for
	// example "uid=1000" or "noexec".
	TmpfsOptions []string `json:"tmpfs_options,omitempty"`
}

// FileMount delivers a config or a secret into a container.
type FileMount struct {
	Source string `json:"source"` // key in Stack.Configs or Stack.Secrets
	Target string `json:"target"` // absolute path in the container
	UID    string `json:"uid,omitempty"`
	GID    string `json:"gid,omitempty"`
	Mode   uint32 `json:"mode"` // permission bits; 0444 when the file is silent
	// Env (x-env) is the variable that has the content too.
	Env string `json:"env,omitempty"`
	// OnChange (x-on-change) is what a change of the content does: "" or
	// "replace" replaces the tasks, "signal:NAME" delivers it and signals,
	// "ignore" leaves it to the next replacement. Load leaves "replace" out and
	// fills in what the File says. A change of this field itself replaces the
	// tasks, once.
	OnChange string `json:"on_change,omitempty"`
}

// Attachment puts a service on a network.
type Attachment struct {
	Network       string   `json:"network"` // key in Stack.Networks
	Aliases       []string `json:"aliases,omitempty"`
	IPv4          string   `json:"ipv4_address,omitempty"`
	IPv6          string   `json:"ipv6_address,omitempty"`
	LinkLocalIPs  []string `json:"link_local_ips,omitempty"`
	MAC           string   `json:"mac_address,omitempty"`
	Priority      int      `json:"priority,omitempty"`
	GwPriority    int      `json:"gw_priority,omitempty"`
	InterfaceName string   `json:"interface_name,omitempty"`
	// NoServiceName: the service's name leads to it on other networks only
	// (use_service_name_alias: false).
	NoServiceName bool              `json:"no_service_name,omitempty"`
	DriverOpts    map[string]string `json:"driver_opts,omitempty"`
}

// Port is one published port. Ranges are expanded, except a host range for
// one target (`8000-8010:80`), of which one free port is taken.
type Port struct {
	Name         string `json:"name,omitempty"`
	HostIP       string `json:"host_ip,omitempty"` // "": every address
	Published    uint16 `json:"published,omitempty"`
	PublishedEnd uint16 `json:"published_end,omitempty"` // 0: no range
	Target       uint16 `json:"target"`
	Protocol     string `json:"protocol"` // tcp, udp, sctp
	Mode         string `json:"mode,omitempty"`
	AppProtocol  string `json:"app_protocol,omitempty"`
}

// Resources are the cgroup limits of a service's tasks: the more specific of
// deploy.resources.limits and the short service keys. Zero means no limit.
type Resources struct {
	NanoCPUs          int64  `json:"nano_cpus,omitempty"`          // 1e9 is one CPU
	Memory            int64  `json:"memory,omitempty"`             // bytes
	MemoryReservation int64  `json:"memory_reservation,omitempty"` // bytes
	CPUReservation    int64  `json:"cpu_reservation,omitempty"`    // 1e9 is one CPU; for admission only
	MemorySwap        int64  `json:"memory_swap,omitempty"`        // bytes, memory included; -1: unlimited
	MemorySwappiness  *int64 `json:"memory_swappiness,omitempty"`
	Pids              int64  `json:"pids,omitempty"` // -1: unlimited; 0: the default of 2048
	CPUShares         int64  `json:"cpu_shares,omitempty"`
	CPUQuota          int64  `json:"cpu_quota,omitempty"`  // µs per period
	CPUPeriod         int64  `json:"cpu_period,omitempty"` // µs
	Cpuset            string `json:"cpuset,omitempty"`
	OomKillDisable    bool   `json:"oom_kill_disable,omitempty"`
	CPURTPeriod       int64  `json:"cpu_rt_period,omitempty"`  // µs; cgroup v1
	CPURTRuntime      int64  `json:"cpu_rt_runtime,omitempty"` // µs per period
}

// Blkio is blkio_config.
type Blkio struct {
	Weight       uint16        `json:"weight,omitempty"` // 10 to 1000; 0: the kernel's default
	WeightDevice []BlkioWeight `json:"weight_device,omitempty"`
	ReadBps      []BlkioRate   `json:"device_read_bps,omitempty"`
	ReadIOps     []BlkioRate   `json:"device_read_iops,omitempty"`
	WriteBps     []BlkioRate   `json:"device_write_bps,omitempty"`
	WriteIOps    []BlkioRate   `json:"device_write_iops,omitempty"`
}

// BlkioWeight is the weight of one block device.
type BlkioWeight struct {
	Path   string `json:"path"`
	Weight uint16 `json:"weight"`
}

// BlkioRate limits one block device: bytes or operations per second.
type BlkioRate struct {
	Path string `json:"path"`
	Rate int64  `json:"rate"`
}

// DeviceRequest asks for devices by what they can do.
type DeviceRequest struct {
	Driver       string   `json:"driver,omitempty"` // "": whichever has the capabilities
	Capabilities []string `json:"capabilities,omitempty"`
	Count        int64    `json:"count,omitempty"` // -1: all
	IDs          []string `json:"device_ids,omitempty"`
	// At is where the file asks, below the service: "gpus.0".
	At string `json:"at,omitempty"`
}

// GenericResource is one of deploy.resources.reservations.generic_resources.
type GenericResource struct {
	Kind  string `json:"kind"`
	Value int64  `json:"value"`
}

// Ulimit is one resource limit of a process.
type Ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Device maps a host device into a container.
type Device struct {
	Source      string `json:"source"`
	Target      string `json:"target"`
	Permissions string `json:"permissions"` // subset of "rwm"
}

// Restart conditions. RestartDefault is a silent file: a task that fails is
// restarted, one that exits 0 is complete.
const (
	RestartDefault       = ""
	RestartNo            = "no"
	RestartAlways        = "always"
	RestartOnFailure     = "on-failure"
	RestartUnlessStopped = "unless-stopped"
)

// RestartPolicy says when an exited task is followed by a new one.
type RestartPolicy struct {
	Condition   string        `json:"condition,omitempty"`
	MaxAttempts int           `json:"max_attempts,omitempty"` // 0: no limit
	Delay       time.Duration `json:"delay,omitempty"`        // 0: back-off 100 ms doubling to 60 s
	Window      time.Duration `json:"window,omitempty"`
}

// Healthcheck is a service's own health test. A zero field is inherited from
// the image, then from the defaults: interval 30 s, timeout 30 s, retries 3,
// start period 0, start interval 5 s.
type Healthcheck struct {
	Disable       bool          `json:"disable,omitempty"`
	Test          []string      `json:"test,omitempty"` // CMD or CMD-SHELL first; nil: the image's
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"start_period,omitempty"`
	StartInterval time.Duration `json:"start_interval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// Kinds of a Probe.
const (
	ProbeHTTP = "http"
	ProbeTCP  = "tcp"
	ProbeGRPC = "grpc"
	ProbeExec = "exec"
)

// Probe is x-readiness or x-liveness. All but exec are asked from outside the
// container, at the task's own address. Load fills every default in.
type Probe struct {
	Kind string `json:"kind"`
	Port uint16 `json:"port,omitempty"` // http, tcp, grpc
	// HTTP: a GET of Path succeeds with a status of 200 to 399, or Status.
	Path    string            `json:"path,omitempty"`
	Scheme  string            `json:"scheme,omitempty"` // http or https (certificates are not verified)
	Host    string            `json:"host,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Status  int               `json:"status,omitempty"`
	// GRPC: the name asked of grpc.health.v1.Health/Check.
	GRPCService string   `json:"grpc_service,omitempty"`
	Exec        []string `json:"exec,omitempty"` // argv, in the container

	Interval     time.Duration `json:"interval"` // 10 s; 1 s until the first success
	Timeout      time.Duration `json:"timeout"`  // 5 s
	InitialDelay time.Duration `json:"initial_delay,omitempty"`
	Failures     int           `json:"failures"`  // in a row until it fails: 3
	Successes    int           `json:"successes"` // in a row until it passes: 1
}

// Logging is the logging driver of a service; "" is Berth's own rotated file.
type Logging struct {
	Driver  string            `json:"driver,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// Conditions of a Dependency.
const (
	DependsStarted   = "service_started"
	DependsHealthy   = "service_healthy"
	DependsCompleted = "service_completed_successfully"
)

// Dependency is one edge of depends_on, also the implied ones of links,
// network_mode, volumes_from.
type Dependency struct {
	Service   string `json:"service"`
	Condition string `json:"condition"`
	Required  bool   `json:"required"`
	Restart   bool   `json:"restart,omitempty"`
}

// UpdateConfig is deploy.update_config or deploy.rollback_config, as written:
// nil means that the file is silent.
type UpdateConfig struct {
	Parallelism     *int           `json:"parallelism,omitempty"` // 0: all at once
	Delay           *time.Duration `json:"delay,omitempty"`
	FailureAction   string         `json:"failure_action,omitempty"`
	Monitor         *time.Duration `json:"monitor,omitempty"`
	MaxFailureRatio float64        `json:"max_failure_ratio,omitempty"`
	Order           string         `json:"order,omitempty"`
}

// Network is a top-level network.
type Network struct {
	Key        string            `json:"key"`
	Name       string            `json:"name"` // STACK_KEY unless named or external
	External   bool              `json:"external,omitempty"`
	Driver     string            `json:"driver,omitempty"` // "" and bridge are the same
	DriverOpts map[string]string `json:"driver_opts,omitempty"`
	Internal   bool              `json:"internal,omitempty"`
	Attachable bool              `json:"attachable,omitempty"`
	EnableIPv4 *bool             `json:"enable_ipv4,omitempty"`
	EnableIPv6 bool              `json:"enable_ipv6,omitempty"`
	IPAM       []IPAMPool        `json:"ipam,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// IPAMPool is one subnet asked for by the file.
type IPAMPool struct {
	Subnet  string            `json:"subnet,omitempty"`
	Gateway string            `json:"gateway,omitempty"`
	IPRange string            `json:"ip_range,omitempty"`
	Aux     map[string]string `json:"aux_addresses,omitempty"`
}

// Volume is a top-level named volume.
type Volume struct {
	Key        string            `json:"key"`
	Name       string            `json:"name"` // STACK_KEY unless named or external
	External   bool              `json:"external,omitempty"`
	Driver     string            `json:"driver,omitempty"`
	DriverOpts map[string]string `json:"driver_opts,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// File is a top-level config or secret. Load fills Content; the agent moves
// it into its secrets store and keeps Digest instead, and nothing of where it
// came from.
type File struct {
	Key      string `json:"key"`
	Name     string `json:"name"`
	External bool   `json:"external,omitempty"`
	Content  []byte `json:"content,omitempty"`
	// Encrypted says how Content is encrypted (EncryptedAge …), "" that it is
	// not. The agent decrypts it.
	Encrypted string `json:"encrypted,omitempty"`
	// Provider (x-provider) is whom the agent asks for the content.
	Provider *Provider `json:"provider,omitempty"`
	// Digest is the agent's keyed digest of Content.
	Digest string            `json:"digest,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// OnChange (x-on-change) is what FileMounts without their own have.
	OnChange string `json:"on_change,omitempty"`
	// Template says that the content is a Template (x-berth, template_driver).
	// Uses are what it names, "secret NAME", "config NAME" or "labels": the agent
	// fills them in.
	Template bool     `json:"template,omitempty"`
	Uses     []string `json:"uses,omitempty"`
}
