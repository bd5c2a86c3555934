package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newStack(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stack",
		Short: "The commands of docker stack, for those who come from Swarm",
		Long: `The commands of docker stack. They do what up, ls, ps, config and down
do, with Swarm's flags and columns.` + exitStatus(),
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newStackDeploy(a), newStackLs(a), newStackPs(a), newStackServices(a), newStackRm(a), newStackConfig(a))
	return cmd
}

type deployOptions struct {
	files                []string
	prune, detach, quiet bool
	registryAuth         bool
	resolveImage         string
}

func newStackDeploy(a *app) *cobra.Command {
	var o deployOptions
	cmd := &cobra.Command{
		Use:   "deploy [STACK]",
		Short: "Make a stack match a Compose file",
		Long: `Make a stack match a Compose file, as up does. As with docker stack
deploy it returns as soon as the agent has the new revision;
--detach=false waits until every service is ready.

Credentials for registries are sent in any case, and only for this
deploy: --with-registry-auth changes nothing.` + exitStatus(
			"3    with --detach=false: not ready in time, or it has paused",
			"4    with --detach=false: the new revision was rolled back"),
		Example: `  berth stack deploy -c compose.yaml shop
  berth stack deploy -c compose.yaml --prune --detach=false shop`,
		Aliases:           []string{"up"},
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeStacks,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.deploy(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "compose-file", "c", nil, "Compose `FILE`; several are merged; - is stdin")
	f.BoolVar(&o.prune, "prune", false, "remove services that the file no longer has")
	f.BoolVarP(&o.detach, "detach", "d", true, "do not wait until the services are ready")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	f.BoolVar(&o.registryAuth, "with-registry-auth", false, "accepted: credentials are sent in any case")
	f.StringVar(&o.resolveImage, "resolve-image", "", "ask the registry, `WHEN`: always, changed, never (default: as the file says)")
	return cmd
}

// stackFiles takes the files from where docker stack has them.
func (a *app) stackFiles(files []string) {
	if len(files) > 0 {
		a.global.files = files
	}
}

func (a *app) deploy(ctx context.Context, o deployOptions, args []string) error {
	up := upOptions{detach: true, noWait: o.detach, removeOrphans: o.prune}
	switch o.resolveImage {
	case "":
	case "always":
		up.pull = "always"
	case "changed", "never":
		up.pull = "missing"
	default:
		return fmt.Errorf("--resolve-image %q: want always, changed or never", o.resolveImage)
	}
	a.stackFiles(o.files)
	if len(args) > 0 {
		a.global.project = args[0]
	}
	if o.quiet {
		a.global.progress = cli.ProgressQuiet
	}
	if err := up.check(); err != nil {
		return err
	}
	return a.up(ctx, up, nil)
}

// listing are the flags of the lists of docker stack.
type listing struct {
	format         string
	filter         []string
	quiet, noTrunc bool
}

func (l *listing) add(cmd *cobra.Command, keys string) {
	f := cmd.Flags()
	f.StringVar(&l.format, "format", formatTable, "`FORMAT`: table, json or a Go template")
	f.StringArrayVarP(&l.filter, "filter", "f", nil, "only those with `KEY=VALUE`: "+keys)
	f.BoolVarP(&l.quiet, "quiet", "q", false, "ids only")
	f.BoolVar(&l.noTrunc, "no-trunc", false, "do not cut ids")
}

func newStackLs(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List stacks with how many services they have",
		Long:    "List the stacks of this machine with how many services they have." + exitStatus(),
		Aliases: []string{"list"},
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			stacks, err := client.Stacks(cmd.Context())
			if err != nil {
				return err
			}
			rows := cli.Rows[cli.SwarmStack]{Columns: []string{"Name", "Services"}}
			for _, s := range stacks {
				status, err := client.Stack(cmd.Context(), s.Name)
				if api.HasCode(err, api.CodeNotFound) {
					continue // removed meanwhile
				}
				if err != nil {
					return err
				}
				rows.Add(cli.SwarmStack{Name: s.Name, Services: fmt.Sprint(len(status.Stack.Services)), Orchestrator: "Berth"})
			}
			return rows.Write(a.stdout, format)
		},
	}
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table, json or a Go template")
	return cmd
}

// oneStack asks for the stack that docker stack's commands are about.
func (a *app) oneStack(ctx context.Context, name string) (api.StackStatus, *api.Client, error) {
	client, err := a.agent(ctx)
	if err != nil {
		return api.StackStatus{}, nil, err
	}
	stack, err := client.Stack(ctx, name)
	return stack, client, err
}

