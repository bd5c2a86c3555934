package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"berth/api"
	"berth/cli"
)

// contents is what `berth secret` and `berth configs` have in common.
type contents struct {
	*app
	kind, command string
	global        bool
}

func newSecret(a *app) *cobra.Command {
	c := &contents{app: a, kind: api.KindSecret, command: "secret"}
	cmd := c.group(`Keep secrets on this machine, encrypted, for stacks that name them as
external. Each has versions; services get the current one as a file, on a
tmpfs of their own. What a secret contains is never shown again.

A secret belongs to the stack of the Compose file here, or of -p; with
--global to all stacks, where the stack's own comes first.`)
	cmd.AddCommand(newSecretRecipient(a), newSecretRekey(a), newSecretExport(a), newSecretImport(a))
	return cmd
}

func newConfigs(a *app) *cobra.Command {
	c := &contents{app: a, kind: api.KindConfig, command: "configs"}
	return c.group(`Keep configs on this machine for stacks that name them as external. Each
has versions; services get the current one as a file.

A config belongs to the stack of the Compose file here, or of -p; with
--global to all stacks, where the stack's own comes first.`)
}

func (c *contents) group(long string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   c.command,
		Short: "Work with " + c.kind + "s that stacks name as external",
		Long:  long + exitStatus(),
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().BoolVar(&c.global, "global", false, "the "+c.kind+" of all stacks")
	cmd.AddCommand(c.newSet(), c.newLs(), c.newInspect(), c.newRm(), c.newRotate(), c.newRollback())
	return cmd
}

// scope is the stack that the command is about; "" is all of them.
func (c *contents) scope(ctx context.Context) (string, error) {
	if c.global {
		return "", nil
	}
	stack, err := c.stackName(ctx)
	if err != nil {
		return "", hinted{err, "-p NAME says for which stack, --global for all"}
	}
	return stack, nil
}

// scoped is scope and the agent.
func (c *contents) scoped(ctx context.Context) (string, *api.Client, error) {
	stack, err := c.scope(ctx)
	if err != nil {
		return "", nil, err
	}
	client, err := c.agent(ctx)
	return stack, client, err
}

// maxRead is above what the agent takes: its error names the limit.
const maxRead = 2 << 20

// read reads a content: from a file, from stdin, or typed without echo. No
// error will show it.
func (c *contents) read(name, file string) (content []byte, err error) {
	defer func() {
		if c.kind == api.KindSecret {
			c.secrets.Add(content)
		}
	}()
	in := c.stdin
	switch {
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	case file == "" && isTerminal(c.stdin):
		fmt.Fprintf(c.stderr, "%s (not shown): ", name)
		typed, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(c.stderr)
		if err != nil {
			return nil, fmt.Errorf("read what is typed: %w", err)
		}
		return typed, nil
	}
	content, err = io.ReadAll(io.LimitReader(in, maxRead))
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", c.kind, err)
	}
	if len(content) == 0 && file == "" {
		// The program before the pipe has failed, most likely.
		return nil, hinted{fmt.Errorf("nothing came from stdin: %s is not changed", name), "-f - stores an empty " + c.kind}
	}
	return content, nil
}

func (c *contents) fileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "read it from `FILE`; - is stdin")
}

func (c *contents) newSet() *cobra.Command {
	var file string
	var labels []string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Store a " + c.kind + ", or a new version of it",
		Long: `Store a new version, from FILE, stdin, or typed without echo. Nothing that
runs is changed: the next up of a stack takes it, and rotate does both.` + exitStatus(),
		Example: fmt.Sprintf(`  berth %[1]s set db_password -f password.txt
  openssl rand -hex 24 | berth %[1]s set api_key`, c.command),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			given, err := pairs("--label", labels)
			if err != nil {
				return err
			}
			content, err := c.read(args[0], file)
			if err != nil {
				return err
			}
			stack, client, err := c.scoped(cmd.Context())
			if err != nil {
				return err
			}
			set, err := client.SetContent(cmd.Context(), c.kind, api.ContentSet{
				Stack: stack, Name: args[0], Content: content, Labels: given, Actor: actor(),
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.stdout, "%s: version %d\n", cli.Escape(set.Name), set.Current)
			if len(set.UsedBy) > 0 && set.Current > 1 {
				fmt.Fprintf(c.stderr, "hint: %s have the version before; `berth %s rotate` would have rolled them, the next `berth up` does\n",
					cli.Escape(strings.Join(set.UsedBy, ", ")), c.command)
			}
			return nil
		},
	}
	c.fileFlag(cmd, &file)
	cmd.Flags().StringArrayVar(&labels, "label", nil, "`KEY=VALUE`")
	return cmd
}

