package reconciler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"berth/spec"
)

// Back-off of restarts: 100 ms, doubling with each failure in a row, at most
// a minute; forgotten once a task has run for 10 s. As Docker's restart
// manager does, so that restart policies mean what users know.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = time.Minute
	backoffReset = 10 * time.Second
)

func backoff(failures int) time.Duration {
	d := backoffFirst
	for range failures {
		if d *= 2; d >= backoffMost {
			return backoffMost
		}
	}
	return d
}

// verdict on an exited task: what its slot does next.
type verdict int

const (
	restart   verdict = iota // a new task at `at`
	completed                // it did what it was for
	failed                   // it stays down
)

// judge decides what follows the exit of the newest, current task t of s.
func judge(s *Service, t *Task) (v verdict, at time.Time, why string) {
	switch {
	case t.Lost:
		return restart, t.FinishedAt, t.Reason
	case t.Retry:
		return restart, t.FinishedAt, "another try"
	case t.Unstartable:
		return failed, at, exitReason(t)
	case !t.StopAt.IsZero() && !t.Unhealthy:
		return restart, t.FinishedAt, "started again"
	case !t.KilledAt.IsZero() && t.ExitCode != 0 && !t.Unhealthy:
		return restart, t.FinishedAt, "killed"
	}
	ok := t.ExitCode == 0 && t.Reason == "" && !t.Unhealthy
	condition := s.Restart.Condition
	if s.OneShot && condition == spec.RestartDefault {
		condition = spec.RestartNo
	}
	switch condition {
	case spec.RestartAlways, spec.RestartUnlessStopped:
		if s.OneShot && ok {
			return completed, at, ""
		}
	case spec.RestartNo:
		if ok {
			return completed, at, ""
		}
		return failed, at, exitReason(t)
	default: // on-failure, silent
		if ok {
			return completed, at, ""
		}
	}
	if n := s.Restart.MaxAttempts; n > 0 && len(within(t.Restarted, s.Restart.Window, t.FinishedAt)) >= n {
		return failed, at, fmt.Sprintf("%s, %d restarts did not help", exitReason(t), n)
	}
	delay := s.Restart.Delay
	if delay == 0 {
		delay = backoff(failures(s, t) - 1)
	}
	return restart, t.FinishedAt.Add(delay), exitReason(t)
}

// within leaves the restarts of the last window; without one all of them.
func within(restarts []time.Time, window time.Duration, now time.Time) []time.Time {
	if window == 0 {
		return restarts
	}
	i := slices.IndexFunc(restarts, func(at time.Time) bool { return now.Sub(at) < window })
	if i < 0 {
		return nil
	}
	return restarts[i:]
}

// restarted is the history of the successor of t: the restarts that count for
// max_attempts, as many as it allows. A restart that the user asked for begins
// a new one; one that the machine caused does not count.
func restarted(s *Service, t *Task, now time.Time) []time.Time {
	n := s.Restart.MaxAttempts
	switch {
	case n == 0, t.Retry, !t.StopAt.IsZero() && !t.Unhealthy:
		return nil
	case t.Lost:
		return t.Restarted
	}
	out := append(slices.Clone(within(t.Restarted, s.Restart.Window, now)), now)
	return out[max(0, len(out)-n):]
}

// settle is how long a task without a healthcheck must be up to count as ready
// once its predecessor has failed: a program that dies at once is never ready.
const settle = 3 * time.Second

// ready says whether t may take traffic at now; if only time is missing, until
// tells when.
func ready(t *Task, now time.Time) (ok bool, until time.Time) {
	if !t.Ready || t.Checked || t.Failures == 0 {
		return t.Ready, until
	}
	until = t.StartedAt.Add(settle)
	return !now.Before(until), until
}

// failures is the count for the successor of t.
func failures(s *Service, t *Task) int {
	if t.Lost || t.Retry || !t.StopAt.IsZero() && !t.Unhealthy {
		return 0
	}
	// restart_policy.window is how long a task must run for its start to
	// have been a success.
	if !t.StartedAt.IsZero() && t.FinishedAt.Sub(t.StartedAt) >= cmp.Or(s.Restart.Window, backoffReset) {
		return 0
	}
	return t.Failures + 1
}

// exitReason says in one line how t ended.
func exitReason(t *Task) string {
	reason := t.Reason
	if t.Unhealthy && reason == "" {
		return "was unhealthy"
	}
	if reason == "" {
		reason = fmt.Sprintf("exited %d after %s", t.ExitCode, seconds(t.FinishedAt.Sub(t.StartedAt)))
	}
	if t.LastLine != "" {
		reason += fmt.Sprintf(": %q", t.LastLine)
	}
	return reason
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// connections counts what is known; less than 0 is not counted yet.
func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", max(n, 0))
}

// seconds prints a duration for people: 0.4 s, 12 s, 1h2m0s.
func seconds(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 9950*time.Millisecond: // above, one digit would say 10.0
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
