package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
	"berth/spec"
)

type pushOptions struct {
	ignoreFailures, includeDeps, quiet bool
}

func newPush(a *app) *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use:   "push [SERVICE...]",
		Short: "Push the images of services",
		Long: `Push the images of the services that the Compose file builds to the
registries that their names say. Services without build are left out.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.pushServices(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.ignoreFailures, "ignore-push-failures", false, "go on when an image can't be pushed")
	f.BoolVar(&o.includeDeps, "include-deps", false, "also what the services depend on")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (a *app) pushServices(ctx context.Context, o pushOptions, services []string) error {
	result, err := a.load(ctx, services, !o.includeDeps)
	if err != nil {
		return err
	}
	refs := builtImages(result.Stack)
	if len(refs) == 0 {
		fmt.Fprintln(a.stderr, "nothing to push: no service has both build and image")
		return nil
	}
	return a.push(ctx, refs, o.ignoreFailures, o.quiet)
}

// builtImages are the references of the services that are built here and have
// a name for it.
func builtImages(stack *spec.Stack) []string {
	var refs []string
	for _, name := range slices.Sorted(maps.Keys(stack.Services)) {
		s := stack.Services[name]
		if s.Build != nil && s.Image != "" && !slices.Contains(refs, s.Image) {
			refs = append(refs, s.Image)
		}
	}
	return refs
}

// push sends images one after the other: the line to a registry is the limit.
func (a *app) push(ctx context.Context, refs []string, goOn, quiet bool) error {
	auths, err := a.credentials(ctx, refs)
	if err != nil {
		return err
	}
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	if quiet {
		a.global.progress = cli.ProgressQuiet
	}
	for _, ref := range refs {
		err := a.carry(client.PushImage(ctx, api.ImagePushRequest{Reference: ref, Auth: auths}))
		if err != nil && goOn && ctx.Err() == nil {
			printError(a.stderr, &a.secrets, err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func newImagePush(a *app) *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "push REFERENCE...",
		Short: "Push images to their registries",
		Long: `Send images to the registries that their references name, with the
credentials that login keeps. Layers that are there already are not sent.` + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.push(cmd.Context(), args, false, quiet) },
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func newImageTag(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "tag IMAGE REFERENCE",
		Short: "Give an image another reference",
		Long: `Give an image, named by reference, digest or id, another reference. One
that another image had moves.` + exitStatus(),
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			return client.TagImage(cmd.Context(), args[0], args[1])
		},
	}
}

func newImageHistory(a *app) *cobra.Command {
	var quiet, whole bool
	var format string
	cmd := &cobra.Command{
		Use:   "history IMAGE",
		Short: "Show how an image came to be",
		Long: `Show the steps that an image was built with, the last first, and what
each added. With --format json it prints one object a line.` + exitStatus(),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format, formatTable, formatJSON); err != nil {
				return err
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			steps, err := client.ImageHistory(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case quiet:
				for _, s := range steps {
					if s.Layer != "" {
						fmt.Fprintln(a.stdout, cli.ShortID(s.Layer, whole))
					}
				}
				return nil
			case format == formatJSON:
				return printJSONLines(a.stdout, steps)
			}
			return cli.WriteHistorySteps(a.stdout, steps, time.Now(), whole)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "layers only")
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "do not cut steps and layers")
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table or json")
	return cmd
}

func newImages(a *app) *cobra.Command {
	var quiet bool
	var format string
	cmd := &cobra.Command{
		Use:   "images [SERVICE...]",
		Short: "List the images that a stack's containers were made of",
		Long: `List the images that the containers of a stack were made of. With
--format json it prints one array, with the fields of docker compose
images. All images of this machine: berth image ls.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.stackImages(cmd.Context(), args, format, quiet)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "ids only")
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table or json")
	return cmd
}

func (a *app) stackImages(ctx context.Context, services []string, format string, quiet bool) error {
	if err := checkFormat(format, formatTable, formatJSON); err != nil {
		return err
	}
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	stack, err := client.Stack(ctx, name)
	if api.HasCode(err, api.CodeNotFound) && len(services) == 0 {
		stack, err = api.StackStatus{}, nil
	}
	if err != nil {
		return err
	}
	all, err := client.Images(ctx)
	if err != nil {
		return err
	}
	tasks := psOptions{all: true, orphans: true}.choose(stack, services)
	if quiet {
		rows := cli.StackImages(tasks, all)
		var ids []string
		for _, r := range rows {
			ids = append(ids, r.ID)
		}
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			fmt.Fprintln(a.stdout, cli.Escape(id))
		}
		return nil
	}
	if format == formatJSON {
		return cli.WriteJSONLine(a.stdout, cli.StackImages(tasks, all))
	}
	return cli.WriteStackImages(a.stdout, cli.StackImages(tasks, all), time.Now())
}
