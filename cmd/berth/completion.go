package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/api"
	"berth/cli"
	"berth/spec"
)

// completionLimit bounds how long the shell waits for a completion.
const completionLimit = 2 * time.Second

// complete runs a completion. It never starts an agent and never fails: what
// it can't find out it does not offer.
func (a *app) complete(cmd *cobra.Command, find func(ctx context.Context, client *api.Client) []string) ([]string, cobra.ShellCompDirective) {
	if err := a.global.resolve(); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionLimit)
	defer cancel()
	client := a.dial()
	defer client.Close()
	return find(ctx, client), cobra.ShellCompDirectiveNoFileComp
}

// without leaves out what is on the command line already.
func without(names, typed []string, toComplete string) []string {
	var left []string
	for _, name := range names {
		if strings.HasPrefix(name, toComplete) && (len(typed) == 0 || !wanted(typed, name)) {
			left = append(left, name)
		}
	}
	return left
}

// flagValues are the values of flags that have a fixed set of them.
var flagValues = map[string][]string{
	"ansi":     {cli.AnsiAuto, cli.AnsiNever, cli.AnsiAlways},
	"progress": {cli.ProgressAuto, cli.ProgressTTY, cli.ProgressPlain, cli.ProgressJSON, cli.ProgressQuiet},
	"pull":     {"always", "missing", "never"},
	"policy":   {"always", "missing"},
	"rmi":      {"local", "all"},
	"status":   {api.TaskCreated, api.TaskRunning, api.TaskPaused, api.TaskRestarting, api.TaskRemoving, api.TaskExited},
}

// completeFlags says how the values of a command's flags are completed, and
// those of its subcommands.
func (a *app) completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		find := cobra.CompletionFunc(nil)
		switch values := flagValues[f.Name]; {
		case values != nil:
			find = cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
		case f.Name == "format": // each command has a format for people, its default, and JSON
			find = cobra.FixedCompletions([]string{f.DefValue, formatJSON}, cobra.ShellCompDirectiveNoFileComp)
		case f.Name == "project-name":
			find = a.completeStacks
		case f.Name == "profile":
			find = a.completeProfiles
		case f.Name == "revision", f.Name == "expect-revision":
			find = func(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
				return a.completeRevisions(cmd, nil, toComplete)
			}
		case f.Name == "attach", f.Name == "no-attach", f.Name == "exit-code-from":
			find = func(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
				return a.completeServices(cmd, nil, toComplete)
			}
		default:
			return
		}
		if err := cmd.RegisterFlagCompletionFunc(f.Name, find); err != nil {
			panic(err) // registered twice
		}
	})
	for _, sub := range cmd.Commands() {
		a.completeFlags(sub)
	}
}

// completeServices offers the services of the Compose file or, without one,
// of the stack that runs.
func (a *app) completeServices(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, client *api.Client) []string {
		return without(a.serviceNames(ctx, client), args, toComplete)
	})
}

// completeService is completeServices for one argument.
func (a *app) completeService(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeServices(cmd, args, toComplete)
}

func (a *app) serviceNames(ctx context.Context, client *api.Client) []string {
	var names []string
	if o, err := a.options(); err == nil {
		if result, err := spec.Load(ctx, o); err == nil && result.Stack != nil {
			for name := range result.Stack.Services {
				names = append(names, name)
			}
			return names
		}
	}
	name, err := a.stackName(ctx)
	if err != nil {
		return nil
	}
	stack, err := client.Stack(ctx, name)
	if err != nil {
		return nil
	}
	for _, s := range stack.Services {
		names = append(names, s.Service)
	}
	return names
}

// completeRevisions offers the revisions that there are, for one argument.
func (a *app) completeRevisions(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(cmd, func(ctx context.Context, client *api.Client) []string {
		name, err := a.stackName(ctx)
		if err != nil {
			return nil
		}
		revisions, err := client.History(ctx, name)
		if err != nil {
			return nil
		}
		var numbers []string
		for _, r := range revisions {
			numbers = append(numbers, strconv.FormatUint(r.Number, 10))
		}
		return without(numbers, nil, toComplete)
	})
}

// completeScale offers services with the = that follows them.
func (a *app) completeScale(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	names, directive := a.completeServices(cmd, nil, toComplete)
	var left []string
	for _, name := range names {
		typed := func(arg string) bool { return strings.HasPrefix(arg, name+"=") }
		if !slices.ContainsFunc(args, typed) {
			left = append(left, name+"=")
		}
	}
	return left, directive | cobra.ShellCompDirectiveNoSpace
}

// completeCanary offers services and what ends a canary.
func (a *app) completeCanary(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	ends := without([]string{api.RolloutPromote, api.RolloutAbort}, nil, toComplete)
	switch len(args) {
	case 0:
		names, directive := a.completeServices(cmd, nil, toComplete)
		return append(ends, names...), directive
	case 1:
		return append(ends, without([]string{"10%"}, nil, toComplete)...), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeExec offers services, then what the shell knows of commands.
func (a *app) completeExec(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeServices(cmd, args, toComplete)
}

// completeProfiles offers the profiles of the Compose file.
func (a *app) completeProfiles(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, _ *api.Client) []string {
		o, err := a.options()
		if err != nil {
			return nil
		}
		o.NoInterpolate = true
		result, err := spec.Load(ctx, o)
		if err != nil {
			return nil
		}
		return without(result.Profiles(), nil, toComplete)
	})
}

// completeStacks offers the stacks that the agent has, for -p.
func (a *app) completeStacks(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, client *api.Client) []string {
		stacks, err := client.Stacks(ctx)
		if err != nil {
			return nil
		}
		var names []string
		for _, s := range stacks {
			names = append(names, s.Name)
		}
		return without(names, nil, toComplete)
	})
}

// completeTasks offers the containers of all stacks, by name.
func (a *app) completeTasks(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, client *api.Client) []string {
		stacks, err := client.Stacks(ctx)
		if err != nil {
			return nil
		}
		var names []string
		for _, s := range stacks {
			status, err := client.Stack(ctx, s.Name)
			if err != nil {
				continue
			}
			for _, t := range status.Tasks {
				names = append(names, t.Name)
			}
		}
		return without(names, args, toComplete)
	})
}

func (a *app) completeImages(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, client *api.Client) []string {
		images, err := client.Images(ctx)
		if err != nil {
			return nil
		}
		var refs []string
		for _, image := range images {
			refs = append(refs, image.References...)
		}
		return without(refs, args, toComplete)
	})
}

func (a *app) completeVolumes(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, client *api.Client) []string {
		volumes, err := client.Volumes(ctx, "")
		if err != nil {
			return nil
		}
		var names []string
		for _, v := range volumes {
			names = append(names, v.Name)
		}
		return without(names, args, toComplete)
	})
}

func (a *app) completeNetworks(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, client *api.Client) []string {
		networks, err := client.Networks(ctx, "")
		if err != nil {
			return nil
		}
		var names []string
		for _, n := range networks {
			names = append(names, n.Name)
		}
		return without(names, args, toComplete)
	})
}
