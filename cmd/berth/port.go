package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func newPort(a *app) *cobra.Command {
	var protocol string
	var index int
	cmd := &cobra.Command{
		Use:   "port SERVICE PRIVATE_PORT",
		Short: "Print where a port of a service is published",
		Long: `Print the address and port of this machine that lead to a port of a
service. Published ports belong to the service: each of its containers
gives the same answer.` + exitStatus(),
		Example: `  berth port web 80
  berth port --protocol udp dns 53`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.port(cmd.Context(), args[0], args[1], strings.ToLower(protocol), index)
		},
	}
	cmd.Flags().StringVar(&protocol, "protocol", "tcp", "`PROTOCOL`: tcp or udp")
	cmd.Flags().IntVar(&index, "index", 0, "of the task with this `NUMBER` (default: the first that runs)")
	return cmd
}

func (a *app) port(ctx context.Context, service, port, protocol string, index int) error {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no port", port)
	}
	_, task, err := a.serviceTask(ctx, service, index)
	if err != nil {
		return err
	}
	for _, p := range task.Ports {
		if uint64(p.Target) == n && p.Protocol == protocol {
			host := cmp.Or(p.HostIP, "0.0.0.0")
			_, err := fmt.Fprintln(a.stdout, net.JoinHostPort(host, strconv.Itoa(int(p.Published))))
			return err
		}
	}
	return hinted{fmt.Errorf("no port %d/%s of %s is published", n, protocol, task.Name), "`berth ps` lists what is"}
}
