package main

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"berth/api"
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
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	if o.quiet {
		a.global.progress = "quiet"
	}
	for _, image := range imagesOf(result.Stack) {
		image.Policy = o.policy
		if err := a.carry(client.PullImage(ctx, image)); err != nil {
			if !o.ignoreFailures || ctx.Err() != nil {
				return err
			}
			printError(a.stderr, err)
		}
	}
	return nil
}

// imagesOf are the images of a stack that a registry has: those that are not
// built, each once.
func imagesOf(stack *spec.Stack) []api.ImagePullRequest {
	var images []api.ImagePullRequest
	for _, name := range slices.Sorted(maps.Keys(stack.Services)) {
		s := stack.Services[name]
		image := api.ImagePullRequest{Reference: s.Image, Platform: s.Platform}
		if s.Image == "" || s.Build != nil || slices.Contains(images, image) {
			continue
		}
		images = append(images, image)
	}
	return images
}
