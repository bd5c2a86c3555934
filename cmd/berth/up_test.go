package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"berth/api"
	"berth/cli"
	"berth/spec"
)

// exited is a task that ended seconds after the first one began.
func exited(service string, code, seconds int) api.Task {
	return api.Task{
		ID: fmt.Sprint(service, seconds), Service: service, State: api.TaskExited, ExitCode: code, Current: true,
		FinishedAt: time.Unix(int64(1000+seconds), 0),
	}
}

func running(service string) api.Task {
	return api.Task{ID: service, Service: service, State: api.TaskRunning, Current: true}
}

func TestJudge_WhenAttachedUpEnds(t *testing.T) {
	replaced := exited("web", 1, 1)
	replaced.Current = false
	for _, c := range []struct {
		name    string
		options upOptions
		tasks   []api.Task
		over    bool
		abort   bool // the rest is to be stopped
		code    int
	}{
		{name: "something runs", tasks: []api.Task{running("web"), exited("db", 1, 1)}},
		{name: "a restart is due", tasks: []api.Task{{Service: "web", State: api.TaskRestarting, Current: true}}},
		{name: "all has exited", tasks: []api.Task{exited("web", 3, 1), exited("db", 0, 2)}, over: true},
		{name: "what was replaced does not count", options: upOptions{abortOnExit: true}, tasks: []api.Task{running("web"), replaced}},
		{name: "a stranger does not count", options: upOptions{abortOnExit: true}, tasks: []api.Task{running("web"), exited("stranger", 1, 1)}},
		{name: "abort on exit", options: upOptions{abortOnExit: true}, tasks: []api.Task{running("web"), exited("db", 0, 1)}, over: true, abort: true},
		{name: "abort on exit: the first one's code", options: upOptions{abortOnExit: true}, tasks: []api.Task{exited("web", 4, 2), exited("db", 5, 1)}, over: true, code: 5},
		{name: "abort on failure: success goes on", options: upOptions{abortOnFailure: true}, tasks: []api.Task{running("web"), exited("db", 0, 1)}},
		{name: "abort on failure", options: upOptions{abortOnFailure: true}, tasks: []api.Task{running("web"), exited("db", 2, 1)}, over: true, abort: true, code: 2},
		{name: "code from: another's success goes on", options: upOptions{abortOnExit: true, exitCodeFrom: "web"}, tasks: []api.Task{running("web"), exited("db", 0, 1)}},
		{name: "code from: it exits", options: upOptions{abortOnExit: true, exitCodeFrom: "web"}, tasks: []api.Task{exited("web", 7, 2), running("db")}, over: true, abort: true, code: 7},
		{name: "code from: both have exited", options: upOptions{abortOnExit: true, exitCodeFrom: "web"}, tasks: []api.Task{exited("web", 7, 2), exited("db", 1, 1)}, over: true, code: 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &rollout{options: c.options, request: api.ApplyRequest{Stack: spec.Stack{
				Services: map[string]spec.Service{"web": {}, "db": {}},
			}}}
			end, over := r.judge(api.StackStatus{Tasks: c.tasks})
			code := 0
			var e exit
			if errors.As(end.err, &e) {
				code = e.code
			}
			if over != c.over || end.abort != c.abort || code != c.code {
				t.Errorf("over %v, abort %v, code %d; want %v, %v, %d", over, end.abort, code, c.over, c.abort, c.code)
			}
		})
	}
}

func TestAttachable_WhoseLogsAreFollowed(t *testing.T) {
	no := false
	services := map[string]spec.Service{"web": {}, "db": {}, "quiet": {Attach: &no}}
	for _, c := range []struct {
		name    string
		named   []string
		options upOptions
		want    []string
	}{
		{"all but attach: false", nil, upOptions{}, []string{"db", "web"}},
		{"only what is named", []string{"web"}, upOptions{}, []string{"web"}},
		{"with dependencies", []string{"web"}, upOptions{attachDependencies: true}, []string{"db", "web"}},
		{"--attach wins over attach: false", nil, upOptions{attach: []string{"quiet"}}, []string{"quiet"}},
		{"--no-attach", nil, upOptions{noAttach: []string{"db"}}, []string{"web"}},
	} {
		r := &rollout{named: c.named, options: c.options, request: api.ApplyRequest{Stack: spec.Stack{Services: services}}}
		if got := r.attachable(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestUpOptions_Contradictions_AreRefused(t *testing.T) {
	for _, o := range []upOptions{
		{forceRecreate: true, noRecreate: true},
		{wait: true, noWait: true},
		{noWait: true, waitTimeout: 5},
		{detach: true, abortOnExit: true},
		{wait: true, exitCodeFrom: "web"},
		{detach: true, attach: []string{"web"}},
		{abortOnExit: true, abortOnFailure: true},
		{noStart: true, abortOnExit: true},
		{pull: "sometimes"},
	} {
		if o.check() == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	o := upOptions{exitCodeFrom: "web"}
	if err := o.check(); err != nil || !o.abortOnExit || o.detach {
		t.Errorf("--exit-code-from: %+v, %v", o, err)
	}
	for _, o := range []upOptions{{wait: true}, {noWait: true}, {noStart: true}} {
		if err := o.check(); err != nil || !o.detach {
			t.Errorf("%+v does not detach (%v)", o, err)
		}
	}
}

func TestReport_ErrorsAndTheirExitCodes(t *testing.T) {
	cancelled, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("interrupt signal received"))
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		code int
		text string
	}{
		{"done", nil, nil, exitDone, ""},
		{"plain", nil, errors.New("no such file"), exitError, "error: no such file\n"},
		{"said already", nil, exit{code: exitChanges}, exitChanges, ""},
		{"rolled back", nil, outcome(api.Done{Outcome: api.OutcomeRolledBack, Detail: "boom\nrolled back", Hint: "look"}), exitRolledBack, "error: boom\nrolled back\nhint: look\n"},
		{"not ready", nil, outcome(api.Done{Outcome: api.OutcomeNotReady}), exitNotReady, "error: not ready in time\n"},
		{"failed", nil, outcome(api.Done{Outcome: api.OutcomeFailed}), exitError, "error: failed\n"},
		{"the agent's hint", nil, fmt.Errorf("plan: %w", &api.Error{Detail: "taken", Hint: "stop it"}), exitError, "error: plan: taken\nhint: stop it\n"},
		{"escape codes of others", nil, &api.Error{Detail: "bad \x1b[2J", Hint: "x\x07"}, exitError, "error: bad \\x1b[2J\nhint: x\\x07\n"},
		{"needs root", nil, cli.ErrNeedsRoot, exitError, "error: " + cli.ErrNeedsRoot.Error() + "\nhint: sudo berth …, or have root run `berth install --now` once\n"},
		{"interrupted", cancelled, context.Cause(cancelled), exitInterrupted, ""},
		{"failed, then interrupted", cancelled, errors.New("disk full"), exitError, "error: disk full\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			var stderr bytes.Buffer
			a := &app{stderr: &stderr}
			if code := a.report(ctx, c.err); code != c.code || stderr.String() != c.text {
				t.Errorf("exit %d, %q; want %d, %q", code, stderr.String(), c.code, c.text)
			}
		})
	}
}
