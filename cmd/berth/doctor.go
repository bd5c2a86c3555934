package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
)

func newDoctor(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can run stacks",
		Long: `Check what Berth needs of this machine: kernel, cgroups, OCI runtime,
conmon, nftables, other firewalls, disk. It says what is broken and what
to do about it. The agent need not run.` + exitStatus("1    something is broken"),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), format) },
	}
	cmd.Flags().StringVar(&format, "format", formatText, "`FORMAT`: text or json")
	return cmd
}

func (a *app) doctor(ctx context.Context, format string) error {
	if err := checkFormat(format, formatText, formatJSON); err != nil {
		return err
	}
	findings, err := a.findings(ctx)
	if err != nil {
		return err
	}
	broken := false
	if format == formatJSON {
		for _, f := range findings {
			broken = broken || f.Status == api.FindingBroken
		}
		err = cli.WriteJSON(a.stdout, findings)
	} else {
		broken, err = cli.WriteFindings(a.out(), findings)
	}
	if err == nil && broken {
		err = exit{code: exitError}
	}
	return err
}

// findings asks berthd, which knows what it needs, to look around.
func (a *app) findings(ctx context.Context) ([]api.Finding, error) {
	program, err := cli.FindAgentProgram()
	if err != nil {
		return nil, err
	}
	args := append([]string{"doctor", "--format", "json"}, cli.AgentOptions{Root: a.global.root, Run: a.global.run, Config: a.global.config}.Args()...)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var findings []api.Finding
	if err := json.Unmarshal(stdout.Bytes(), &findings); err != nil {
		if runErr != nil {
			err = runErr
		}
		return nil, fmt.Errorf("run %s doctor: %w\n%s", program, err, strings.TrimSpace(stderr.String()))
	}
	return findings, nil
}
