package spec

import (
	"slices"
	"strings"
	"sync"
)

// Attribute is one attribute of the Compose schema and what Berth does with
// it.
type Attribute struct {
	// Path is a pattern: "*" stands for any key, "[]" for any list item.
	Path string
	// Honoured says that Berth does what the attribute asks.
	Honoured bool
	// Values, when not empty, are the only values that are honoured; a
	// trailing "*" matches any rest.
	Values []string
	// Hint says what to do instead of an attribute or value that is not
	// honoured.
	Hint string
}

// group is a row of the table: attributes that share their fate. A name is
// relative to under; "." is under itself.
type group struct {
	under   string
	names   string
	ignored bool
	values  []string
	hint    string
}

// table is the single source of what is honoured: the linter, the schema walk
// and the documentation of Compose support are made from it. Everything the
// Compose schema knows is in here; a test holds it to that.
var table = []group{
	{under: "", names: "name version include services networks volumes configs secrets"},
	{under: "include.[]", names: "env_file path project_directory"},
	{
		under: "models", names: "*.context_size *.runtime_flags", ignored: true,
		hint: "say it to the service that runs the model",
	},
	{under: "models", names: ". * *.model *.name"},
	{
		under: "jobs", names: `. * *.triggers *.triggers.manual *.triggers.schedule *.triggers.schedule.[].concurrency
			*.triggers.schedule.[].cron *.triggers.schedule.[].missed_fires *.triggers.schedule.[].timezone`,
	},

	{under: "services.*", names: `. annotations annotations.* attach cap_add cap_drop cgroup cgroup_parent command
		container_name cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset device_cgroup_rules dns dns_opt dns_search domainname
		entrypoint environment environment.* expose extra_hosts extra_hosts.* group_add hostname image init ipc
		labels labels.* label_file links mem_limit mem_reservation mem_swappiness memswap_limit network_mode
		oom_kill_disable oom_score_adj pid pids_limit platform privileged profiles pull_policy pull_refresh_after read_only restart runtime scale security_opt
		shm_size stdin_open stop_grace_period stop_signal storage_opt sysctls sysctls.* tmpfs tty umask
		user userns_mode uts working_dir`},
	{under: "services.*.env_file", names: ". [].format [].path [].required"},
	{under: "services.*.extends", names: ". file service"},
	{under: "services.*.depends_on", names: ". * *.condition *.required *.restart"},
	{under: "services.*.devices", names: ". [].permissions [].source [].target"},
	{under: "services.*.healthcheck", names: ". disable interval retries start_interval start_period test timeout"},
	{under: "services.*.configs", names: ". [].gid [].mode [].source [].target [].uid"},
	{under: "services.*.secrets", names: ". [].gid [].mode [].source [].target [].uid"},
	{under: "services.*.ports", names: ". [].app_protocol [].host_ip [].mode [].name [].protocol [].published [].target"},
	{under: "services.*.ulimits", names: ". * *.hard *.soft"},
	{
		under: "services.*.logging", names: ". options options.*",
	},
	{
		under: "services.*.logging.driver", names: ".", values: []string{LogJSONFile, LogLocal, LogNone, LogJournald, LogSyslog},
		hint: "logs are kept in Berth's own rotated files, for `berth logs`; syslog and journald send them on",
	},
	{under: "services.*.networks", names: `. * *.aliases *.gw_priority *.interface_name *.ipv4_address *.ipv6_address
		*.mac_address *.priority *.driver_opts *.link_local_ips *.use_service_name_alias`},
	{
		under: "services.*.networks.*.driver_opts", names: "*", ignored: true,
		hint: "com.docker.network.endpoint.sysctls and .ifname are honoured",
	},
	{under: "services.*.volumes", names: `. [].bind [].bind.create_host_path [].bind.propagation [].bind.recursive
		[].bind.selinux [].consistency [].image [].image.subpath [].read_only [].source [].target [].tmpfs [].tmpfs.mode
		[].tmpfs.size [].type [].volume [].volume.labels [].volume.labels.* [].volume.nocopy [].volume.subpath`},
	{under: "services.*", names: "volumes_from"},

	{under: "services.*.deploy", names: `. endpoint_mode labels labels.* mode placement placement.constraints
		placement.max_replicas_per_node placement.preferences placement.preferences.[].spread replicas resources resources.limits resources.limits.cpus
		resources.limits.memory resources.limits.pids restart_policy restart_policy.condition restart_policy.delay
		restart_policy.max_attempts restart_policy.window rollback_config rollback_config.delay
		rollback_config.max_failure_ratio rollback_config.monitor rollback_config.parallelism resources.reservations
		resources.reservations.cpus resources.reservations.memory update_config update_config.delay update_config.max_failure_ratio
		update_config.monitor update_config.parallelism`},
	{
		under: "services.*.deploy", names: "rollback_config.order update_config.order",
		values: []string{"start-first", "stop-first"}, hint: "write start-first or stop-first",
	},
	{
		under: "services.*.deploy.update_config.failure_action", names: ".",
		values: []string{"rollback", "pause", "continue"}, hint: "write rollback, pause or continue",
	},
	{
		under: "services.*.deploy.rollback_config.failure_action", names: ".",
		values: []string{"pause", "continue"}, hint: "write pause or continue",
	},
	{under: "services.*.deploy.resources.reservations", names: `devices devices.[].capabilities devices.[].count
		devices.[].device_ids devices.[].driver generic_resources generic_resources.[].discrete_resource_spec
		generic_resources.[].discrete_resource_spec.kind generic_resources.[].discrete_resource_spec.value`},
	{
		under: "services.*", names: `deploy.resources.reservations.devices.[].options
			deploy.resources.reservations.devices.[].options.* gpus.[].options gpus.[].options.*`,
		ignored: true, hint: "write what the device needs into its CDI specification",
	},

	{under: "services.*.build", names: `. additional_contexts additional_contexts.* args args.* cache_from cache_to context
		dockerfile dockerfile_inline entitlements extra_hosts extra_hosts.* labels labels.* no_cache no_cache_filter
		platforms privileged provenance pull sbom secrets secrets.[].source secrets.[].target shm_size ssh ssh.* tags
		target ulimits ulimits.* ulimits.*.hard ulimits.*.soft`},
	{
		under: "services.*.build", names: "network", values: []string{"default", "host", "none", ""},
		hint: "builders know default, host and none",
	},
	{
		under: "services.*.build", names: "secrets.[].gid secrets.[].mode secrets.[].uid", ignored: true,
		hint: "write them in the Dockerfile: RUN --mount=type=secret,id=NAME,uid=1000,mode=0400",
	},
	{under: "services.*.build", names: "isolation", ignored: true, hint: "remove it: it is for Windows"},
	{under: "services.*.develop", names: `. watch watch.[].action watch.[].exec watch.[].exec.command
		watch.[].exec.environment watch.[].exec.environment.* watch.[].exec.privileged watch.[].exec.user
		watch.[].exec.working_dir watch.[].ignore watch.[].include watch.[].initial_sync watch.[].path
		watch.[].target`},
	{
		under: "services.*.post_start", names: `. [].command [].environment [].environment.* [].privileged [].user
			[].working_dir`,
	},
	{
		under: "services.*.pre_stop", names: ". [].command [].environment [].environment.* [].privileged [].user [].working_dir",
	},
	{under: "services.*.pre_start", names: "."},
	{
		under: "services.*.provider", names: ". options options.* type", ignored: true,
		hint: "an error: start what it gives yourself, and pass its address in environment",
	},
	{under: "services.*.models", names: ". * *.endpoint_var *.model_var"},
	{under: "services.*.gpus", names: ". [].capabilities [].count [].device_ids [].driver"},
	{under: "services.*.blkio_config", names: `. device_read_bps device_read_bps.[].path device_read_bps.[].rate
		device_read_iops device_read_iops.[].path device_read_iops.[].rate device_write_bps device_write_bps.[].path
		device_write_bps.[].rate device_write_iops device_write_iops.[].path device_write_iops.[].rate weight
		weight_device weight_device.[].path weight_device.[].weight`},
	{
		under: "services.*.credential_spec", names: ". config file registry", ignored: true,
		hint: "remove it: it is for Windows",
	},
	{
		under: "services.*", names: "cpu_count cpu_percent", ignored: true,
		hint: "remove it: it is for Windows; cpus limits the processors",
	},
	{
		under: "services.*.isolation", names: ".", values: []string{"default", ""},
		hint: "remove it: hyperv and process are for Windows",
	},
	{under: "services.*", names: "use_api_socket", ignored: true, hint: "there is no Docker socket to pass"},
	{under: "services.*", names: "external_links mac_address"},

	{under: "networks", names: `* *.attachable *.driver_opts *.enable_ipv6 *.external *.external.name
		*.internal *.ipam *.ipam.config *.ipam.config.[].aux_addresses *.ipam.config.[].aux_addresses.*
		*.ipam.config.[].gateway *.ipam.config.[].ip_range *.ipam.config.[].subnet *.labels *.labels.* *.name`},
	{
		under: "networks.*.driver", names: ".", values: []string{"bridge", "overlay", "host", "none", "null", "default", ""},
		hint: "the network is made as a bridge",
	},
	{
		under: "networks.*.enable_ipv4", names: ".", values: []string{"true", ""},
		hint: "the network has IPv4 addresses too",
	},
	{
		under: "networks.*.driver_opts", names: "*", ignored: true,
		hint: "mtu, bridge.name, enable_icc, enable_ip_masquerade, host_binding_ipv4 and container_iface_prefix are honoured",
	},
	{
		under: "networks.*.ipam.driver", names: ".", values: []string{"default", ""},
		hint: "addresses are given out by Berth",
	},
	{
		under: "networks.*.ipam", names: "options options.*", ignored: true,
		hint: "addresses are given out by Berth",
	},

	{under: "volumes", names: "* *.driver_opts *.external *.external.name *.labels *.labels.* *.name"},
	{under: "volumes.*.driver", names: ".", values: []string{"local", "default", ""}, hint: "the volume is made as a local folder"},
	{
		under: "volumes.*.driver_opts", names: "*", ignored: true,
		hint: "type, o and device are honoured",
	},

	{under: "configs", names: "* *.content *.environment *.external *.external.name *.file *.labels *.labels.* *.name"},
	{under: "secrets", names: "* *.environment *.external *.external.name *.file *.labels *.labels.* *.name"},
	{under: "configs.*.template_driver", names: ".", values: []string{templateDriver, ""}, hint: "write golang: there is no other"},
	{under: "secrets.*.template_driver", names: ".", values: []string{templateDriver, ""}, hint: "write golang: there is no other"},
	{
		under: "secrets.*", names: "driver driver_opts driver_opts.*", ignored: true,
		hint: "give it with file or environment",
	},
}