func (c *contents) newLs() *cobra.Command {
	var quiet bool
	var format string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List " + c.kind + "s",
		Long: `List what is stored; with -p for one stack. With --format json it prints
one object a line.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, formatTable, formatJSON); err != nil {
				return err
			}
			client, err := c.agent(cmd.Context())
			if err != nil {
				return err
			}
			found, err := client.Contents(cmd.Context(), c.kind, c.app.global.project)
			if err != nil {
				return err
			}
			if c.global {
				found = slices.DeleteFunc(found, func(s api.Content) bool { return s.Stack != "" })
			}
			switch {
			case quiet:
				for _, s := range found {
					fmt.Fprintln(c.stdout, cli.Escape(s.Name))
				}
				return nil
			case format == formatJSON:
				return printJSONLines(c.stdout, found)
			}
			return cli.WriteContents(c.stdout, found, time.Now())
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "names only")
	cmd.Flags().StringVar(&format, "format", formatTable, "`FORMAT`: table or json")
	return cmd
}

func (c *contents) newInspect() *cobra.Command {
	what := "name, versions and who uses them; never what it contains"
	if c.kind == api.KindConfig {
		what = "name, versions, who uses them, and what it contains in base64"
	}
	return &cobra.Command{
		Use:               "inspect NAME...",
		Short:             "Show everything about " + c.kind + "s",
		Long:              "Show as one JSON array:\n" + what + "." + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			stack, client, err := c.scoped(cmd.Context())
			if err != nil {
				return err
			}
			var found []api.Content
			for _, name := range args {
				one, err := client.InspectContent(cmd.Context(), c.kind, stack, name)
				if err != nil {
					return err
				}
				found = append(found, one)
			}
			return cli.WriteJSON(c.stdout, found)
		},
	}
}

func (c *contents) newRm() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove " + c.kind + "s with all their versions",
		Long: `Remove what no running stack uses. Revisions that had it can still be gone
back to.` + exitStatus(),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			stack, client, err := c.scoped(cmd.Context())
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := client.RemoveContent(cmd.Context(), c.kind, stack, name); err != nil {
					return err
				}
				fmt.Fprintln(c.stdout, cli.Escape(name))
			}
			return nil
		},
	}
}

func (c *contents) newRotate() *cobra.Command {
	var file string
	var noWait bool
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Store a new version and roll the services that use it",
		Long: `Store a new version, and make a new revision of every stack that uses it.
Only the services that have it are rolled, as in any rollout: nothing is
dropped, and a version that does not work is rolled back. With x-on-change
they are signalled instead.` + exitStatus("3    not ready in time", "4    a stack did not become ready and was rolled back"),
		Example:           fmt.Sprintf("  openssl rand -hex 24 | berth %s rotate db_password", c.command),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			content, err := c.read(args[0], file)
			if err != nil {
				return err
			}
			return c.roll(cmd.Context(), args[0], api.ContentRoll{Content: content, Wait: !noWait})
		},
	}
	c.fileFlag(cmd, &file)
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (c *contents) newRollback() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "rollback NAME",
		Short: "Go back to the version before and roll the services that use it",
		Long: `Make the version before the current one current again, and roll the services
that use it.` + exitStatus("3    not ready in time", "4    a stack did not become ready and was rolled back"),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.roll(cmd.Context(), args[0], api.ContentRoll{Back: true, Wait: !noWait})
		},
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (c *contents) roll(ctx context.Context, name string, req api.ContentRoll) error {
	stack, client, err := c.scoped(ctx)
	if err != nil {
		return err
	}
	req.Stack, req.Actor = stack, actor()
	return c.carryRollout(ctx, client.RollContent(ctx, c.kind, name, req))
}

func (c *contents) completeNames(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return c.complete(cmd, func(ctx context.Context, client *api.Client) []string {
		found, err := client.Contents(ctx, c.kind, c.app.global.project)
		if err != nil {
			return nil
		}
		var names []string
		for _, s := range found {
			names = append(names, s.Name)
		}
		return without(names, args, toComplete)
	})
}

func newSecretRekey(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rekey",
		Short: "Encrypt the store to a new identity",
		Long: `Make a new identity, encrypt all secrets and configs to it, and forget the
old one. What is cut off is finished when the agent starts. Files in
repositories stay readable: what recipient shows is kept. An identity that
the agent's configuration names is not Berth's to replace: the error says
what to do then.` + exitStatus(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			return client.RekeyContents(cmd.Context())
		},
	}
}

func newSecretExport(a *app) *cobra.Command {
	var recipients []string
	var passphrase, output string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all secrets and configs to an encrypted file",
		Long: `Write the current versions of all secrets and configs of the store as an
age file, for a backup or another machine. It is encrypted to the recipients
or with the passphrase in a file; age can open it too.` + exitStatus(),
		Example: `  berth secret export --recipient age1… -o secrets.age
  berth secret export --passphrase-file phrase.txt > secrets.age`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			phrase, err := readPhrase(passphrase)
			if err != nil {
				return err
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			data, err := client.ExportContents(cmd.Context(), api.ContentExport{Recipients: recipients, Passphrase: phrase})
			if err != nil {
				return err
			}
			switch {
			case output != "":
				return os.WriteFile(output, data, 0o600)
			case isTerminal(a.stdout):
				return hinted{errors.New("an encrypted file is not for a terminal"), "-o FILE, or redirect it"}
			}
			_, err = a.stdout.Write(data)
			return err
		},
	}
	cmd.Flags().StringArrayVar(&recipients, "recipient", nil, "encrypt to this `AGE1…`; may be repeated")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "encrypt with the passphrase in `FILE`")
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE`, mode 0600")
	return cmd
}

