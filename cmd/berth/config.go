package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
	"berth/redact"
	"berth/spec"
)

type configOptions struct {
	format, output, hash                          string
	services, volumes, images, networks, profiles bool
	models, variables, environment, quiet         bool
	noInterpolate, noNormalize, noPathResolution  bool
	noConsistency, noEnvResolution                bool
	resolveDigests, lockDigests, showSecrets      bool
}

func newConfig(a *app) *cobra.Command {
	var o configOptions
	cmd := &cobra.Command{
		Use:   "config [SERVICE...]",
		Short: "Print the Compose file as Berth understands it",
		Long: `Check the Compose file and print it merged, interpolated and in the long
form, or only its services, images and so on. No agent is needed but for
--resolve-image-digests and --lock-image-digests, which ask registries.

What --lock-image-digests prints is a file of its own, to be merged with
this one: berth -f compose.yaml -f lock.yaml up.

Where a value of a secret of this file stands, as in the environment of a
service, <redacted> is printed: what another program shall run needs
--show-secrets, and that needs root. What the secrets: section itself
delivers is never printed.` + exitStatus(),
		Aliases: []string{"convert"},
		Example: `  berth config -q && echo fine
  berth config --services
  berth config --hash '*'
  berth config --lock-image-digests -o lock.yaml`,
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.config(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", formatYAML, "`FORMAT`: yaml or json")
	f.StringVarP(&o.output, "output", "o", "", "write to this `FILE`")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing but mistakes")
	f.BoolVar(&o.noInterpolate, "no-interpolate", false, "leave ${VARIABLES} as they are")
	f.BoolVar(&o.noNormalize, "no-normalize", false, "add no defaults")
	f.BoolVar(&o.noPathResolution, "no-path-resolution", false, "leave relative paths as they are")
	f.BoolVar(&o.noConsistency, "no-consistency", false, "check no more than the schema")
	f.BoolVar(&o.noEnvResolution, "no-env-resolution", false, "leave env_file as it is")
	f.BoolVar(&o.resolveDigests, "resolve-image-digests", false, "name images by the digests that their tags have now")
	f.BoolVar(&o.lockDigests, "lock-image-digests", false, "print only the images, by digest, as a file to merge")
	f.BoolVar(&o.models, "models", false, "print the models")
	f.BoolVar(&o.services, "services", false, "print the names of services")
	f.BoolVar(&o.volumes, "volumes", false, "print the names of volumes")
	f.BoolVar(&o.networks, "networks", false, "print the names of networks")
	f.BoolVar(&o.images, "images", false, "print the images")
	f.BoolVar(&o.profiles, "profiles", false, "print the profiles")
	f.StringVar(&o.hash, "hash", "", "print the hash of `SERVICES`, comma-separated, or * for all")
	f.BoolVar(&o.variables, "variables", false, "print the variables that the file mentions")
	f.BoolVar(&o.environment, "environment", false, "print the environment of the interpolation")
	f.BoolVar(&o.showSecrets, "show-secrets", false, "print values of secrets as they are; needs root")
	return cmd
}

// limit says how to load for what is to be printed. The variables that a file
// mentions are those of the file as it is written.
func (o *configOptions) limit(options *spec.Options, services []string) {
	options.Services = services
	options.NoInterpolate = o.noInterpolate || o.variables
	options.NoNormalize, options.NoPathResolution = o.noNormalize, o.noPathResolution
	options.NoConsistency, options.NoEnvResolution = o.noConsistency, o.noEnvResolution
}

// check refuses flags that contradict each other.
func (o *configOptions) check() error {
	partial := o.noInterpolate || o.noNormalize || o.noPathResolution || o.noConsistency
	switch {
	case o.hash != "" && partial:
		return errors.New("--hash is of the whole service: leave out --no-interpolate, --no-normalize, --no-path-resolution and --no-consistency")
	case (o.resolveDigests || o.lockDigests) && o.noInterpolate:
		return errors.New("--no-interpolate leaves variables in the names of images: digests can't be asked for")
	}
	if o.showSecrets && os.Geteuid() != 0 {
		return hinted{errors.New("--show-secrets needs root"), "sudo berth config --show-secrets"}
	}
	return checkFormat(o.format, formatYAML, formatJSON)
}

func (a *app) config(ctx context.Context, o configOptions, services []string) error {
	if err := o.check(); err != nil {
		return err
	}
	options, err := a.options()
	if err != nil {
		return err
	}
	o.limit(&options, services)
	result, err := a.read(ctx, options)
	if err != nil {
		return err
	}
	if err := a.printFindings(result.Diagnostics); err != nil {
		return err
	}
	if o.quiet {
		return nil
	}
	if o.resolveDigests || o.lockDigests {
		if err := a.pinImages(ctx, result, o.lockDigests); err != nil {
			return err
		}
	}
	var text strings.Builder
	hidden := &a.secrets
	if o.showSecrets {
		hidden = nil
	}
	if err := o.write(&text, result, hidden); err != nil {
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

// write writes what the flags ask for, without the values that are hidden: a
// list, or the whole file.
func (o configOptions) write(w io.Writer, r *spec.Result, hidden *redact.Set) error {
	for _, list := range []struct {
		asked bool
		names func() []string
	}{
		{o.services, r.Services},
		{o.volumes, r.Volumes},
		{o.networks, r.Networks},
		{o.images, r.Images},
		{o.profiles, r.Profiles},
		{o.models, r.Models},
		{o.environment, r.Environment},
	} {
		if list.asked {
			for _, name := range list.names() {
				fmt.Fprintln(w, hidden.Text(name))
			}
			return nil
		}
	}
	switch {
	case o.hash != "":
		return writeHashes(w, r.Hashes(), o.hash)
	case o.variables:
		return writeVariables(w, r.Variables(), o.format, hidden)
	}
	hide := hidden.YAML
	if o.format == formatJSON {
		hide = hidden.JSON
	}
	text, err := r.Config(o.format, hide)
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

// variableRow is a variable as docker compose prints it with --format json.
type variableRow struct {
	Name, DefaultValue, PresenceValue string
	Required                          bool
}

func writeVariables(w io.Writer, variables []spec.Variable, format string, hidden *redact.Set) error {
	for i := range variables {
		v := &variables[i]
		v.Default, v.Alternate = hidden.Text(v.Default), hidden.Text(v.Alternate)
	}
	if format == formatJSON {
		rows := map[string]variableRow{}
		for _, v := range variables {
			rows[v.Name] = variableRow{v.Name, v.Default, v.Alternate, v.Required}
		}
		return cli.WriteJSON(w, rows)
	}
	t := cli.Table{Head: []string{"NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"}}
	for _, v := range variables {
		t.Add(v.Name, strconv.FormatBool(v.Required), v.Default, v.Alternate)
	}
	return t.Write(w)
}

// pinImages asks the registries for the digests of r's images.
func (a *app) pinImages(ctx context.Context, r *spec.Result, only bool) error {
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	req := api.ImageDigestsRequest{References: r.Pull()}
	if req.Auth, err = a.credentials(ctx, req.References); err != nil {
		return err
	}
	pinned, err := client.ImageDigests(ctx, req)
	if err != nil {
		return err
	}
	r.PinImages(pinned, only)
	return nil
}
