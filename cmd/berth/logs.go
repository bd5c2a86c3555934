package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

type logsOptions struct {
	follow, timestamps, noPrefix, noColour bool
	since, until, tail, format             string
	index                                  int
	revision                               uint64
}

func newLogs(a *app) *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs [SERVICE...]",
		Short: "Show the logs of a stack",
		Long: `Show what the containers of a stack wrote, merged by time, also what
replaced and exited tasks wrote as long as they are kept. With --follow
go on with what they write, and what tasks started later write. With
--revision show only tasks that this revision started, such as those of
a version that was rolled back.

With --format json it prints one object a line, with time, service,
task, name, slot, revision, stream and text.` + exitStatus(),
		Example: `  berth logs -f web
  berth logs --since 10m --tail 100
  berth logs web --revision 8`,
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.logs(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with new lines")
	f.BoolVarP(&o.timestamps, "timestamps", "t", false, "times before lines")
	f.BoolVar(&o.noPrefix, "no-log-prefix", false, "no names before lines")
	f.BoolVar(&o.noColour, "no-color", false, "no colours")
	f.StringVar(&o.since, "since", "", "from this `TIME` on: 2006-01-02T15:04:05Z, or 10m for ten minutes ago")
	f.StringVar(&o.until, "until", "", "up to this `TIME`")
	f.StringVarP(&o.tail, "tail", "n", "all", "this many (`N`) last lines of each container")
	f.StringVar(&o.format, "format", formatText, "`FORMAT`: text or json")
	f.IntVar(&o.index, "index", 0, "only the task with this `NUMBER`")
	f.Uint64Var(&o.revision, "revision", 0, "only tasks that this `REVISION` started")
	return cmd
}

func (a *app) logs(ctx context.Context, o logsOptions, services []string) (err error) {
	if err := checkFormat(o.format, formatText, formatJSON); err != nil {
		return err
	}
	tail := -1
	if o.tail != "all" {
		if tail, err = strconv.Atoi(o.tail); err != nil || tail < 0 {
			return fmt.Errorf("--tail %q: want a number of lines or all", o.tail)
		}
	}
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	screen := a.out()
	screen.Colour = screen.Colour && !o.noColour
	if !o.follow {
		// Without --follow nobody waits for a single line: write in bulk.
		buffer := bufio.NewWriterSize(screen.Writer, 64<<10)
		defer func() { err = errors.Join(err, buffer.Flush()) }()
		screen.Writer = buffer
	}
	printer := cli.NewLogPrinter(screen, cli.LogStyle{NoPrefix: o.noPrefix, Timestamps: o.timestamps}, a.logNames(ctx, client, name, services)...)
	silent := true
	for e, err := range client.Logs(ctx, name, api.LogQuery{
		Services: services, Index: o.index, Follow: o.follow, Since: o.since, Until: o.until, Tail: tail, Revision: o.revision,
	}) {
		if err != nil {
			return err
		}
		silent = false
		if err := printLog(screen, printer, o.format, name, e); err != nil {
			return err
		}
	}
	if silent && o.revision != 0 {
		fmt.Fprintf(a.stderr, "no log is kept of a task that revision %d started; `berth history` lists what changed in which\n", o.revision)
	}
	return nil
}

func printLog(w io.Writer, printer *cli.LogPrinter, format, stack string, e api.LogEntry) error {
	if format == formatJSON {
		return cli.WriteJSONLine(w, e)
	}
	return printer.Print(cli.LogName(stack, e.Name), e)
}

// logNames are the names that prefixes are going to show; without an answer
// the prefixes are aligned as they come.
func (a *app) logNames(ctx context.Context, client *api.Client, stack string, services []string) []string {
	status, err := client.Stack(ctx, stack)
	if err != nil {
		return nil
	}
	var names []string
	for _, t := range status.Tasks {
		if wanted(services, t.Service) {
			names = append(names, cli.LogName(stack, t.Name))
		}
	}
	return names
}
