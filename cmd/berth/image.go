package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Work with images",
		Long:  "List, pull, push, tag, inspect, load, save and remove the images of this\nmachine." + exitStatus(),
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImageLs(a), newImagePull(a), newImageInspect(a), newImageLoad(a), newImageSave(a), newImageRm(a), newImagePrune(a),
		newImageTag(a), newImagePush(a), newImageHistory(a))
	return cmd
}

func newImageLs(a *app) *cobra.Command {
	var quiet, whole bool
	var format string
	cmd := &cobra.Command{
		Use:   "ls [REFERENCE]",
		Short: "List images",
		Long: `List the images of this machine; with REFERENCE those whose name contains
it. With --format json it prints one object a line.` + exitStatus(),
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkListFormat(format); err != nil {
				return err
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			images, err := client.Images(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) > 0 {
				images = slices.DeleteFunc(images, func(i api.Image) bool { return !strings.Contains(strings.Join(i.References, " "), args[0]) })
			}
			switch {
			case quiet:
				for _, i := range images {
					fmt.Fprintln(a.stdout, cli.ShortID(i.ID, whole))
				}
				return nil
			case cli.IsTemplate(format):
				rows := cli.ImageRows(images, time.Now(), whole)
				return rows.Write(a.stdout, format)
			case format == formatJSON:
				return printJSONLines(a.stdout, images)
			}
			return cli.WriteImages(a.stdout, images, time.Now(), whole)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "ids only")
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "do not cut ids")
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table, json or a Go template")
	return cmd
}

// printJSONLines prints each item as a line of NDJSON.
func printJSONLines[T any](w io.Writer, items []T) error {
	for _, item := range items {
		if err := cli.WriteJSONLine(w, item); err != nil {
			return err
		}
	}
	return nil
}

func newImagePull(a *app) *cobra.Command {
	var quiet bool
	var platform, policy string
	cmd := &cobra.Command{
		Use:   "pull REFERENCE...",
		Short: "Pull images from their registries",
		Long: `Pull images from their registries, with the credentials that login keeps.
Without any, those of the agent's user are tried.` + exitStatus(),
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPullPolicy(policy); err != nil {
				return err
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			if quiet {
				a.global.progress = cli.ProgressQuiet
			}
			auths, err := a.credentials(cmd.Context(), args)
			if err != nil {
				return err
			}
			images := make([]api.ImagePullRequest, 0, len(args))
			for _, ref := range args {
				images = append(images, api.ImagePullRequest{Reference: ref, Platform: platform, Policy: policy, Auth: auths})
			}
			return a.carry(pullTogether(cmd.Context(), client, images, false, a.global.parallel))
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	cmd.Flags().StringVar(&platform, "platform", "", "`OS/ARCH[/VARIANT]` (default: this machine's)")
	cmd.Flags().StringVar(&policy, "policy", "always", "`WHEN`, always: ask the registry; missing: only if it is not here")
	return cmd
}

func newImageInspect(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "inspect REFERENCE...",
		Short:             "Show everything about images",
		Long:              "Show everything that is known about images, as one JSON array." + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			images := make([]api.Image, 0, len(args))
			for _, ref := range args {
				image, err := client.InspectImage(cmd.Context(), ref)
				if err != nil {
					return err
				}
				images = append(images, image)
			}
			return cli.WriteJSON(a.stdout, images)
		},
	}
}

func newImageLoad(a *app) *cobra.Command {
	var input string
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Load images from an archive",
		Long: `Load the images of an archive that docker save, podman save, skopeo or
berth image save wrote, from a file or stdin.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			archive := a.stdin
			if input != "" {
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer f.Close()
				archive = f
			} else if isTerminal(a.stdin) {
				return hinted{errors.New("stdin is a terminal, not an archive"), "berth image load -i FILE"}
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			return a.carry(client.LoadImages(cmd.Context(), archive))
		},
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "read the archive from this `FILE`")
	return cmd
}

func newImageSave(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:               "save REFERENCE...",
		Short:             "Save images to an archive",
		Long:              "Save images to an archive that docker load and berth image load read." + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output == "" && isTerminal(a.stdout) {
				return hinted{errors.New("an archive is not for a terminal"), "berth image save -o FILE " + strings.Join(args, " ")}
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			if output == "" {
				return client.SaveImages(cmd.Context(), a.stdout, args)
			}
			return saveTo(cmd.Context(), client, output, args)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write the archive to this `FILE`")
	return cmd
}

// saveTo writes the archive whole or not at all.
func saveTo(ctx context.Context, client *api.Client, path string, refs []string) error {
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer f.Cleanup() //nolint:errcheck // after success it does nothing, after a failure there is one error already
	if err := client.SaveImages(ctx, f, refs); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func newImageRm(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm REFERENCE...",
		Short: "Remove images",
		Long: `Remove references and, with the last one, the image. What a kept revision
of a stack needs is not removed.` + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			for _, ref := range args {
				removed, err := client.RemoveImage(cmd.Context(), ref, force)
				if err != nil {
					return err
				}
				a.printRemoved(removed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also with several references")
	return cmd
}

func newImagePrune(a *app) *cobra.Command {
	var all, force bool
	var filter []string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that nothing needs",
		Long: `Remove images without a reference; with --all every image that no kept
revision of a stack needs.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			prune, err := imagePrune(all, filter)
			if err != nil {
				return err
			}
			if !a.agreed(force, "Remove images that nothing needs?") {
				return nil
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			removed, err := client.PruneImages(cmd.Context(), prune)
			if err != nil {
				return err
			}
			a.printRemoved(removed)
			fmt.Fprintln(a.stdout, cli.Freed(removed.Bytes))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also images with a reference")
	pruneFilterFlag(cmd, &filter)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}

func pruneFilterFlag(cmd *cobra.Command, filter *[]string) {
	cmd.Flags().StringArrayVar(filter, "filter", nil, "only images with `until=AGE|TIME` (made before) or label=KEY[=VALUE]")
}

// imagePrune is what the flags of prune ask for.
func imagePrune(all bool, filter []string) (api.ImagePrune, error) {
	p := api.ImagePrune{All: all}
	for _, f := range filter {
		switch key, value, _ := strings.Cut(f, "="); {
		case key == "until" && value != "":
			p.Until = value
		case key == "label" && value != "":
			p.Labels = append(p.Labels, value)
		default:
			return p, fmt.Errorf("--filter %q: want until=AGE or label=KEY[=VALUE]", f)
		}
	}
	return p, nil
}

func (a *app) printRemoved(r api.ImageRemoved) {
	for _, ref := range r.Untagged {
		fmt.Fprintln(a.stdout, "untagged: "+cli.Escape(ref))
	}
	for _, digest := range r.Deleted {
		fmt.Fprintln(a.stdout, "deleted: "+cli.Escape(digest))
	}
}
