package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newNetwork(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Work with networks",
		Long:  "List, inspect, create and remove networks." + exitStatus(),
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNetworkLs(a), newNetworkInspect(a), newNetworkCreate(a), newNetworkRm(a), newNetworkPrune(a))
	return cmd
}

func newNetworkLs(a *app) *cobra.Command {
	var quiet bool
	var format string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List networks",
		Long: `List the networks of this machine; with -p those of one stack. With
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
			networks, err := client.Networks(cmd.Context(), a.global.project)
			if err != nil {
				return err
			}
			switch {
			case quiet:
				for _, n := range networks {
					fmt.Fprintln(a.stdout, cli.Escape(n.Name))
				}
				return nil
			case cli.IsTemplate(format):
				rows := cli.NetworkRows(networks)
				return rows.Write(a.stdout, format)
			case format == formatJSON:
				return printJSONLines(a.stdout, networks)
			}
			return cli.WriteNetworks(a.stdout, networks)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "names only")
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table, json or a Go template")
	return cmd
}

func newNetworkInspect(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NETWORK...",
		Short: "Show everything about networks",
		Long: `Show everything that is known about networks, with the addresses of
containers and services on them, as one JSON array.` + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			networks, err := client.Networks(cmd.Context(), "")
			if err != nil {
				return err
			}
			found, err := pick(networks, args, "network", func(n api.Network) string { return n.Name })
			if err != nil {
				return err
			}
			return cli.WriteJSON(a.stdout, found)
		},
	}
}

func newNetworkCreate(a *app) *cobra.Command {
	var req api.NetworkCreate
	var options, labels []string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a network",
		Long:  "Create a network that stacks can name as external." + exitStatus(),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
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
			network, err := client.CreateNetwork(cmd.Context(), req)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, cli.Escape(network.Name))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&req.Driver, "driver", "d", "", "`DRIVER` (default: bridge)")
	f.BoolVar(&req.Internal, "internal", false, "without a way out")
	f.BoolVar(&req.EnableIPv6, "ipv6", false, "with IPv6 addresses")
	f.StringArrayVar(&req.Subnets, "subnet", nil, "`SUBNET`, such as 10.7.0.0/24 (default: a free one)")
	f.StringVar(&req.Gateway, "gateway", "", "the host's `ADDRESS` in the subnet")
	f.StringArrayVarP(&options, "opt", "o", nil, "`KEY=VALUE`: option of the driver")
	f.StringArrayVar(&labels, "label", nil, "`KEY=VALUE`")
	return cmd
}

func newNetworkRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "rm NETWORK...",
		Short:             "Remove networks",
		Long:              "Remove networks. One that a container is on is not removed." + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := client.RemoveNetwork(cmd.Context(), name); err != nil {
					return err
				}
				fmt.Fprintln(a.stdout, cli.Escape(name))
			}
			return nil
		},
	}
}

func newNetworkPrune(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove networks that no container is on",
		Long:  "Remove the networks that no stack has and no container is on." + exitStatus(),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !a.agreed(force, "Remove networks that no container is on?") {
				return nil
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			removed, err := client.PruneNetworks(cmd.Context())
			if err != nil {
				return err
			}
			for _, name := range removed.Names {
				fmt.Fprintln(a.stdout, cli.Escape(name))
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}
