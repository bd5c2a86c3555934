package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
)

func newCanary(a *app) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "canary SERVICE PERCENT% | [SERVICE] promote | [SERVICE] abort",
		Short: "Try a new version on a part of the connections",
		Long: `Apply the Compose file, but replace only one task of SERVICE at first and
lead only PERCENT of the new connections to it; the others go to the old
version, of which no task is stopped. The rollout then waits, for as
long as it takes, until promote goes on with it or abort goes back. A
canary that fails is rolled back by itself.

As with up SERVICE, only SERVICE and what it depends on are changed; the
latter are replaced before the canary starts.` + exitStatus(
			"3    not ready in time",
			"4    the canary failed and was rolled back"),
		Example: `  berth canary web 10%
  berth canary promote
  berth canary web abort`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeCanary,
		RunE: func(cmd *cobra.Command, args []string) error {
			service, what := "", args[len(args)-1]
			if len(args) == 2 {
				service = args[0]
			}
			if what == api.RolloutPromote || what == api.RolloutAbort {
				return a.endCanary(cmd.Context(), service, api.RolloutRequest{Action: what, Wait: !o.noWait})
			}
			percent, err := parsePercent(what)
			if err != nil {
				return err
			}
			if service == "" {
				return fmt.Errorf("canary %s: of which service? want SERVICE %s", what, what)
			}
			if err := o.check(); err != nil {
				return err
			}
			return a.canary(cmd.Context(), o, api.Canary{Service: service, Percent: percent})
		},
	}
	f := cmd.Flags()
	noWaitFlag(cmd, &o.noWait)
	f.IntVar(&o.waitTimeout, "wait-timeout", 0, "`SECONDS` to wait at most")
	f.BoolVar(&o.noDeps, "no-deps", false, "leave what the service depends on as it is")
	f.BoolVar(&o.quietPull, "quiet-pull", false, "show no progress of pulls")
	f.StringVar(&o.pull, "pull", "", "pull images, `WHEN`: always, missing, never (default: as the file says)")
	expectRevisionFlag(f, &o.expectRevision)
	return cmd
}

func parsePercent(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
	if err != nil || n < 1 || n > 99 {
		return 0, fmt.Errorf("canary %q: want 1%% to 99%%, promote or abort", text)
	}
	return n, nil
}

// canary applies the file and waits until the canary takes traffic.
func (a *app) canary(ctx context.Context, o upOptions, c api.Canary) error {
	services := []string{c.Service}
	result, err := a.load(ctx, services, o.noDeps)
	if err != nil {
		return err
	}
	req, err := o.request(result.Stack, services)
	if err != nil {
		return err
	}
	req.Canary = &c
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	r := &rollout{app: a, client: client, request: req, options: o, named: services, began: time.Now()}
	return r.detached(ctx)
}

// endCanary promotes or aborts the canary that is under way, which must be the
// one of service unless that is "".
func (a *app) endCanary(ctx context.Context, service string, req api.RolloutRequest) error {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	if service != "" {
		now, err := client.Rollout(ctx, name)
		if err != nil {
			return err
		}
		if now.Canary == nil || now.Canary.Service != service {
			return hinted{fmt.Errorf("stack %s has no canary of %s under way", name, service), "`berth rollout status` shows what is"}
		}
	}
	return a.rollOn(ctx, client, name, req)
}
