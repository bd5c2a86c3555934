package cli

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"berth/api"
)

// board is the state that a stream of Progress has told so far. The plain and
// the live renderer both read it.
type board struct {
	title    string
	services []*serviceRow
	pulls    []*pullRow
}

// serviceRow is a service with the time of its last news, from which the
// live renderer counts on.
type serviceRow struct {
	api.ServiceStatus
	heard time.Time
}

// pullRow is an image being pulled.
type pullRow struct {
	reference string
	status    string // of the whole image, once known
	layers    []*api.PullProgress
	began     time.Time
	ended     time.Time
}

func (b *board) service(s api.ServiceStatus, now time.Time) *serviceRow {
	for _, row := range b.services {
		if row.Service == s.Service {
			row.ServiceStatus, row.heard = s, now
			return row
		}
	}
	row := &serviceRow{ServiceStatus: s, heard: now}
	b.services = append(b.services, row)
	return row
}

func (b *board) pull(p api.PullProgress, now time.Time) *pullRow {
	var row *pullRow
	for _, r := range b.pulls {
		if r.reference == p.Reference {
			row = r
		}
	}
	if row == nil {
		row = &pullRow{reference: p.Reference, began: now}
		b.pulls = append(b.pulls, row)
	}
	if p.Layer == "" {
		row.status = p.Status
		if row.over() && row.ended.IsZero() {
			row.ended = now
		}
		return row
	}
	for _, l := range row.layers {
		if l.Layer == p.Layer {
			if p.Total == 0 {
				p.Total = l.Total // a finished layer no longer says how large it was
			}
			*l = p
			return row
		}
	}
	row.layers = append(row.layers, &p)
	return row
}

// over says that the pull has ended.
func (r *pullRow) over() bool { return r.status == "done" || r.status == "exists" }

// text says how far the pull is.
func (r *pullRow) text() string {
	var current, total int64
	ready := 0
	for _, l := range r.layers {
		total += l.Total
		switch l.Status {
		case "done":
			current += l.Total
			ready++
		case "exists":
			ready++
		case "unpacking":
			current += l.Total
		default:
			current += l.Current
		}
	}
	switch {
	case r.status == "exists":
		return "is here already"
	case r.over() && total == 0:
		return "pulled in " + seconds(r.ended.Sub(r.began))
	case r.over():
		return fmt.Sprintf("pulled, %s in %s", size(total), seconds(r.ended.Sub(r.began)))
	case len(r.layers) == 0:
		return "pulling"
	}
	return fmt.Sprintf("pulling, %s of %s, %d of %d layers", size(current), size(total), ready, len(r.layers))
}

// active are the layers that are being fetched or unpacked.
func (r *pullRow) active() []*api.PullProgress {
	var active []*api.PullProgress
	for _, l := range r.layers {
		if l.Status == "downloading" || l.Status == "unpacking" {
			active = append(active, l)
		}
	}
	return active
}

// settled says that nothing more is expected of the service.
func (r *serviceRow) settled() bool {
	switch r.Phase {
	case api.PhaseReady:
		return r.Old == 0 && r.Updated >= r.Replicas && r.Reason == "" // as "is watched for 9 s"
	case api.PhaseCompleted, api.PhaseFailed, api.PhaseStopped, api.PhaseRemoved:
		return true
	}
	return false
}

// untouched says that the rollout had nothing to do for the service: of fifty
// services nobody wants to read forty-nine that are as they were.
func (r *serviceRow) untouched() bool { return r.Change == "unchanged" && r.settled() }

// counts say how many tasks are new, ready, available and old; what goes
// without saying is left out.
func (r *serviceRow) counts() string {
	text := fmt.Sprintf("%d of %d ready", r.Ready, r.Replicas)
	if r.Old > 0 || r.Change == "replaced" {
		text = fmt.Sprintf("%d of %d new, %d ready", r.Updated, r.Replicas, r.Ready)
	}
	if r.Available > 0 && r.Available < r.Ready {
		text += fmt.Sprintf(", %d available", r.Available)
	}
	if r.Old > 0 {
		text += fmt.Sprintf(", %d old", r.Old)
	}
	return text
}

// counting says that the line of the service is counts and a reason, which
// then stand in columns.
func (r *serviceRow) counting() bool {
	switch r.Phase {
	case api.PhaseStarting:
		return true
	case api.PhaseReady:
		return !r.settled()
	case api.PhaseStopping: // the old tasks of a service that goes on
		return r.Updated > 0
	}
	return false
}

// text is what the service's line says, without how long it took, and the
// style of it.
func (r *serviceRow) text() (string, Style) {
	reason := Escape(r.Reason)
	if r.counting() {
		return joinReason(r.counts(), reason), Plain
	}
	switch r.Phase {
	case api.PhaseWaiting:
		if reason == "" {
			return "waiting", Dim
		}
		return reason, Dim
	case api.PhaseReady:
		if r.Change == "" {
			return "✓ ready", Good
		}
		return "✓ " + Escape(r.Change), Good
	case api.PhaseCompleted:
		return "✓ completed", Good
	case api.PhaseFailing, api.PhaseFailed:
		return joinReason("✗ "+r.Phase, reason), Bad
	}
	switch {
	case r.Phase == api.PhaseRemoved:
		return "removed", Dim
	case strings.HasPrefix(reason, r.Phase):
		return reason, Dim // "stopped: stopped in 2 s" would say it twice
	}
	return joinReason(Escape(r.Phase), reason), Dim
}

// line is text with the time: what it took, or has taken so far. Counts are
// padded to columns, behind which the reason stands.
func (r *serviceRow) line(now time.Time, columns int) (string, Style) {
	moved := *r
	if !r.settled() {
		moved.Reason = countDown(r.Reason, now.Sub(r.heard))
	}
	text, style := moved.text()
	if r.counting() && r.Reason != "" {
		text = pad(r.counts(), columns) + "  " + Escape(moved.Reason)
	}
	switch {
	case r.Elapsed <= 0, r.Change == "unchanged":
	case r.settled():
		text += " in " + seconds(r.Elapsed)
	case now.Sub(r.heard)+r.Elapsed >= time.Second:
		text += "  " + seconds((now.Sub(r.heard) + r.Elapsed).Truncate(time.Second))
	}
	return text, style
}

// remaining is a time that runs out, at the end of a reason.
var remaining = regexp.MustCompile(`( (?:in|for)|,) ([0-9.]+) s( left)?$`)

// countDown is a reason when some time has passed since it was heard.
func countDown(reason string, passed time.Duration) string {
	m := remaining.FindStringSubmatchIndex(reason)
	if m == nil || passed < time.Second {
		return reason
	}
	n, err := strconv.ParseFloat(reason[m[4]:m[5]], 64)
	if err != nil {
		return reason
	}
	left := max(n-passed.Seconds(), 0)
	return fmt.Sprintf("%s %.0f s%s", reason[:m[3]], left, reason[m[5]+len(" s"):])
}

// seconds is a short time span: "1.9 s", "2 min 5 s".
func seconds(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		if d%time.Second == 0 {
			return fmt.Sprintf("%d s", d/time.Second)
		}
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// size is a number of bytes: "56.2MB".
func size(n int64) string { return units.HumanSize(float64(n)) }
