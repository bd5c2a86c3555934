package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/api"
	"berth/cli"
	"berth/spec"
)

type buildOptions struct {
	args, ssh           []string
	noCache, pull, push bool
	quiet, withDeps     bool
	print, check        bool
	memory, builder     string
	provenance, sbom    string
}

func newBuild(a *app) *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build [SERVICE...]",
		Short: "Build the images of services",
		Long: `Build the images of the services that have a build section, those that
others begin with first, what can be at once. Running containers stay as
they are: the next up uses what was built, and replaces nothing if the
image is the same.

The agent builds with the BuildKit of BUILDKIT_HOST, with a buildkitd
that it starts, or with buildah, whichever is there first.` + exitStatus(),
		Example: `  berth build
  berth build --pull --no-cache web
  berth build --build-arg VERSION=2 && berth up -d`,
		ValidArgsFunction: a.completeServices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.build(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.args, "build-arg", nil, "set an argument, `NAME=VALUE`, of all builds; NAME takes it from the environment")
	f.StringVar(&o.builder, "builder", "", "build with `BUILDER`: buildkit, buildah, or the address of a BuildKit")
	f.BoolVar(&o.check, "check", false, "check the Dockerfiles and build nothing")
	f.StringVarP(&o.memory, "memory", "m", "", "memory that a step may use, `SIZE`; buildah only")
	f.BoolVar(&o.noCache, "no-cache", false, "build every step anew")
	f.BoolVar(&o.print, "print", false, "print the builds as a bake file and build nothing")
	f.StringVar(&o.provenance, "provenance", "", "attach a provenance attestation, `MODE`; BuildKit only")
	f.BoolVar(&o.pull, "pull", false, "ask registries for newer base images")
	f.BoolVar(&o.push, "push", false, "push the images when all are built")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the images' ids only")
	f.StringVar(&o.sbom, "sbom", "", "attach a list of contents, `MODE`; BuildKit only")
	f.StringArrayVar(&o.ssh, "ssh", nil, "offer an SSH agent or key, `ID[=PATH]`, to all builds (default: the user's agent)")
	f.BoolVar(&o.withDeps, "with-dependencies", false, "also build what the named services depend on")
	return cmd
}

func (a *app) build(ctx context.Context, o buildOptions, services []string) error {
	options, err := o.options()
	if err != nil {
		return err
	}
	result, err := a.load(ctx, services, !o.withDeps)
	if err != nil {
		return err
	}
	built := builtServices(result.Stack)
	if len(services) > 0 && !o.withDeps {
		built = slices.DeleteFunc(built, func(name string) bool { return !slices.Contains(services, name) })
	}
	builds, err := cli.Builds(result.Stack, built, options)
	if err != nil {
		return err
	}
	if o.print {
		return a.printBake(builds)
	}
	if len(builds) == 0 {
		fmt.Fprintln(a.stderr, "no service has a build section: there is nothing to build")
		return nil
	}
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	if o.quiet {
		a.global.progress = "quiet"
	}
	options.Auths = a.buildCredentials(ctx, builds)
	if err := a.carry(a.tellBuilt(cli.RunBuilds(ctx, client, builds, options), o.quiet)); err != nil || !o.push || o.check {
		return err
	}
	var refs []string
	for _, name := range built {
		s := result.Stack.Services[name]
		for _, ref := range append([]string{s.Image}, s.Build.Tags...) {
			if ref != "" && !slices.Contains(refs, ref) {
				refs = append(refs, ref)
			}
		}
	}
	return a.push(ctx, refs, false, o.quiet)
}

// buildCredentials are the user's for the registries that builds may ask.
func (a *app) buildCredentials(ctx context.Context, builds []*cli.Build) api.Auths {
	var refs []string
	for _, b := range builds {
		refs = append(refs, b.References()...)
	}
	auths, err := a.credentials(ctx, refs)
	if err != nil { // most often the images are public; a registry that refuses says so
		fmt.Fprintln(a.stderr, "warning: no credentials are sent: "+cli.Escape(err.Error()))
	}
	return auths
}

