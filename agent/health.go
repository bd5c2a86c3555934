package agent

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"berth/store"
)

// States of a health test, as Docker names them.
const (
	starting  = "starting"
	healthy   = "healthy"
	unhealthy = "unhealthy"
)

// check is a health test with every default filled in.
type check struct {
	args        []string
	interval    time.Duration
	timeout     time.Duration
	startPeriod time.Duration
	retries     int
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

// healthcheck merges the service's test over the image's; nil: none.
func (a *Agent) healthcheck(t *store.Task) *check {
	img, err := a.images.Resolve(t.Digest)
	if err != nil {
		return nil
	}
	s := t.Spec.Healthcheck
	if _, r := a.w.stack(t.Stack); r != nil {
		// The newest settings apply to running tasks: the field is in place.
		if svc, ok := r.Stack.Services[t.Service]; ok {
			s = svc.Healthcheck
		}
	}
	h := v1.HealthConfig{}
	if img.Config.Healthcheck != nil {
		h = *img.Config.Healthcheck
	}
	if s != nil {
		if s.Disable {
			return nil
		}
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

// verdict follows the results of a health test. A task is healthy after one
// success. It is unhealthy after `retries` failures in a row; until its first
// success the failures of the eager probes only count once the start period
// and as many intervals have passed, so that being eager never makes a slow
// start unhealthy sooner than the file allows.
type verdict struct {
	state    string
	failures int
	started  time.Time
}

func (v *verdict) add(ok bool, now time.Time, c *check) {
	switch {
	case ok:
		v.state, v.failures = healthy, 0
	case v.state == starting:
		v.failures++
		limit := c.startPeriod + time.Duration(c.retries)*c.interval
		if v.failures >= c.retries && now.Sub(v.started) >= limit {
			v.state = unhealthy
		}
	default:
		if v.failures++; v.failures >= c.retries {
			v.state = unhealthy
		}
	}
}

// next is the time until the next probe.
func (v *verdict) next(c *check) time.Duration {
	if v.state == starting {
		return min(eager, c.interval)
	}
	return c.interval
}
