package main

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
	"berth/spec"
)

type pullOptions struct {
	ignoreFailures, includeDeps, quiet bool
	policy                             string
}

func newPull(a *app) *cobra.Command {
	var o pullOptions
	cmd := &cobra.Command{
		Use:   "pull [SERVICE...]",
		Short: "Pull the images of services",
		Long: `Pull the images of the services of the Compose file. Running containers
stay as they are: the next up uses what was pulled.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.pull(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.ignoreFailures, "ignore-pull-failures", false, "go on when an image can't be pulled")
	f.BoolVar(&o.includeDeps, "include-deps", false, "also pull what the named services depend on")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	f.StringVar(&o.policy, "policy", "always", "`WHEN`, always: ask the registry; missing: only what is not here")
	return cmd
}

func (a *app) pull(ctx context.Context, o pullOptions, services []string) error {
	if err := checkPullPolicy(o.policy); err != nil {
		return err
	}
	result, err := a.load(ctx, services, !o.includeDeps)
	if err != nil {
		return err
	}
	if a.global.dryRun {
		for _, image := range imagesOf(result.Stack) {
			fmt.Fprintln(a.stdout, "would pull "+cli.Escape(image.Reference))
		}
		return nil
	}
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	if o.quiet {
		a.global.progress = cli.ProgressQuiet
	}
	images := imagesOf(result.Stack)
	auths, err := a.stackCredentials(ctx, result.Stack)
	if err != nil {
		return err
	}
	for i := range images {
		images[i].Policy, images[i].Auth = o.policy, auths
	}
	return a.carry(pullTogether(ctx, client, images, o.ignoreFailures, a.global.parallel))
}

// pullTogether pulls images at once and yields what is told of them as one
// stream. The first failure ends it or, if failures are ignored, is a warning.
func pullTogether(ctx context.Context, client *api.Client, images []api.ImagePullRequest, ignoreFailures bool, parallel int) iter.Seq2[api.Progress, error] {
	return func(yield func(api.Progress, error) bool) {
		pulling, cancel := context.WithCancel(ctx)
		defer cancel()
		for news := range pullAll(pulling, client, images, parallel) {
			if news.err != nil && ignoreFailures && ctx.Err() == nil {
				news = pullNews{Progress: api.Progress{Warning: news.err.Error()}}
			}
			if !yield(news.Progress, news.err) || news.err != nil {
				return
			}
		}
		if ctx.Err() != nil {
			yield(api.Progress{}, context.Cause(ctx))
			return
		}
		yield(api.Progress{Done: &api.Done{Outcome: api.OutcomeDone}}, nil)
	}
}

// pullNews is a line of one of several pulls, or its failure.
type pullNews struct {
	api.Progress
	err error
}

// pullAll starts the pulls. The channel is closed when all have ended, which
// the end of ctx hastens; a pull that succeeds says nothing at its end. parallel
// is how many there are at a time, 0 or less: all.
func pullAll(ctx context.Context, client *api.Client, images []api.ImagePullRequest, parallel int) <-chan pullNews {
	heard := make(chan pullNews)
	if parallel <= 0 {
		parallel = len(images)
	}
	slots := make(chan struct{}, max(1, parallel))
	var pulls sync.WaitGroup
	for _, image := range images {
		pulls.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			for p, err := range client.PullImage(ctx, image) {
				if p.Done != nil {
					if err = outcome(*p.Done); err == nil {
						return
					}
				}
				select {
				case heard <- pullNews{p, err}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	go func() { pulls.Wait(); close(heard) }()
	return heard
}

// imagesOf are the images of a stack that a registry has: those that are not
// built, each once.
func imagesOf(stack *spec.Stack) []api.ImagePullRequest {
	var images []api.ImagePullRequest
	for _, name := range slices.Sorted(maps.Keys(stack.Services)) {
		s := stack.Services[name]
		image := api.ImagePullRequest{Reference: s.Image, Platform: s.Platform}
		same := func(i api.ImagePullRequest) bool {
			return i.Reference == image.Reference && i.Platform == image.Platform
		}
		if s.Image == "" || s.Build != nil || slices.ContainsFunc(images, same) {
			continue
		}
		images = append(images, image)
	}
	return images
}