// honouredDriverOpts are the driver_opts that are honoured, by the path that
// the schema has for all of them.
var honouredDriverOpts = map[string][]string{
	"networks.*.driver_opts.*": {
		OptMTU, OptMTUShort, OptBridgeName, OptICC, OptMasquerade, OptHostBinding, OptIfPrefix, optGateway4, optGateway6,
	},
	"services.*.networks.*.driver_opts.*": {OptSysctls, optEndpoint},
	"volumes.*.driver_opts.*":             {"type", "o", "device"},
}

// notInJob and notInHook are the attributes of a service that a job and a
// pre_start hook have not; the schema builds the three from common parts.
const (
	notInJob = "attach container_name deploy develop extends external_links links post_start pre_start pre_stop " +
		"provider restart scale"
	notInHook = notInJob + " build depends_on expose healthcheck ports profiles stdin_open tty"
)

// Support lists every attribute of the Compose schema, sorted by path.
func Support() []Attribute {
	out := slices.Clone(support())
	for i := range out {
		out[i].Values = slices.Clone(out[i].Values)
	}
	return out
}

var support = sync.OnceValue(func() []Attribute {
	var out []Attribute
	add := func(g group, path string) {
		out = append(out, Attribute{Path: path, Honoured: !g.ignored, Values: g.values, Hint: g.hint})
	}
	var service []Attribute // relative to one
	for _, g := range table {
		for _, name := range strings.Fields(g.names) {
			path := strings.Trim(strings.TrimSuffix(g.under+"."+name, "."), ".")
			add(g, path)
			if rest, ok := strings.CutPrefix(path, "services.*."); ok {
				service = append(service, Attribute{Path: rest, Honoured: !g.ignored, Values: g.values, Hint: g.hint})
			}
		}
	}
	mirror := func(under, without string) {
		drop := strings.Fields(without)
		for _, a := range service {
			if top, _, _ := strings.Cut(a.Path, "."); slices.Contains(drop, top) {
				continue
			}
			a.Path = under + "." + a.Path
			out = append(out, a)
		}
	}
	mirror("services.*.pre_start.[]", notInHook)
	add(group{}, "services.*.pre_start.[].per_replica")
	mirror("jobs.*", notInJob)
	slices.SortFunc(out, func(a, b Attribute) int { return strings.Compare(a.Path, b.Path) })
	return out
})
