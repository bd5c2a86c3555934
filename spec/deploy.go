package spec

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Modes of deploy.mode. A global service has one task on each node that fits;
// a job's tasks run to their end once, and again when the job changes.
const (
	ModeReplicated    = ""
	ModeGlobal        = "global"
	ModeReplicatedJob = "replicated-job"
	ModeGlobalJob     = "global-job"
)

// Global says that the number of tasks follows the nodes, not replicas.
func (s *Service) Global() bool { return s.Mode == ModeGlobal || s.Mode == ModeGlobalJob }

// IsJob says that deploy.mode makes s a job.
func (s *Service) IsJob() bool { return s.Mode == ModeReplicatedJob || s.Mode == ModeGlobalJob }

// deploy fills what `deploy` says beside limits and restarts in.
func (l *loading) deploy(out *Service, d *types.DeployConfig) {
	at := "services." + out.Name + ".deploy"
	if d.Mode != "replicated" {
		out.Mode = d.Mode
	}
	if d.EndpointMode != "vip" {
		out.EndpointMode = d.EndpointMode
	}
	out.Update = l.updateConfig(at+".update_config", d.UpdateConfig, "rollback", "pause", "continue")
	out.Rollback = l.updateConfig(at+".rollback_config", d.RollbackConfig, "pause", "continue")
	out.DeployLabels = filled(d.Labels)
	out.Constraints = list(d.Placement.Constraints)
	out.MaxPerNode = int(min(d.Placement.MaxReplicas, math.MaxInt32))
	if out.Global() {
		out.Replicas = 1
	}
	if out.IsJob() {
		out.OneShot = true
		if out.Restart.Condition == RestartDefault {
			out.Restart.Condition = RestartOnFailure
		}
	}
}

// placement checks deploy.mode and deploy.placement.
func (c serviceCheck) placement() {
	d := c.s.Deploy
	if d == nil {
		return
	}
	at := c.at + ".deploy"
	switch d.Mode {
	case "", "replicated", ModeReplicatedJob:
	case ModeGlobal, ModeGlobalJob:
		if d.Replicas != nil && c.l.wrote(at+".replicas") {
			c.l.add(c.l.placed(Ignored, at+".replicas", "deploy.replicas is not honoured: mode "+d.Mode+" runs one task on each node",
				"remove it, or the mode"))
		}
	default:
		c.failValue(at+".mode", fmt.Sprintf("deploy.mode %q is unknown", d.Mode),
			"write replicated, global, replicated-job or global-job")
	}
	job := d.Mode == ModeReplicatedJob || d.Mode == ModeGlobalJob
	if job && d.RestartPolicy != nil && (d.RestartPolicy.Condition == "any" || d.RestartPolicy.Condition == "") ||
		job && d.RestartPolicy == nil && (c.s.Restart == RestartAlways || c.s.Restart == RestartUnlessStopped) {
		c.l.add(c.l.placed(Warning, at+".mode", "a job is restarted only while it fails: its restart policy counts as on-failure",
			"write deploy.restart_policy.condition: on-failure, or none"))
	}
	for i, text := range d.Placement.Constraints {
		if _, err := ParseConstraint(text); err != nil {
			c.failValue(fmt.Sprintf("%s.placement.constraints.%d", at, i), err.Error(), constraintHint)
		}
	}
	for i, p := range d.Placement.Preferences {
		key := Constraint{Key: p.Spread}
		if _, ok := key.label(); !ok && p.Spread != "" {
			c.failAtUp(fmt.Sprintf("%s.placement.preferences.%d", at, i), "preference spread: "+strconv.Quote(p.Spread)+" is not a label of a node",
				"write spread: node.labels.NAME")
		}
	}
	if p := d.RestartPolicy; p != nil {
		switch strings.ToLower(p.Condition) {
		case "", "any", "none", "on-failure":
		case RestartAlways, RestartUnlessStopped, RestartNo:
			c.l.add(c.l.placed(Warning, at+".restart_policy.condition", "restart_policy.condition "+p.Condition+" is a word of restart",
				"write any, on-failure or none"))
		default:
			c.failValue(at+".restart_policy.condition", fmt.Sprintf("restart_policy.condition %q is unknown", p.Condition),
				"write any, on-failure or none")
		}
		if p.Delay != nil && *p.Delay < 0 || p.Window != nil && *p.Window < 0 {
			c.fail(at+".restart_policy", "a time of restart_policy is less than 0", "write 0s or more")
		}
	}
}
