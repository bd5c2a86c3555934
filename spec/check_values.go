package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// maxReplicas of one service: a slip of the finger must not start a million
// processes.
const maxReplicas = 10_000

var (
	restartForm = lazy(`^(no|always|unless-stopped|on-failure(:\d+)?)$`)
	signalForm  = lazy(`^(SIG)?(RTMIN(\+\d+)?|RTMAX(-\d+)?|[A-Z]+[0-9]?)$`)
)

// capabilities of Linux, capabilities(7).
var capabilities = strings.Fields(`AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN
	DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE
	MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN
	SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG
	WAKE_ALARM`)

// limits are the names of getrlimit(2).
var limits = strings.Fields(`as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime
	sigpending stack`)

// values checks what the schema leaves open and a runtime would refuse.
func (c serviceCheck) values() {
	if r := c.s.Restart; r != "" && !restartForm().MatchString(r) {
		c.failValue(c.at+".restart", fmt.Sprintf("restart %q is unknown", r), "write no, always, unless-stopped, on-failure or on-failure:N")
	}
	for i, p := range c.s.Ports {
		if _, err := port(p); err != nil {
			c.failValue(fmt.Sprintf("%s.ports.%d", c.at, i), err.Error(), "write HOST:CONTAINER, such as 8080:80")
		}
	}
	if policy := c.s.PullPolicy; policy != "" {
		if _, _, err := c.s.GetPullPolicy(); err != nil {
			c.failValue(c.at+".pull_policy", fmt.Sprintf("pull_policy %q is unknown", policy), "write always, missing or never")
		}
	}
	c.refresh()
	if n := c.s.GetScale(); n > maxReplicas {
		c.fail(c.at+".deploy.replicas", fmt.Sprintf("%d replicas are more than %d", n, maxReplicas), "write a smaller number")
	}
	if h := c.s.HealthCheck; h != nil && len(h.Test) == 1 && h.Test[0] != "NONE" {
		c.failValue(c.at+".healthcheck.test", "healthcheck.test has no command", "write it behind "+h.Test[0])
	}
	c.capabilities("cap_add", c.s.CapAdd)
	c.capabilities("cap_drop", c.s.CapDrop)
	for _, name := range sortedKeys(c.s.Ulimits) {
		if !slices.Contains(limits, strings.ToLower(name)) {
			c.fail(c.at+".ulimits."+name, "there is no limit "+name, suggestion(name, limits, "see getrlimit(2)"))
		}
	}
	if sig := c.s.StopSignal; sig != "" && !signalForm().MatchString(strings.ToUpper(sig)) {
		if n, err := strconv.Atoi(sig); err != nil || n < 1 || n > 64 {
			c.failValue(c.at+".stop_signal", "there is no signal "+sig, "write SIGTERM, SIGQUIT or a number")
		}
	}
}

// refresh checks pull_refresh_after, the age of pull_policy: refresh.
func (c serviceCheck) refresh() {
	after, at := c.s.PullRefreshAfter, c.at+".pull_refresh_after"
	if after == "" {
		return
	}
	if c.s.PullPolicy != types.PullPolicyRefresh {
		c.l.add(c.l.placed(Warning, at, "pull_refresh_after has no effect", "write pull_policy: refresh with it"))
		return
	}
	timed := c.s
	timed.PullPolicy = pullPolicy(c.s)
	if _, _, err := timed.GetPullPolicy(); err != nil {
		c.failValue(at, fmt.Sprintf("pull_refresh_after %q is no duration", after), "write one such as 12h or 7d")
	}
}

// updates checks deploy.update_config and deploy.rollback_config.
func (c serviceCheck) updates() {
	if c.s.Deploy == nil {
		return
	}
	check := func(attr string, u *types.UpdateConfig) {
		if u == nil {
			return
		}
		if u.Delay < 0 {
			c.wrong(attr+".delay", fmt.Sprintf("is %s", u.Delay), "write 0s or more")
		}
		if u.Monitor < 0 {
			c.wrong(attr+".monitor", fmt.Sprintf("is %s", u.Monitor), "write 0s or more")
		}
		if r := u.MaxFailureRatio; !(r >= 0 && r <= 1) { // not a number is wrong too
			c.wrong(attr+".max_failure_ratio", fmt.Sprintf("is %v", r), "write a number from 0 to 1")
		}
	}
	check("deploy.update_config", c.s.Deploy.UpdateConfig)
	check("deploy.rollback_config", c.s.Deploy.RollbackConfig)
}

func (c serviceCheck) capabilities(attr string, names []string) {
	for i, name := range names {
		plain := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if plain != "ALL" && !slices.Contains(capabilities, plain) {
			c.failValue(fmt.Sprintf("%s.%s.%d", c.at, attr, i), "there is no capability "+name,
				suggestion(plain, capabilities, "see capabilities(7)"))
		}
	}
}

// suggestion names the nearest of known, or else what to read.
func suggestion(name string, known []string, otherwise string) string {
	keys := make(map[string]*element, len(known))
	for _, k := range known {
		keys[strings.ToLower(k)] = nil
	}
	if near := (&element{keys: keys}).suggest(name); near != "" {
		if name == strings.ToUpper(name) {
			near = strings.ToUpper(near)
		}
		return fmt.Sprintf("did you mean %q?", near)
	}
	return otherwise
}
