package images

import (
	"sync/atomic"
	"time"
)

// States of a layer, in the order they come.
const (
	statusWaiting     = "waiting"
	statusDownloading = "downloading"
	statusUnpacking   = "unpacking"
	statusExists      = "exists"
	statusDone        = "done"
)

const progressEvery = 100 * time.Millisecond

// progress of a layer: written by the one job that fetches it, read by all
// pulls that wait for it.
type progress struct {
	unpacking atomic.Bool
	started   atomic.Bool
	current   atomic.Int64
}

func (p *progress) status() string {
	switch {
	case p.unpacking.Load():
		return statusUnpacking
	case p.started.Load():
		return statusDownloading
	}
	return statusWaiting
}

// reporter tells one caller about one pull.
type reporter struct {
	ref string
	to  func(Progress)
}

func (r reporter) image(status string) {
	if r.to != nil {
		r.to(Progress{Reference: r.ref, Status: status})
	}
}

func (r reporter) layer(digest, status string, current, total int64) {
	if r.to != nil {
		r.to(Progress{Reference: r.ref, Layer: short(digest), Status: status, Current: current, Total: total})
	}
}
