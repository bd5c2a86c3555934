package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/api"
	"berth/cli"
	"berth/spec"
)

type upOptions struct {
	detach, wait, noWait        bool
	waitTimeout                 int
	forceRecreate, noRecreate   bool
	noStart, removeOrphans      bool
	build, noBuild              bool
	renewVolumes, noDeps        bool
	quietPull                   bool
	pull                        string
	scale                       []string
	timeout                     *time.Duration
	attach, noAttach            []string
	attachDependencies          bool
	noPrefix, noColour, stamped bool
	abortOnExit, abortOnFailure bool
	exitCodeFrom                string
	watch                       bool
	expectRevision              uint64
	planFile                    string
}

func newUp(a *app) *cobra.Command {
	var o upOptions
	var timeout int
	cmd := &cobra.Command{
		Use:   "up [SERVICE...]",
		Short: "Make the machine match the Compose file",
		Long: `Create what the Compose file has and the machine has not, replace what
changed, and wait until every service is ready or has completed. A new
task is started and ready before the old one is drained and stopped. If
a service does not become ready, the whole stack goes back to the last
revision that was stable.

Then follow the logs, until Ctrl-C stops the stack (a second Ctrl-C
kills it) or everything has exited. With --detach return instead; Ctrl-C
while waiting then leaves the rollout to the agent.

With services named, only they and what they depend on are changed.

With --plan the Compose file is not looked at: what berth plan --out
wrote is carried out, exactly that. If the agent would do anything else
by now, nothing is done and what moved is told.` + exitStatus(
			"3    not ready in time, and the rollout goes on; or it has paused",
			"4    the new revision failed and was rolled back",
			"N    with --exit-code-from or --abort-on-container-exit: the code of",
			"     that container"),
		Example: `  berth up -d
  berth up -d --wait-timeout 60
  berth plan --out plan.json; berth up -d --plan plan.json
  berth up --exit-code-from tests`,
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.timeout = timeoutFlag(cmd, timeout)
			if err := o.check(); err != nil {
				return err
			}
			if o.planFile != "" {
				if err := a.checkPlanned(cmd, args); err != nil {
					return err
				}
			}
			return a.up(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.detach, "detach", "d", false, "return when the services are ready")
	f.BoolVar(&o.wait, "wait", false, "the same as --detach, which waits already")
	f.BoolVar(&o.noWait, "no-wait", false, "return as soon as the agent has the new revision; implies --detach")
	f.IntVar(&o.waitTimeout, "wait-timeout", 0, "`SECONDS` to wait at most (default: as long as the agent's deadlines allow)")
	f.BoolVar(&o.forceRecreate, "force-recreate", false, "replace tasks that have not changed, too")
	f.BoolVar(&o.noRecreate, "no-recreate", false, "leave existing tasks alone, even if they changed")
	addBuildFlags(f, &o.build, &o.noBuild)
	f.BoolVar(&o.noStart, "no-start", false, "create, but do not start")
	f.BoolVar(&o.removeOrphans, "remove-orphans", environBool("COMPOSE_REMOVE_ORPHANS"), "remove services that the file no longer has")
	f.BoolVarP(&o.renewVolumes, "renew-anon-volumes", "V", false, "give new tasks new anonymous volumes")
	f.BoolVar(&o.noDeps, "no-deps", false, "leave out what the named services depend on")
	f.BoolVar(&o.quietPull, "quiet-pull", false, "show no progress of pulls")
	f.StringVar(&o.pull, "pull", "", "pull images, `WHEN`: always, missing, never (default: as the file says)")
	f.StringArrayVar(&o.scale, "scale", nil, "`SERVICE=NUM`: run NUM tasks of the service")
	f.IntVarP(&timeout, "timeout", "t", 0, "`SECONDS` to wait before an old container is killed")
	f.StringArrayVar(&o.attach, "attach", nil, "follow the logs of this `SERVICE` only")
	f.StringArrayVar(&o.noAttach, "no-attach", nil, "do not follow the logs of this `SERVICE`")
	f.BoolVar(&o.attachDependencies, "attach-dependencies", false, "also follow the logs of what the named services depend on")
	f.BoolVar(&o.noPrefix, "no-log-prefix", false, "no names before log lines")
	f.BoolVar(&o.noColour, "no-color", false, "no colours in logs")
	f.BoolVar(&o.stamped, "timestamps", false, "times before log lines")
	f.BoolVar(&o.abortOnExit, "abort-on-container-exit", false, "stop the stack when a container exits")
	f.BoolVar(&o.abortOnFailure, "abort-on-container-failure", false, "stop the stack when a container exits with an error")
	f.StringVar(&o.exitCodeFrom, "exit-code-from", "", "exit as this `SERVICE` does; implies --abort-on-container-exit")
	f.StringVar(&o.planFile, "plan", "", "carry out the plan in this `FILE`, exactly")
	f.BoolVarP(&o.watch, "watch", "w", false, "bring changed source files into the containers, as berth watch does")
	f.Bool("menu", false, "there is no menu; accepted for scripts")
	expectRevisionFlag(f, &o.expectRevision)
	return cmd
}

func expectRevisionFlag(f *pflag.FlagSet, revision *uint64) {
	f.Uint64Var(revision, "expect-revision", 0, "refuse if the stack is not at this `REVISION` any more")
}

// check refuses flags that contradict each other, and settles those that
// imply others.
func (o *upOptions) check() error {
	aborts := o.abortOnExit || o.abortOnFailure || o.exitCodeFrom != ""
	detached := o.detach || o.wait || o.noWait
	switch {
	case o.forceRecreate && o.noRecreate:
		return errors.New("--force-recreate and --no-recreate contradict each other")
	case o.wait && o.noWait:
		return errors.New("--wait and --no-wait contradict each other")
	case o.noWait && o.waitTimeout > 0:
		return errors.New("--wait-timeout needs waiting, which --no-wait turns off")
	case detached && aborts:
		return errors.New("--abort-on-container-exit, --abort-on-container-failure and --exit-code-from need to be attached: leave out --detach")
	case detached && (len(o.attach) > 0 || o.attachDependencies):
		return errors.New("--attach and --attach-dependencies contradict --detach")
	case detached && o.watch:
		return errors.New("--watch needs to be attached: leave out --detach, or use `berth watch`")
	case o.noStart && o.watch, o.planFile != "" && o.watch:
		return errors.New("--watch contradicts --no-start and --plan")
	case o.abortOnExit && o.abortOnFailure:
		return errors.New("--abort-on-container-exit and --abort-on-container-failure contradict each other")
	case o.noStart && aborts:
		return errors.New("--no-start starts no container that could exit")
	}
	if err := checkPullPolicy(o.pull); err != nil {
		return err
	}
	o.detach = detached || o.noStart
	if o.exitCodeFrom != "" {
		o.abortOnExit = !o.abortOnFailure
	}
	return nil
}

func (a *app) up(ctx context.Context, o upOptions, services []string) error {
	a.greet(ctx)
	req, services, err := a.upRequest(ctx, o, services)
	if err != nil {
		return err
	}
	if a.global.dryRun {
		_, err := a.printPlan(ctx, req, formatText, nil)
		return err
	}
	if req.Auth, err = a.stackCredentials(ctx, &req.Stack); err != nil {
		// Most often everything is here already; a registry that refuses says so.
		fmt.Fprintln(a.stderr, "warning: no credentials are sent: "+cli.Escape(err.Error()))
	}
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	when, err := buildWhen(o.build, o.noBuild)
	if err != nil {
		return err
	}
	if err := a.ensureBuilt(ctx, client, &req.Stack, when, o.pull, false); err != nil {
		return err
	}
	r := &rollout{app: a, client: client, request: req, options: o, named: services, began: time.Now()}
	if o.watch {
		if r.watching, err = a.newWatching(ctx, client, watchOptions{prune: true}, services); err != nil {
			return err
		}
	}
	if o.detach {
		return r.detached(ctx)
	}
	return r.attached(ctx)
}

// upRequest is what up asks of the agent, and the services that were named:
// by the Compose file and the flags, or by a plan.
func (a *app) upRequest(ctx context.Context, o upOptions, services []string) (api.ApplyRequest, []string, error) {
	if o.planFile == "" {
		result, err := a.load(ctx, services, o.noDeps)
		if err != nil {
			return api.ApplyRequest{}, nil, err
		}
		if profiles := result.Profiles(); len(result.Stack.Services) == 0 && len(result.Stack.Jobs) == 0 && len(profiles) > 0 {
			return api.ApplyRequest{}, nil, hinted{errors.New("no service selected: every one is in a profile"), "choose with --profile: " + strings.Join(profiles, ", ")}
		}
		req, err := o.request(result.Stack, services)
		return req, services, err
	}
	p, err := readPlanFile(o.planFile)
	if err != nil {
		return api.ApplyRequest{}, nil, err
	}
	req := p.planned()
	req.Wait = !o.noWait
	return req, p.Services, o.checkExitCodeFrom(&req.Stack)
}

// request is what the flags ask of the agent.
func (o *upOptions) request(stack *spec.Stack, services []string) (api.ApplyRequest, error) {
	req := api.ApplyRequest{
		Stack:         *stack,
		Pull:          o.pull,
		ForceRecreate: o.forceRecreate,
		NoRecreate:    o.noRecreate,
		RemoveOrphans: o.removeOrphans,
		RenewVolumes:  o.renewVolumes,
		NoStart:       o.noStart,
		StopTimeout:   o.timeout,
		Wait:          !o.noWait,
		Actor:         actor(),

		ExpectRevision: o.expectRevision,
	}
	if len(services) > 0 {
		req.Services = slices.Sorted(maps.Keys(stack.Services))
	}
	var err error
	if req.Scale, err = parseScale("--scale ", o.scale); err != nil {
		return req, err
	}
	for service := range req.Scale {
		if _, known := stack.Services[service]; !known {
			return req, fmt.Errorf("--scale %s: no such service", service)
		}
	}
	return req, o.checkExitCodeFrom(stack)
}

func (o *upOptions) checkExitCodeFrom(stack *spec.Stack) error {
	if _, known := stack.Services[o.exitCodeFrom]; o.exitCodeFrom != "" && !known {
		return fmt.Errorf("--exit-code-from %q: no such service", o.exitCodeFrom)
	}
	return nil
}

// actor is who asks, for the history of the stack: user@host, and the user
// behind sudo rather than root.
func actor() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); err == nil && (name == "" || u.Uid != "0") {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil || name == "" {
		return name
	}
	return name + "@" + host
}