func newStackServices(a *app) *cobra.Command {
	var l listing
	cmd := &cobra.Command{
		Use:               "services STACK",
		Short:             "List the services of a stack with replicas and ports",
		Long:              "List the services of a stack: mode, how many tasks are ready of how many,\nimage and published ports." + exitStatus(),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeStacks,
		RunE: func(cmd *cobra.Command, args []string) error {
			stack, _, err := a.oneStack(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			keep, err := l.keep("id", "name", "mode", "label")
			if err != nil {
				return err
			}
			rows := cli.Rows[cli.SwarmService]{Columns: []string{"ID", "Name", "Mode", "Replicas", "Image", "Ports"}}
			for _, s := range cli.SwarmServices(stack, l.noTrunc) {
				if keep(map[string]string{"id": s.ID, "name": s.Name, "mode": s.Mode}, stack.Stack.Services[s.Service].Labels) {
					rows.Add(s)
				}
			}
			if l.quiet {
				return rows.Write(a.stdout, "{{.ID}}")
			}
			return rows.Write(a.stdout, l.format)
		},
	}
	l.add(cmd, "id, name, mode, label")
	return cmd
}

func newStackPs(a *app) *cobra.Command {
	var l listing
	var noResolve bool
	cmd := &cobra.Command{
		Use:   "ps STACK",
		Short: "List the tasks of a stack, also those that were replaced",
		Long: `List the tasks of a stack with what they are to be and what they are.
Tasks that newer ones replaced are below these, with \_.` + exitStatus(),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeStacks,
		RunE: func(cmd *cobra.Command, args []string) error {
			stack, client, err := a.oneStack(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			info, err := client.Info(cmd.Context())
			if err != nil {
				return err
			}
			keep, err := l.keep("id", "name", "node", "desired-state")
			if err != nil {
				return err
			}
			rows := cli.Rows[cli.SwarmTask]{
				Columns: []string{"ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports"},
			}
			for _, t := range cli.SwarmTasks(stack, info.Node, time.Now(), l.noTrunc) {
				if keep(map[string]string{
					"id": t.ID, "name": strings.TrimPrefix(t.Name, `\_ `), "node": t.Node, "desired-state": strings.ToLower(t.DesiredState),
				}, nil) {
					rows.Add(t)
				}
			}
			if l.quiet {
				return rows.Write(a.stdout, "{{.ID}}")
			}
			return rows.Write(a.stdout, l.format)
		},
	}
	l.add(cmd, "id, name, node, desired-state")
	cmd.Flags().BoolVar(&noResolve, "no-resolve", false, "accepted: nodes have names only")
	return cmd
}

// keep gives the test of --filter: values of one key are alternatives, and
// every key must agree. Names and ids are prefixes, as with Docker.
func (l *listing) keep(keys ...string) (func(values, labels map[string]string) bool, error) {
	wanted := map[string][]string{}
	for _, f := range l.filter {
		key, value, found := strings.Cut(f, "=")
		if !found || !slices.Contains(keys, key) {
			return nil, fmt.Errorf("--filter %q: want KEY=VALUE with KEY one of %s", f, strings.Join(keys, ", "))
		}
		wanted[key] = append(wanted[key], value)
	}
	return func(values, labels map[string]string) bool {
		for key, list := range wanted {
			if !slices.ContainsFunc(list, func(want string) bool {
				switch key {
				case "label":
					name, value, exact := strings.Cut(want, "=")
					has, known := labels[name]
					return known && (!exact || has == value)
				case "id", "name":
					return strings.HasPrefix(values[key], want)
				}
				return values[key] == want
			}) {
				return false
			}
		}
		return true
	}, nil
}

func newStackRm(a *app) *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:               "rm STACK...",
		Short:             "Stop and remove stacks",
		Long:              "Stop and remove stacks with their networks, as down does. Volumes stay." + exitStatus(),
		Aliases:           []string{"down", "remove"},
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeStacks,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				err := a.carry(client.Down(cmd.Context(), name, api.DownRequest{RemoveOrphans: true}))
				if api.HasCode(err, api.CodeNotFound) {
					fmt.Fprintf(a.stderr, "nothing found in stack: %s\n", cli.Escape(name))
					err = nil
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "accepted: it returns when the stacks are gone")
	return cmd
}

func newStackConfig(a *app) *cobra.Command {
	var files []string
	var o configOptions
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the Compose file as it would be deployed",
		Long:  "Print the merged and interpolated Compose file, as config does." + exitStatus(),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.stackFiles(files)
			o.format = formatYAML
			return a.config(cmd.Context(), o, nil)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "compose-file", "c", nil, "Compose `FILE`; several are merged; - is stdin")
	cmd.Flags().BoolVar(&o.noInterpolate, "skip-interpolation", false, "leave ${VARIABLES} as they are")
	return cmd
}
