package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newSystem(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "system",
		Short: "Look at the space that is used, and free some",
		Long:  "Show what takes how much space, free some, describe the agent." + exitStatus(),
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSystemDf(a), newSystemPrune(a), newSystemInfo(a), newSystemEvents(a))
	return cmd
}

func newSystemDf(a *app) *cobra.Command {
	var verbose bool
	var format string
	cmd := &cobra.Command{
		Use:   "df",
		Short: "Show what takes how much space",
		Long: `Show what images, containers, logs and volumes take on the disk, and what
each stack has of it. Layers that several images have count once in the
total, and with each stack that uses them. With --verbose every image
and volume is listed.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, formatTable, formatJSON); err != nil {
				return err
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			usage, err := client.SystemUsage(cmd.Context())
			switch {
			case err != nil:
				return err
			case format == formatJSON:
				return cli.WriteJSON(a.stdout, usage)
			}
			return cli.WriteUsage(a.stdout, usage, verbose)
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "list every image and volume")
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table or json")
	return cmd
}

func newSystemPrune(a *app) *cobra.Command {
	var all, volumes, force bool
	var filter []string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove what nothing needs",
		Long: `Remove networks that no stack uses and images without a reference; with
--all every image that no kept revision of a stack needs; with --volumes
the anonymous volumes that no container uses, with their data. Named
volumes stay: berth volume prune --all removes them.

On a terminal it asks first.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := imagePrune(all, filter)
			if err != nil {
				return err
			}
			what := "networks and images that nothing needs"
			if volumes {
				what += ", and anonymous volumes with their data"
			}
			if !a.agreed(force, "Remove "+what+"?") {
				return nil
			}
			return a.prune(cmd.Context(), images, volumes)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also images with a reference")
	pruneFilterFlag(cmd, &filter)
	cmd.Flags().BoolVar(&volumes, "volumes", false, "also anonymous volumes, with their data")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}

func (a *app) prune(ctx context.Context, images api.ImagePrune, volumes bool) error {
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	networks, err := client.PruneNetworks(ctx)
	if err != nil {
		return err
	}
	for _, name := range networks.Names {
		fmt.Fprintln(a.stdout, "network "+cli.Escape(name))
	}
	var freed int64
	if volumes {
		removed, err := client.PruneVolumes(ctx, false)
		if err != nil {
			return err
		}
		freed += removed.Bytes
		for _, name := range removed.Names {
			fmt.Fprintln(a.stdout, "volume "+cli.Escape(name))
		}
	}
	removed, err := client.PruneImages(ctx, images)
	if err != nil {
		return err
	}
	a.printRemoved(removed)
	fmt.Fprintln(a.stdout, cli.Freed(freed+removed.Bytes))
	return nil
}

// systemInfo is the output of `berth system info --format json`.
type systemInfo struct {
	Version string   `json:"version"` // of berth
	Agent   api.Info `json:"agent"`
	Stacks  int      `json:"stacks"`
	Tasks   int      `json:"tasks"`
	Running int      `json:"running"`
	Images  int      `json:"images"`
	Volumes int      `json:"volumes"`
}

func newSystemInfo(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Describe the agent and what it runs",
		Long: `Describe the agent: its version, where it keeps its state, which OCI
runtime it uses, how much runs. What is wrong with the machine: berth
doctor.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, formatText, formatJSON); err != nil {
				return err
			}
			info, err := a.systemInfo(cmd.Context())
			if err != nil {
				return err
			}
			if format == formatJSON {
				return cli.WriteJSON(a.stdout, info)
			}
			for _, line := range [][2]string{
				{"berth", info.Version},
				{"agent", fmt.Sprintf("%s (pid %d, since %s)", info.Agent.Version, info.Agent.Pid, info.Agent.StartedAt.Format("2006-01-02 15:04:05 MST"))},
				{"node", info.Agent.Node},
				{"root", info.Agent.Root},
				{"socket", api.Socket(info.Agent.Run)},
				{"runtime", info.Agent.Runtime},
				{"conmon", info.Agent.Conmon},
				{"memory", cli.Bytes(int64(info.Agent.RSS))},
				{"stacks", fmt.Sprintf("%d with %d containers, %d running", info.Stacks, info.Tasks, info.Running)},
				{"images", fmt.Sprint(info.Images)},
				{"volumes", fmt.Sprint(info.Volumes)},
			} {
				fmt.Fprintf(a.stdout, "%-8s %s\n", line[0], cli.Escape(line[1]))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", formatText, "`FORMAT`: text or json")
	return cmd
}

func (a *app) systemInfo(ctx context.Context) (systemInfo, error) {
	out := systemInfo{Version: version}
	client, err := a.agent(ctx)
	if err != nil {
		return out, err
	}
	if out.Agent, err = client.Info(ctx); err != nil {
		return out, err
	}
	stacks, err := client.Stacks(ctx)
	if err != nil {
		return out, err
	}
	out.Stacks = len(stacks)
	for _, s := range stacks {
		for _, n := range s.States {
			out.Tasks += n
		}
		out.Running += s.States[api.TaskRunning]
	}
	images, err := client.Images(ctx)
	if err != nil {
		return out, err
	}
	volumes, err := client.Volumes(ctx, "")
	out.Images, out.Volumes = len(images), len(volumes)
	return out, err
}

// newSystemEvents is events of every stack.
func newSystemEvents(a *app) *cobra.Command {
	cmd := newEvents(a)
	cmd.Use, cmd.Short, cmd.ValidArgsFunction = "events", "Show what happens on this machine", nil
	cmd.Args = cobra.NoArgs
	cmd.Long = `Show the events of every stack. It ends with --until, else it goes on
until Ctrl-C.` + exitStatus()
	if err := cmd.Flags().Set("all", "true"); err != nil {
		panic(err) // a flag that events has
	}
	all := cmd.Flags().Lookup("all")
	all.Hidden, all.DefValue, all.Changed = true, "true", false
	return cmd
}
