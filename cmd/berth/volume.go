package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newVolume(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Work with volumes",
		Long:  "List, inspect, create and remove volumes." + exitStatus(),
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newVolumeLs(a), newVolumeInspect(a), newVolumeCreate(a), newVolumeRm(a), newVolumePrune(a))
	return cmd
}

func newVolumeLs(a *app) *cobra.Command {
	var quiet bool
	var format string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List volumes",
		Long: `List the volumes of this machine; with -p those of one stack. With
--format json it prints one object a line.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkListFormat(format); err != nil {
				return err
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			volumes, err := client.Volumes(cmd.Context(), a.global.project)
			if err != nil {
				return err
			}
			switch {
			case quiet:
				for _, v := range volumes {
					fmt.Fprintln(a.stdout, cli.Escape(v.Name))
				}
				return nil
			case cli.IsTemplate(format):
				rows := cli.VolumeRows(volumes)
				return rows.Write(a.stdout, format)
			case format == formatJSON:
				return printJSONLines(a.stdout, volumes)
			}
			return cli.WriteVolumes(a.stdout, volumes)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "names only")
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table, json or a Go template")
	return cmd
}

func newVolumeInspect(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "inspect VOLUME...",
		Short:             "Show everything about volumes",
		Long:              "Show everything that is known about volumes, as one JSON array." + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			volumes, err := client.Volumes(cmd.Context(), "")
			if err != nil {
				return err
			}
			found, err := pick(volumes, args, "volume", func(v api.Volume) string { return v.Name })
			if err != nil {
				return err
			}
			return cli.WriteJSON(a.stdout, found)
		},
	}
}

// pick gives the items with these names, in the order of the names.
func pick[T any](items []T, names []string, kind string, name func(T) string) ([]T, error) {
	found := make([]T, 0, len(names))
	for _, n := range names {
		i := slices.IndexFunc(items, func(item T) bool { return name(item) == n })
		if i < 0 {
			return nil, fmt.Errorf("no such %s: %s", kind, n)
		}
		found = append(found, items[i])
	}
	return found, nil
}

func newVolumeCreate(a *app) *cobra.Command {
	var driver string
	var options, labels []string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a volume",
		Long:  "Create a volume that stacks can name as external." + exitStatus(),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.VolumeCreate{Name: args[0], Driver: driver}
			var err error
			if req.Options, err = pairs("--opt", options); err != nil {
				return err
			}
			if req.Labels, err = pairs("--label", labels); err != nil {
				return err
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			volume, err := client.CreateVolume(cmd.Context(), req)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, cli.Escape(volume.Name))
			return nil
		},
	}
	cmd.Flags().StringVarP(&driver, "driver", "d", "local", "`DRIVER`")
	cmd.Flags().StringArrayVarP(&options, "opt", "o", nil, "`KEY=VALUE`: option of the driver, such as type=nfs")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "`KEY=VALUE`")
	return cmd
}

// pairs parses KEY=VALUE flags; KEY alone has the empty value.
func pairs(flag string, given []string) (map[string]string, error) {
	if len(given) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(given))
	for _, g := range given {
		key, value, _ := strings.Cut(g, "=")
		if key == "" {
			return nil, fmt.Errorf("%s %q: want KEY=VALUE", flag, g)
		}
		m[key] = value
	}
	return m, nil
}

func newVolumeRm(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rm VOLUME...",
		Short:             "Remove volumes with their data",
		Long:              "Remove volumes with their data. One that a container uses is not removed." + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := client.RemoveVolume(cmd.Context(), name, force); err != nil {
					return err
				}
				fmt.Fprintln(a.stdout, cli.Escape(name))
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "a volume that does not exist is no error")
	return cmd
}

func newVolumePrune(a *app) *cobra.Command {
	var all, force bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove volumes that no container uses",
		Long: `Remove the anonymous volumes that no container uses, with their data; with
--all named ones as well.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !a.agreed(force, "Remove volumes that no container uses, with their data?") {
				return nil
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			removed, err := client.PruneVolumes(cmd.Context(), all)
			if err != nil {
				return err
			}
			for _, name := range removed.Names {
				fmt.Fprintln(a.stdout, cli.Escape(name))
			}
			fmt.Fprintln(a.stdout, cli.Freed(removed.Bytes))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also named volumes")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}
