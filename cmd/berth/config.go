package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"berth/cli"
	"berth/spec"
)

type configOptions struct {
	format, output, hash                          string
	services, volumes, images, networks, profiles bool
	variables, environment, quiet, noInterpolate  bool
}

func newConfig(a *app) *cobra.Command {
	var o configOptions
	cmd := &cobra.Command{
		Use:   "config [SERVICE...]",
		Short: "Print the Compose file as Berth understands it",
		Long: `Check the Compose file and print it merged, interpolated and in the long
form, or only its services, images and so on. No agent is needed.` + exitStatus(),
		Example: `  berth config -q && echo fine
  berth config --services
  berth config --hash '*'`,
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.config(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", formatYAML, "`FORMAT`: yaml or json")
	f.StringVarP(&o.output, "output", "o", "", "write to this `FILE`")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing but mistakes")
	f.BoolVar(&o.noInterpolate, "no-interpolate", false, "leave ${VARIABLES} as they are")
	f.BoolVar(&o.services, "services", false, "print the names of services")
	f.BoolVar(&o.volumes, "volumes", false, "print the names of volumes")
	f.BoolVar(&o.networks, "networks", false, "print the names of networks")
	f.BoolVar(&o.images, "images", false, "print the images")
	f.BoolVar(&o.profiles, "profiles", false, "print the profiles")
	f.StringVar(&o.hash, "hash", "", "print the hash of `SERVICES`, comma-separated, or * for all")
	f.BoolVar(&o.variables, "variables", false, "print the variables that the file mentions")
	f.BoolVar(&o.environment, "environment", false, "print the environment of the interpolation")
	return cmd
}

func (a *app) config(ctx context.Context, o configOptions, services []string) error {
	if err := checkFormat(o.format, formatYAML, formatJSON); err != nil {
		return err
	}
	options, err := a.options()
	if err != nil {
		return err
	}
	options.Services, options.NoDeps, options.NoInterpolate = services, false, o.noInterpolate
	result, err := spec.Load(ctx, options)
	if err != nil {
		return err
	}
	if err := a.printFindings(result.Diagnostics); err != nil {
		return err
	}
	if o.quiet {
		return nil
	}
	var text strings.Builder
	if err := o.write(&text, result); err != nil {
		return err
	}
	if o.output != "" {
		if err := renameio.WriteFile(o.output, []byte(text.String()), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", o.output, err)
		}
		return nil
	}
	_, err = io.WriteString(a.stdout, text.String())
	return err
}

// write writes what the flags ask for: a list, or the whole file.
func (o configOptions) write(w io.Writer, r *spec.Result) error {
	for _, list := range []struct {
		asked bool
		names func() []string
	}{
		{o.services, r.Services},
		{o.volumes, r.Volumes},
		{o.networks, r.Networks},
		{o.images, r.Images},
		{o.profiles, r.Profiles},
		{o.environment, r.Environment},
	} {
		if list.asked {
			for _, name := range list.names() {
				fmt.Fprintln(w, name)
			}
			return nil
		}
	}
	switch {
	case o.hash != "":
		return writeHashes(w, r.Hashes(), o.hash)
	case o.variables:
		return writeVariables(w, r.Variables())
	}
	text, err := r.Config(o.format)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func writeHashes(w io.Writer, hashes map[string]string, asked string) error {
	names := slices.Sorted(maps.Keys(hashes))
	if asked != "*" {
		names = strings.Split(asked, ",")
	}
	for _, name := range names {
		hash, known := hashes[name]
		if !known {
			return fmt.Errorf("--hash: no such service: %s", name)
		}
		fmt.Fprintln(w, name, hash)
	}
	return nil
}

func writeVariables(w io.Writer, variables []spec.Variable) error {
	t := cli.Table{Head: []string{"NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"}}
	for _, v := range variables {
		t.Add(v.Name, strconv.FormatBool(v.Required), v.Default, v.Alternate)
	}
	return t.Write(w)
}