// rollout is one `up` under way.
type rollout struct {
	*app
	client  *api.Client
	request api.ApplyRequest
	options upOptions
	named   []string
	began   time.Time
	// watching brings changed files in, with --watch.
	watching *watching

	// latest is the last that was heard of each service, in order.
	latest []api.ServiceStatus
}

// errTimeout is the cause of a wait that --wait-timeout ended.
var errTimeout = errors.New("--wait-timeout is over")

// detached applies and waits. To interrupt it detaches: the agent goes on.
func (r *rollout) detached(ctx context.Context) error {
	err := r.apply(ctx)
	if interruptedBy(ctx, err) {
		fmt.Fprintln(r.stderr, r.goesOn())
		return exit{code: exitInterrupted}
	}
	return err
}

// goesOn says how to attach to the rollout again.
func (r *rollout) goesOn() string {
	if r.request.Canary != nil || r.request.ExpectPlan != nil {
		return "the rollout goes on; `berth rollout status --watch` follows it"
	}
	return "the rollout goes on; `berth up` again re-attaches"
}

// apply sends the stack and shows progress to the end of the rollout, or for
// --no-wait until the agent has the revision.
func (r *rollout) apply(ctx context.Context) error {
	if r.options.waitTimeout > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, time.Duration(r.options.waitTimeout)*time.Second, errTimeout)
		defer cancel()
		ctx = limited
	}
	done, err := r.show(r.heard(r.client.Apply(ctx, r.request)))
	switch {
	case errors.Is(err, errTimeout):
		return exit{exitNotReady, hinted{r.notReady(), r.goesOn()}}
	case err != nil:
		return r.moved(ctx, err)
	}
	return r.over(done)
}

