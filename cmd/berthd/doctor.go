package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"berth/agent"
	"berth/api"
)

func newDoctor(o *agentOptions) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at what Berth needs from this machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.load()
			if err != nil {
				return err
			}
			findings := agent.Doctor(cmd.Context(), c)
			if format == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(findings)
			}
			return printFindings(cmd, findings)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func printFindings(cmd *cobra.Command, findings []api.Finding) error {
	for _, f := range findings {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-8s %-12s %s\n", f.Status, f.Check, f.Detail); err != nil {
			return err
		}
		if f.Hint != "" {
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%21s %s\n", "", f.Hint); err != nil {
				return err
			}
		}
	}
	return nil
}
