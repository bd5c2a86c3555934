package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"berth/cli"
)

// unitName is the systemd unit of the agent.
const unitName = "berthd.service"

type installOptions struct {
	prefix  string
	unitDir string
	now     bool
	print   bool
}

func newInstall(a *app) *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the agent as a systemd service",
		Long: `Copy berth and berthd to --prefix, write the systemd unit of the agent,
and enable it; with --now also start it. Containers go on running when
the service stops or restarts. Installing again updates what is there.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.install(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.prefix, "prefix", "/usr/local/bin", "`FOLDER` where to copy berth and berthd")
	f.StringVar(&o.unitDir, "unit-dir", "/etc/systemd/system", "`FOLDER` where to write "+unitName)
	f.BoolVar(&o.now, "now", false, "also start the agent, or restart the one that runs")
	f.BoolVar(&o.print, "print", false, "print the unit and change nothing")
	return cmd
}

func (a *app) install(ctx context.Context, o installOptions) error {
	unit := agentUnit(filepath.Join(o.prefix, cli.AgentProgram), a.global)
	if o.print {
		_, err := fmt.Fprint(a.stdout, unit)
		return err
	}
	if os.Geteuid() != 0 {
		return hinted{errors.New("installing a service needs root"), "sudo berth install"}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	program, err := cli.FindAgentProgram()
	if err != nil {
		return err
	}
	for _, from := range []string{self, program} {
		if err := a.installFile(from, filepath.Join(o.prefix, filepath.Base(from))); err != nil {
			return err
		}
	}
	path := filepath.Join(o.unitDir, unitName)
	if err := renameio.WriteFile(path, []byte(unit), 0o644); err != nil {
		return fmt.Errorf("write the unit: %w", err)
	}
	fmt.Fprintln(a.stdout, "wrote "+path)
	return a.enable(ctx, o.now)
}

// installFile copies a program, whole or not at all. A program that is there
// already, being the one that runs, is left alone.
func (a *app) installFile(from, to string) error {
	if source, err := os.Stat(from); err == nil {
		if target, err := os.Stat(to); err == nil && os.SameFile(source, target) {
			return nil
		}
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("install %s: %w", to, err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("install %s: %w", to, err)
	}
	if err := renameio.WriteFile(to, data, 0o755); err != nil {
		return fmt.Errorf("install %s: %w", to, err)
	}
	fmt.Fprintln(a.stdout, "installed "+to)
	return nil
}

func (a *app) enable(ctx context.Context, now bool) error {
	calls := [][]string{{"daemon-reload"}, {"enable", unitName}}
	if now {
		calls = append(calls, []string{"restart", unitName}) // starts it if it does not run
	}
	for _, args := range calls {
		out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
	}
	if now {
		fmt.Fprintln(a.stdout, "the agent runs and starts at boot")
	} else {
		fmt.Fprintln(a.stdout, "the agent starts at boot; `systemctl start berthd` starts it now")
	}
	return nil
}

// agentUnit is the text of the unit. KillMode=process leaves the containers
// alone when the agent stops; Delegate=yes gives it the cgroups below its
// own; StartLimitIntervalSec=0 never gives up on restarting it; TasksMax and
// OOMScoreAdjust keep limits meant for one service from hitting the agent of
// all. Paths that are not the default are arguments.
func agentUnit(program string, g globals) string {
	command := []string{program}
	if g.root != defaultRoot {
		command = append(command, "--root", g.root)
	}
	if g.run != defaultRun {
		command = append(command, "--run", g.run)
	}
	if g.config != "" {
		command = append(command, "--config", g.config)
	}
	for i, word := range command {
		command[i] = unitWord(word)
	}
	return `[Unit]
Description=Berth, runs Compose stacks
After=network-online.target local-fs.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=` + strings.Join(command, " ") + `
Restart=always
RestartSec=1
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
OOMScoreAdjust=-900
TimeoutStartSec=120

[Install]
WantedBy=multi-user.target
`
}

// unitWord quotes a word of ExecStart (systemd.service(5), COMMAND LINES):
// "%" and "$" are doubled, blanks and quotes are quoted.
func unitWord(word string) string {
	word = strings.NewReplacer("%", "%%", "$", "$$", `\`, `\\`, `"`, `\"`).Replace(word)
	if strings.ContainsAny(word, " \t'\"") {
		return `"` + word + `"`
	}
	return word
}