// moved adds to the refusal of a plan what is not as it says any more.
func (r *rollout) moved(ctx context.Context, err error) error {
	if r.request.ExpectPlan == nil || !api.HasCode(err, api.CodeConflict) {
		return err
	}
	req := r.request
	req.ExpectPlan, req.ExpectRevision = nil, 0
	now, planErr := r.client.Plan(ctx, req)
	if planErr != nil {
		return err // the refusal says enough
	}
	var text strings.Builder
	if cli.WriteMoved(&text, *r.request.ExpectPlan, now) != nil || text.Len() == 0 {
		return err
	}
	return hinted{fmt.Errorf("%w\n%s", err, strings.TrimRight(text.String(), "\n")), "look at `berth plan` again, and write it with --out"}
}

// heard keeps what the stream tells of services, leaves out what flags
// silence, and ends a stream that is not waited for.
func (r *rollout) heard(stream iter.Seq2[api.Progress, error]) iter.Seq2[api.Progress, error] {
	return func(yield func(api.Progress, error) bool) {
		for p, err := range stream {
			if p.Service != nil {
				r.note(*p.Service)
			}
			if p.Pull != nil && (r.options.quietPull || p.Pull.Layer == "" && p.Pull.Status == "exists") {
				continue // that an image is here already is the rule, and no news
			}
			if !yield(p, err) {
				return
			}
			if p.Applied != nil && !r.request.Wait && !r.request.NoStart {
				yield(api.Progress{Done: &api.Done{Outcome: api.OutcomeDone}}, nil)
				return
			}
		}
	}
}

func (r *rollout) note(s api.ServiceStatus) {
	for i := range r.latest {
		if r.latest[i].Service == s.Service {
			r.latest[i] = s
			return
		}
	}
	r.latest = append(r.latest, s)
}

// notReady says of each service that is not ready why not.
func (r *rollout) notReady() error {
	text := fmt.Sprintf("%s: not ready after %d s", r.request.Stack.Name, r.options.waitTimeout)
	for _, s := range r.latest {
		if s.Phase == api.PhaseReady || s.Phase == api.PhaseCompleted {
			continue
		}
		text += fmt.Sprintf("\n  %s: %s, %d of %d ready", s.Service, s.Phase, s.Ready, s.Replicas)
		if s.Reason != "" {
			text += ": " + s.Reason
		}
		if s.Position != nil {
			text += " (" + s.Position.String() + ")"
		}
	}
	return errors.New(text)
}

// logStyle is how attached logs are shown.
func (o *upOptions) logStyle() cli.LogStyle {
	return cli.LogStyle{NoPrefix: o.noPrefix, Timestamps: o.stamped}
}
