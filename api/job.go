package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// States of a JobRun.
const (
	RunRunning   = "running"
	RunSucceeded = "succeeded"
	RunFailed    = "failed"
)

// Job is one of the jobs of a stack.
type Job struct {
	Name     string    `json:"name"`
	Image    string    `json:"image"`
	Schedule []string  `json:"schedule,omitempty"` // cron
	Next     time.Time `json:"next,omitzero"`
	Runs     []JobRun  `json:"runs"` // the newest first
	// Trouble is why the newest fire came to no run.
	Trouble   string    `json:"trouble,omitempty"`
	TroubleAt time.Time `json:"trouble_at,omitzero"`
}

// JobRun is one run of a job.
type JobRun struct {
	Number     int       `json:"number"` // from 1
	Task       string    `json:"task"`
	State      string    `json:"state"`
	Fire       time.Time `json:"fire,omitzero"` // of the schedule; zero: by hand
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	ExitCode   int       `json:"exit_code"`
	Reason     string    `json:"reason,omitempty"`
}

// JobRunRequest runs a job by hand.
type JobRunRequest struct {
	Detach bool   `json:"detach,omitempty"` // do not wait for its end
	Actor  string `json:"actor,omitempty"`
}

// Jobs lists the jobs of a stack.
func (c *Client) Jobs(ctx context.Context, stack string) ([]Job, error) {
	return call[[]Job](ctx, c, request{method: http.MethodGet, path: stackPath(stack, "/jobs")})
}

// RunJob runs a job and yields its task when it has started and, unless
// detached, when it has ended.
func (c *Client) RunJob(ctx context.Context, stack, job string, req JobRunRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: stackPath(stack, "/jobs/"+url.PathEscape(job)+"/run"), body: req})
}
