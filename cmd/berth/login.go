package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"berth/api"
	"berth/cli"
)

type loginOptions struct {
	user, password string
	fromStdin      bool
}

func newLogin(a *app) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login [REGISTRY]",
		Short: "Log in to a registry",
		Long: `Ask the registry whether it takes a name and a password, and keep them
where docker login does: in the credential helper that Docker's
configuration names, else in ~/.docker/config.json (DOCKER_CONFIG).
Without REGISTRY it is Docker Hub.

pull, push, up and the like send what is kept for a registry with their
request; the agent neither stores nor logs it.` + exitStatus(),
		Example: `  berth login registry.example
  cat token | berth login -u me --password-stdin registry.example`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host := cli.RegistryHost(strings.Join(args, ""))
			return a.login(cmd.Context(), host, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.user, "username", "u", "", "`NAME` (default: it is asked for)")
	f.StringVarP(&o.password, "password", "p", "", "`PASSWORD`; others on this machine can see it, --password-stdin is safer")
	f.BoolVar(&o.fromStdin, "password-stdin", false, "read the password from stdin")
	return cmd
}

func (a *app) login(ctx context.Context, host string, o loginOptions) error {
	if err := a.askLogin(host, &o); err != nil {
		return err
	}
	kept, err := cli.ReadCredentials()
	if err != nil {
		return err
	}
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	err = client.Login(ctx, api.LoginRequest{Registry: host, Auth: api.RegistryAuth{Username: o.user, Password: o.password}})
	if err != nil {
		return err
	}
	where, err := kept.Set(ctx, host, o.user, o.password)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "logged in to %s as %s; kept in %s\n", cli.Escape(host), cli.Escape(o.user), where)
	return nil
}

// maxPassword bounds what --password-stdin reads: a token has some kilobytes.
const maxPassword = 64 << 10

// askLogin fills in what the flags leave out: from stdin, or at the terminal
// without showing what is typed.
func (a *app) askLogin(host string, o *loginOptions) error {
	switch {
	case o.fromStdin && o.password != "":
		return errors.New("--password and --password-stdin contradict each other")
	case o.fromStdin && o.user == "":
		return errors.New("--password-stdin needs --username")
	case o.fromStdin:
		text, err := io.ReadAll(io.LimitReader(a.stdin, maxPassword))
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		o.password = strings.TrimRight(string(text), "\r\n")
	case (o.user == "" || o.password == "") && !isTerminal(a.stdin):
		return hinted{errors.New("nobody can be asked for a name and a password: stdin is no terminal"), "berth login -u NAME --password-stdin " + host}
	}
	if o.user == "" {
		fmt.Fprintf(a.stderr, "name at %s: ", cli.Escape(host))
		line, err := bufio.NewReader(a.stdin).ReadString('\n')
		if err != nil {
			return fmt.Errorf("read the name: %w", err)
		}
		o.user = strings.TrimSpace(line)
	}
	if o.password == "" && !o.fromStdin {
		fmt.Fprint(a.stderr, "password: ")
		text, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(a.stderr)
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		o.password = string(text)
	}
	if o.user == "" || o.password == "" {
		return errors.New("the name or the password is empty")
	}
	return nil
}

func newLogout(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "logout [REGISTRY]",
		Short: "Forget the login to a registry",
		Long: `Remove what login or docker login keeps for a registry; without REGISTRY
for Docker Hub.` + exitStatus(),
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host := cli.RegistryHost(strings.Join(args, ""))
			kept, err := cli.ReadCredentials()
			if err != nil {
				return err
			}
			found, err := kept.Remove(cmd.Context(), host)
			switch {
			case err != nil:
				return err
			case found:
				fmt.Fprintf(a.stdout, "logged out of %s\n", cli.Escape(host))
			default:
				fmt.Fprintf(a.stdout, "not logged in to %s\n", cli.Escape(host))
			}
			return nil
		},
	}
}
