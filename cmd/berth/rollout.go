package main

import (
	"context"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newRollout(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Watch, pause, resume and undo the rollout of a stack",
		Long: `A rollout is the passage of a stack from one revision to the next: it
begins with up and ends when every service that changed is ready and was
watched for as long as its update_config says. After a failure it goes
back to the last stable revision, or pauses, as update_config says. The
agent carries it out, whether anybody watches or not.` + exitStatus(),
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRolloutStatus(a), newRolloutPause(a), newRolloutResume(a), newRolloutUndo(a))
	return cmd
}

type statusOptions struct {
	watch  bool
	format string
}

func newRolloutStatus(a *app) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how far the newest rollout is",
		Long: `Show the state of the newest rollout: since when, by whom and, if it
paused or went back, why. Then, per service, how many tasks are updated
(of the new version), ready (take traffic), available (ready, and
watched to the end) and old, and what it waits for.

With --watch show it as it goes on, until it ends; a paused one may go
on yet.

With --format json it prints one object, with --watch one a line for
each change: stack, revision, from, state, reason, started_at, ended_at,
actor, canary and services. The states are progressing, canary, paused,
complete, rolling_back, rollback_paused and rolled_back.` + exitStatus("4    with --watch: it was rolled back"),
		Example: `  berth rollout status
  berth -p shop rollout status --watch`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.rolloutStatus(cmd.Context(), o) },
	}
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on until it ends")
	cmd.Flags().StringVar(&o.format, "format", formatText, "`FORMAT`: text or json")
	return cmd
}

func (a *app) rolloutStatus(ctx context.Context, o statusOptions) error {
	if err := checkFormat(o.format, formatText, formatJSON); err != nil {
		return err
	}
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	if o.watch {
		return a.watchRollout(ctx, client, name, o.format)
	}
	r, err := client.Rollout(ctx, name)
	if err != nil {
		return err
	}
	if o.format == formatJSON {
		return cli.WriteJSON(a.stdout, r)
	}
	return cli.WriteRollout(a.out(), r, time.Now())
}

// watchEvery is the time between two looks at a rollout.
const watchEvery = 250 * time.Millisecond

// watchRollout shows a rollout until it ends. A newer one that supersedes it
// is watched in its place.
func (a *app) watchRollout(ctx context.Context, client *api.Client, stack, format string) error {
	mode := a.global.progress
	if format == formatJSON {
		mode = cli.ProgressQuiet
	}
	progress, err := cli.NewProgress(a.out(), mode)
	if err != nil {
		return err
	}
	defer progress.Close()
	var last api.Rollout
	for {
		r, err := client.Rollout(ctx, stack)
		if err != nil {
			return err
		}
		switch {
		case format != formatJSON:
			handleRollout(progress, last, r)
		case !sameRollout(last, r):
			if err := cli.WriteJSONLine(a.stdout, r); err != nil {
				return err
			}
		}
		last = r
		switch {
		case r.State == api.RolloutComplete, r.State == api.RolloutRolledBack && r.Failed == 0:
			return nil
		case r.State == api.RolloutRolledBack:
			progress.Close()
			return outcome(api.Done{Outcome: api.OutcomeRolledBack, Detail: r.Reason, Hint: "`berth history` lists what there is to go back to"})
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(watchEvery):
		}
	}
}

// sameRollout says that two looks at a rollout differ at most in the time that
// passed.
func sameRollout(x, y api.Rollout) bool {
	timeless := func(r api.Rollout) api.Rollout {
		r.Services = slices.Clone(r.Services)
		for i := range r.Services {
			r.Services[i].Elapsed = 0
		}
		return r
	}
	return reflect.DeepEqual(timeless(x), timeless(y))
}

// handleRollout tells progress of a rollout as the stream of an up would.
func handleRollout(progress cli.Progress, last, r api.Rollout) {
	news := r.State != last.State || r.Reason != last.Reason
	if news && r.State != api.RolloutProgressing && r.State != api.RolloutRolledBack {
		text := cli.RolloutState(r.State)
		if r.Reason != "" {
			text += ": " + r.Reason
		}
		progress.Handle(api.Progress{Message: text})
	}
	if r.Revision != last.Revision {
		progress.Handle(api.Progress{Applied: &api.Applied{Stack: r.Stack, Revision: r.Revision, Changed: true}})
	}
	for i := range r.Services {
		progress.Handle(api.Progress{Service: &r.Services[i]})
	}
}

func newRolloutPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "pause",
		Short: "Replace no further tasks",
		Long: `Pause the rollout that is under way: tasks that are being replaced are
replaced to the end, no further ones are begun. Old and new tasks share
the traffic until it is resumed or undone.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.actOnRollout(cmd.Context(), api.RolloutRequest{Action: api.RolloutPause})
		},
	}
}

func newRolloutResume(a *app) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Go on with a paused rollout",
		Long: `Go on with a rollout that paused, by pause or by a failure; failures
before now do not count any more. Wait until it ends, as up does.` + exitStatus(
			"3    not ready in time, or paused again",
			"4    it failed and was rolled back"),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.actOnRollout(cmd.Context(), api.RolloutRequest{Action: api.RolloutResume, Wait: !noWait})
		},
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func newRolloutUndo(a *app) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "undo",
		Short: "Go back to the last stable revision",
		Long: `Give the rollout up and go back to the last stable revision, whole: every
service that the rollout touched. Wait until that serves. To go back
after a rollout has ended is rollback.` + exitStatus("3    what it goes back to is not ready in time"),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.actOnRollout(cmd.Context(), api.RolloutRequest{Action: api.RolloutUndo, Wait: !noWait})
		},
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func noWaitFlag(cmd *cobra.Command, noWait *bool) {
	cmd.Flags().BoolVar(noWait, "no-wait", false, "return as soon as the agent knows")
}

func (a *app) actOnRollout(ctx context.Context, req api.RolloutRequest) error {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	return a.rollOn(ctx, client, name, req)
}

// rollOn acts on a rollout. To have gone back is what undo and abort ask for.
func (a *app) rollOn(ctx context.Context, client *api.Client, stack string, req api.RolloutRequest) error {
	req.Actor = actor()
	done, err := a.rolled(ctx, client.ActOnRollout(ctx, stack, req))
	if err != nil {
		return err
	}
	back := req.Action == api.RolloutUndo || req.Action == api.RolloutAbort
	paused := req.Action == api.RolloutPause
	if done.Outcome == api.OutcomeRolledBack && back || done.Outcome == api.OutcomePaused && paused {
		done.Outcome = api.OutcomeDone
	}
	return a.over(done)
}

// rolled shows a rollout to its end. An interrupt detaches from it.
func (a *app) rolled(ctx context.Context, stream iter.Seq2[api.Progress, error]) (api.Done, error) {
	done, err := a.show(stream)
	if interruptedBy(ctx, err) {
		fmt.Fprintln(a.stderr, "the rollout goes on; `berth rollout status --watch` follows it")
		return done, exit{code: exitInterrupted}
	}
	return done, err
}

// carryRollout is rolled for work that either is done or is an error.
func (a *app) carryRollout(ctx context.Context, stream iter.Seq2[api.Progress, error]) error {
	done, err := a.rolled(ctx, stream)
	if err != nil {
		return err
	}
	return a.over(done)
}
