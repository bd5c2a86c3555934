package main

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/cli"
)

// globals are the flags that every command has.
type globals struct {
	files, profiles, envFiles []string
	project, projectDir       string
	root, run, config         string
	ansi, progress            string
	allResources, dryRun      bool
	compatibility             bool
	parallel                  int
}

// Where an agent keeps its state unless told otherwise.
const (
	defaultRoot = "/var/lib/berth"
	defaultRun  = "/run/berth"
)

func (g *globals) add(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&g.files, "file", "f", nil, "Compose `FILE`; several are merged; - is stdin")
	flags.StringVarP(&g.project, "project-name", "p", "", "`NAME` of the stack")
	flags.StringVar(&g.projectDir, "project-directory", "", "`FOLDER` where relative paths start (default: the first file's folder)")
	flags.StringArrayVar(&g.profiles, "profile", nil, "enable this `PROFILE`")
	flags.StringArrayVar(&g.envFiles, "env-file", nil, "read variables for interpolation from this `FILE` instead of .env")
	flags.StringVar(&g.root, "root", cmp.Or(os.Getenv("BERTH_ROOT"), defaultRoot), "`FOLDER` where the agent keeps its state (BERTH_ROOT)")
	flags.StringVar(&g.run, "run", cmp.Or(os.Getenv("BERTH_RUN"), defaultRun), "`FOLDER` where the agent's socket is (BERTH_RUN)")
	flags.StringVar(&g.config, "config", os.Getenv("BERTH_CONFIG"), "configuration `FILE` for an agent that is started (BERTH_CONFIG)")
	flags.StringVar(&g.ansi, "ansi", cmp.Or(os.Getenv("COMPOSE_ANSI"), cli.AnsiAuto), "colours, `WHEN`: auto, never, always")
	flags.StringVar(&g.progress, "progress", cmp.Or(os.Getenv("COMPOSE_PROGRESS"), cli.ProgressAuto), "progress, `HOW`: auto, tty, plain, json, quiet")
	flags.BoolVar(&g.allResources, "all-resources", false, "also networks, volumes, configs and secrets that no service uses")
	flags.BoolVar(&g.dryRun, "dry-run", false, "up, create, pull: show what would be done, and do nothing")
	flags.BoolVar(&g.compatibility, "compatibility", false, "accepted: container names have - in any case")
	flags.IntVar(&g.parallel, "parallel", environInt("COMPOSE_PARALLEL_LIMIT", -1), "`MAX` pulls at the same time; -1: no limit here")
}

// environInt is a number of the environment; what is no number is not looked
// at, as with Docker Compose.
func environInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// environBool is a switch of the environment; off unless it is a yes.
func environBool(name string) bool {
	on, err := strconv.ParseBool(os.Getenv(name))
	return err == nil && on
}

// dryRuns are the commands that --dry-run has a meaning for. Any other that
// changes something refuses it: nothing may be done that was to be shown.
var dryRuns = map[string]bool{"up": true, "create": true, "pull": true, "plan": true, "adopt": true}

// checkDryRun refuses --dry-run where it would not be heeded.
func (g *globals) checkDryRun(cmd *cobra.Command) error {
	if !g.dryRun || dryRuns[cmd.Name()] || cmd.GroupID == groupLook && cmd.Name() != "exec" || cmd.GroupID == groupFile {
		return nil
	}
	return hinted{fmt.Errorf("%s has no --dry-run, and nothing was done", cmd.CommandPath()), "`berth plan` shows what up would do"}
}

// resolve makes paths absolute.
func (g *globals) resolve() (err error) {
	for _, path := range []*string{&g.root, &g.run, &g.config} {
		if *path, err = absolute(*path); err != nil {
			return err
		}
	}
	return nil
}

// Groups of commands in the help.
const (
	groupStack  = "stack"
	groupLook   = "look"
	groupFile   = "file"
	groupThings = "things"
	groupHost   = "host"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "berth",
		Short: "Run Compose stacks",
		Long: `Berth makes this machine match a Compose file and keeps it matching.
Changed services are replaced without dropping a request; a version that
does not become ready is rolled back.

Global flags may stand before or after the command.` + exitStatus(
			"2    plan: something would change",
			"3    not ready in time, or the rollout has paused",
			"4    the new revision failed and was rolled back"),
		Example: `  berth up                 bring the stack of ./compose.yaml up
  berth plan               show what up would do
  berth -p shop logs -f    follow the logs of the stack shop`,
		SilenceUsage:     true,
		SilenceErrors:    true,
		TraverseChildren: true,
		Args:             noSuchCommand,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return cmp.Or(a.global.checkDryRun(cmd), a.global.resolve())
		},
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Version: version,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate("berth {{.Version}}\n")
	a.global.add(root.Flags())

	root.AddGroup(
		&cobra.Group{ID: groupStack, Title: "Stacks:"},
		&cobra.Group{ID: groupLook, Title: "What runs:"},
		&cobra.Group{ID: groupFile, Title: "The Compose file:"},
		&cobra.Group{ID: groupThings, Title: "Images, volumes, networks, secrets, jobs:"},
		&cobra.Group{ID: groupHost, Title: "This machine:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add(groupStack, newUp(a), newDown(a), newPlan(a), newCreate(a), newStart(a), newStop(a), newRestart(a), newPause(a),
		newUnpause(a), newKill(a), newRm(a), newRun(a), newWait(a), newWatch(a), newScale(a), newPull(a), newBuild(a), newPush(a),
		newRollout(a), newCanary(a), newRollback(a), newStack(a))
	add(groupLook, newPs(a), newLs(a), newLogs(a), newExplain(a), newHistory(a), newExec(a), newAttach(a), newEvents(a),
		newStats(a), newTop(a), newPort(a), newImages(a), newInspect(a), newCp(a), newExport(a), newCommit(a))
	add(groupFile, newConfig(a), newLint(a), newInit(a), newPublish(a))
	add(groupThings, newImage(a), newVolume(a), newNetwork(a), newSecret(a), newConfigs(a), newJob(a), newLogin(a), newLogout(a))
	add(groupHost, newDoctor(a), newInstall(a), newAdopt(a), newSystem(a), newVersion(a), newMan(a))
	root.SetCompletionCommandGroupID(groupHost)
	root.SetHelpCommandGroupID(groupHost)
	addGlobals(root, root.Flags())
	a.completeFlags(root)
	return root
}

// noSuchCommand refuses arguments of a command that only has subcommands, and
// suggests what may have been meant.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		return hinted{err, "did you mean " + strings.Join(similar, " or ") + "?"}
	}
	return hinted{err, cmd.CommandPath() + " --help lists the commands"}
}

// addGlobals lets the global flags stand behind a command as well, as people
// type `berth up -f compose.yaml`. Where a command has a flag of the same
// name or letter (logs -f), the command's own wins there. They are hidden:
// the help of berth itself lists them.
func addGlobals(parent *cobra.Command, flags *pflag.FlagSet) {
	for _, cmd := range parent.Commands() {
		flags.VisitAll(func(global *pflag.Flag) {
			own := cmd.Flags()
			if own.Lookup(global.Name) != nil {
				return
			}
			flag := *global
			flag.Hidden = true
			if flag.Shorthand != "" && own.ShorthandLookup(flag.Shorthand) != nil {
				flag.Shorthand = ""
			}
			own.AddFlag(&flag)
		})
		addGlobals(cmd, flags)
	}
}