// tellBuilt prints the ids of images as they are built, if that is all that is
// printed.
func (a *app) tellBuilt(stream iter.Seq2[api.Progress, error], quiet bool) iter.Seq2[api.Progress, error] {
	return func(yield func(api.Progress, error) bool) {
		for p, err := range stream {
			if p.Built != nil && quiet {
				fmt.Fprintln(a.stdout, p.Built.ID)
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

func (o *buildOptions) options() (cli.BuildOptions, error) {
	out := cli.BuildOptions{
		NoCache: o.noCache, Pull: o.pull, Check: o.check, Builder: o.builder,
		Provenance: o.provenance, SBOM: o.sbom, Args: map[string]string{},
	}
	for _, arg := range o.args {
		name, value, given := strings.Cut(arg, "=")
		if name == "" {
			return out, fmt.Errorf("--build-arg %q: write NAME=VALUE", arg)
		}
		if !given {
			if value, given = os.LookupEnv(name); !given {
				continue
			}
		}
		out.Args[name] = value
	}
	for _, s := range o.ssh {
		id, path, _ := strings.Cut(s, "=")
		out.SSH = append(out.SSH, spec.BuildSSH{ID: id, Path: path})
	}
	if o.memory != "" {
		n, err := units.RAMInBytes(o.memory)
		if err != nil {
			return out, fmt.Errorf("--memory %q: write a size such as 512m", o.memory)
		}
		out.Memory = n
	}
	out.Builder = builderOf(out.Builder)
	return out, nil
}

// builderOf is the builder that the user names, or the BuildKit of the user's
// BUILDKIT_HOST: the agent has an environment of its own.
func builderOf(flag string) string {
	if flag == "" {
		return os.Getenv("BUILDKIT_HOST")
	}
	return flag
}

// builtServices are the services that have a build section.
func builtServices(stack *spec.Stack) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(stack.Services)) {
		if stack.Services[name].Build != nil {
			out = append(out, name)
		}
	}
	return out
}

// When ensureBuilt builds an image.
const (
	buildMissing = iota // that is not in the store
	buildAlways         // --build
	buildNever          // --no-build
)

func addBuildFlags(f *pflag.FlagSet, build, noBuild *bool) {
	f.BoolVar(build, "build", false, "build images before, also those that are here")
	f.BoolVar(noBuild, "no-build", false, "build no image, even if one is missing")
}

func buildWhen(build, noBuild bool) (int, error) {
	switch {
	case build && noBuild:
		return 0, fmt.Errorf("--build and --no-build contradict each other")
	case build:
		return buildAlways, nil
	case noBuild:
		return buildNever, nil
	}
	return buildMissing, nil
}

// ensureBuilt makes the images of the stack's services that have a build
// section present, before the stack is applied: it builds them, or pulls those
// that have a name of their own and that a registry has. It shows the progress.
func (a *app) ensureBuilt(ctx context.Context, client *api.Client, stack *spec.Stack, when int, pull string, quiet bool) error {
	var wanted []string
	for _, name := range builtServices(stack) {
		s := stack.Services[name]
		switch must, err := a.mustBuild(ctx, client, stack, &s, when, pull); {
		case err != nil:
			return err
		case must && when == buildNever:
			return hinted{
				fmt.Errorf("the image of service %s, %s, is not here, and --no-build is given", name, stack.ImageOf(name)),
				"`berth build " + name + "` builds it",
			}
		case must:
			wanted = append(wanted, name)
		}
	}
	options := cli.BuildOptions{Builder: builderOf("")}
	builds, err := cli.Builds(stack, wanted, options)
	if err != nil || len(builds) == 0 {
		return err
	}
	options.Auths = a.buildCredentials(ctx, builds)
	if quiet {
		defer func(was string) { a.global.progress = was }(a.global.progress)
		a.global.progress = "quiet"
	}
	return a.carry(cli.RunBuilds(ctx, client, builds, options))
}

// mustBuild decides as Docker Compose does: an image that is here is used
// unless building is asked for, and one with a name of its own may be had from
// a registry.
func (a *app) mustBuild(ctx context.Context, client *api.Client, stack *spec.Stack, s *spec.Service, when int, pull string) (bool, error) {
	if when == buildAlways || s.PullPolicy == "build" && when != buildNever {
		return true, nil
	}
	_, err := client.InspectImage(ctx, stack.ImageOf(s.Name))
	here := err == nil
	if err != nil && !noSuchImage(err) {
		return false, err
	}
	policy := pull
	if policy == "" {
		policy = s.PullPolicy
	}
	if s.Image != "" && policy != "never" && policy != "build" && (!here || policy != "" && policy != "missing" && policy != "if_not_present") {
		request := api.ImagePullRequest{Reference: s.Image, Platform: s.Platform, Policy: policy}
		if auths, err := a.credentials(ctx, []string{s.Image}); err == nil {
			request.Auth = auths
		}
		for p, err := range client.PullImage(ctx, request) {
			if err != nil {
				return !here, context.Cause(ctx) // a registry without it is no failure: it is built
			}
			if p.Done != nil {
				here = here || p.Done.Outcome == api.OutcomeDone
			}
		}
	}
	return !here, nil
}

// noSuchImage says that the store has not the image.
func noSuchImage(err error) bool {
	var problem *api.Error
	return errors.As(err, &problem) && problem.Status == http.StatusNotFound
}

// bakeTarget is a target of `docker buildx bake`.
type bakeTarget struct {
	Context          string            `json:"context,omitempty"`
	Contexts         map[string]string `json:"contexts,omitempty"`
	Dockerfile       string            `json:"dockerfile,omitempty"`
	DockerfileInline string            `json:"dockerfile-inline,omitempty"`
	Args             map[string]string `json:"args,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	Tags             []string          `json:"tags,omitempty"`
	Target           string            `json:"target,omitempty"`
	CacheFrom        []string          `json:"cache-from,omitempty"`
	CacheTo          []string          `json:"cache-to,omitempty"`
	Platforms        []string          `json:"platforms,omitempty"`
	NoCache          bool              `json:"no-cache,omitempty"`
	Pull             bool              `json:"pull,omitempty"`
}

// printBake prints the builds in the format of `docker buildx bake`.
func (a *app) printBake(builds []*cli.Build) error {
	targets := map[string]bakeTarget{}
	for _, b := range builds {
		s := b.Spec
		contexts := maps.Clone(s.Contexts)
		for name, source := range contexts {
			if service, ok := strings.CutPrefix(source, "service:"); ok {
				contexts[name] = "target:" + service
			}
		}
		for _, service := range b.Services {
			targets[service] = bakeTarget{
				Context: s.Context, Contexts: contexts, Dockerfile: s.Dockerfile, DockerfileInline: s.DockerfileInline,
				Args: s.Args, Labels: s.Labels, Tags: b.Names, Target: s.Target, CacheFrom: s.CacheFrom,
				CacheTo: s.CacheTo, Platforms: s.Platforms, NoCache: s.NoCache, Pull: s.Pull,
			}
		}
	}
	text, err := json.MarshalIndent(map[string]any{
		"group":  map[string]any{"default": map[string]any{"targets": slices.Sorted(maps.Keys(targets))}},
		"target": targets,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("print the builds: %w", err)
	}
	_, err = io.WriteString(a.stdout, string(text)+"\n")
	return err
}