func newSecretImport(a *app) *cobra.Command {
	var identity, passphrase string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Bring an export back",
		Long: `Store what an export has: a new version of each secret and config whose
content differs. Nothing that runs is changed. - is stdin.` + exitStatus(),
		Example: "  berth secret import --identity key.txt secrets.age",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.ContentImport{Actor: actor()}
			var err error
			if req.Passphrase, err = readPhrase(passphrase); err != nil {
				return err
			}
			if identity != "" {
				text, err := os.ReadFile(identity)
				if err != nil {
					return err
				}
				req.Identity = string(text)
			}
			if args[0] == "-" {
				req.Data, err = io.ReadAll(a.stdin)
			} else {
				req.Data, err = os.ReadFile(args[0])
			}
			if err != nil {
				return err
			}
			client, err := a.agent(cmd.Context())
			if err != nil {
				return err
			}
			changed, err := client.ImportContents(cmd.Context(), req)
			if err != nil {
				return err
			}
			for _, c := range changed {
				fmt.Fprintf(a.stdout, "%s %s: version %d\n", c.Kind, cli.Escape(c.Name), c.Current)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&identity, "identity", "", "open it with the age identity in `FILE`")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "open it with the passphrase in `FILE`")
	return cmd
}

// readPhrase reads the first line of a file; "" for no file.
func readPhrase(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	phrase, _, _ := strings.Cut(string(text), "\n")
	phrase = strings.TrimSuffix(phrase, "\r")
	if phrase == "" {
		return "", fmt.Errorf("%s has no passphrase in its first line", path)
	}
	return phrase, nil
}
