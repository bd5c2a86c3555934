package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"berth/api"
)

func newSecretRecipient(a *app) *cobra.Command {
	var quiet, postQuantum bool
	var format string
	cmd := &cobra.Command{
		Use:   "recipient",
		Short: "Show what to encrypt files in a repository to",
		Long: `Show the age recipients of the agent's host. A file that is encrypted to one
of them, by age or SOPS, can lie in the repository and be the file of a
secret or config: it is decrypted on the host only. The keys are made the
first time; rekey keeps them.

Encrypt to your own recipient, too: without one of the keys the file can't
be read again. With --format json it prints one object a line.` + exitStatus(),
		Example: `  age -r "$(berth secret recipient -q)" -r age1mine… -o db.password.age db.password
  sops encrypt --age "$(berth secret recipient -q),age1mine…" app.yaml > app.enc.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, formatTable, formatJSON); err != nil {
				return err
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			list, err := client.ContentRecipients(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case format == formatJSON:
				return printJSONLines(a.stdout, list)
			case quiet || postQuantum:
				for _, r := range list {
					if r.From == "" && r.Hybrid == postQuantum {
						fmt.Fprintln(a.stdout, r.Recipient)
					}
				}
				return nil
			}
			fmt.Fprint(a.stdout, describeRecipients(list))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only the host's own for every age and sops")
	cmd.Flags().BoolVar(&postQuantum, "post-quantum", false, "only the host's own that is safe against quantum computers")
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table or json")
	return cmd
}

// describeRecipients puts what each is for above it, as age's files of
// recipients have comments.
func describeRecipients(list []api.ContentRecipient) string {
	var parts []string
	for _, r := range list {
		what := "for every age, and sops"
		if r.Hybrid {
			what = "safe against quantum computers too: for age 1.3 and later"
		}
		if r.From != "" {
			what += ", with the key in " + r.From
		}
		parts = append(parts, fmt.Sprintf("# %s\n%s\n", what, r.Recipient))
	}
	return strings.Join(parts, "\n")
}
