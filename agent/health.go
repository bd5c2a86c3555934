package agent

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"berth/spec"
	"berth/store"
)

// States of a health test, as Docker names them.
const (
	starting  = "starting"
	healthy   = "healthy"
	unhealthy = "unhealthy"
)

// check is a test with every default filled in.
type check struct {
	which   test
	subject string // names it in a line
	// args are run in the container; nil: probe is asked over the network.
	args  []string
	probe *spec.Probe

	interval    time.Duration
	timeout     time.Duration
	delay       time.Duration // from the start to the first probe
	startPeriod time.Duration
	retries     int // failures in a row until it fails
	successes   int // in a row until it passes
	// gate says that it only decides on traffic: to fail before the first
	// success means no more than not to have passed yet.
	gate bool
}

// Defaults of a healthcheck (Compose specification, healthcheck).
const (
	defaultInterval = 30 * time.Second
	defaultTimeout  = 30 * time.Second
	defaultRetries  = 3
)

// eager is the time between probes until the first success: a task that is
// ready should not wait out an interval of 30 s to be told so.
const eager = time.Second

// check gives a test of t; nil: it has none.
func (a *Agent) check(t *store.Task, which test) *check {
	switch which {
	case readinessTest:
		return probeCheck(t.Spec.Readiness, which)
	case livenessTest:
		return probeCheck(t.Spec.Liveness, which)
	}
	return a.healthcheck(t)
}

func probeCheck(p *spec.Probe, which test) *check {
	if p == nil {
		return nil
	}
	return &check{
		which: which, subject: string(which) + " " + subject(p), args: p.Exec, probe: p,
		interval: p.Interval, timeout: p.Timeout, delay: p.InitialDelay, startPeriod: p.InitialDelay,
		retries: p.Failures, successes: p.Successes, gate: which == readinessTest,
	}
}

// healthcheck merges the service's test over the image's; nil: none.
func (a *Agent) healthcheck(t *store.Task) *check {
	s := t.Spec.Healthcheck
	if s != nil && s.Disable {
		return nil
	}
	img, err := a.images.Resolve(t.Digest)
	if err != nil {
		return nil
	}
	h := v1.HealthConfig{}
	if img.Config.Healthcheck != nil {
		h = *img.Config.Healthcheck
	}
	if s != nil {
		if len(s.Test) > 0 {
			h.Test = s.Test
		}
		h.Interval = either(s.Interval, h.Interval)
		h.Timeout = either(s.Timeout, h.Timeout)
		h.StartPeriod = either(s.StartPeriod, h.StartPeriod)
		h.Retries = either(s.Retries, h.Retries)
	}
	if len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil
	}
	c := &check{
		which: healthTest, subject: "its health test", successes: 1,
		interval: either(h.Interval, defaultInterval), timeout: either(h.Timeout, defaultTimeout),
		startPeriod: h.StartPeriod, retries: either(h.Retries, defaultRetries),
	}
	switch h.Test[0] {
	case "CMD":
		c.args = h.Test[1:]
	case "CMD-SHELL":
		if len(h.Test) > 1 {
			c.args = []string{"/bin/sh", "-c", h.Test[1]}
		}
	default:
		c.args = h.Test
	}
	if len(c.args) == 0 {
		return nil
	}
	return c
}

func either[T comparable](v, otherwise T) T {
	var zero T
	if v != zero {
		return v
	}
	return otherwise
}

// verdict follows the results of a test: healthy after `successes` in a row,
// unhealthy after `retries` failures in a row. Until its first success failures
// only count once the start period and as many intervals have passed, so that
// being eager never makes a slow start unhealthy sooner than the file allows.
type verdict struct {
	state               string
	failures, successes int // in a row
	started             time.Time
	passed              bool // ever
}

func (v *verdict) add(ok bool, now time.Time, c *check) {
	if ok {
		v.failures = 0
		if v.successes++; v.successes >= c.successes {
			v.state, v.passed = healthy, true
		}
		return
	}
	v.successes = 0
	v.failures++
	limit := v.started.Add(c.startPeriod + time.Duration(c.retries)*c.interval)
	if v.failures < c.retries || v.state == starting && !c.gate && now.Before(limit) {
		return
	}
	v.state = unhealthy
}

// next is the time until the next probe. A fresh task is asked often: what it
// is watched for before it takes traffic is whether it stays well.
func (v *verdict) next(c *check, fresh bool) time.Duration {
	if v.state == starting || fresh || c.gate && !v.passed {
		return min(eager, c.interval)
	}
	return c.interval
}
