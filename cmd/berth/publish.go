package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"berth/cli"
	"berth/remote"
	"berth/spec"
)

type publishOptions struct {
	digests, env, yes bool
	ociVersion        string
}

func newPublish(a *app) *cobra.Command {
	var o publishOptions
	cmd := &cobra.Command{
		Use:   "publish [flags] REPOSITORY[:TAG]",
		Short: "Publish the stack's files as an artifact of a registry",
		Long: `Push the Compose files to a registry, as they are: -f oci://REPOSITORY:TAG
reads them from there, with Berth or with Docker Compose. Credentials are
those of berth login.

A stack that needs more than its files can't be published: binds of
relative paths, build contexts, include, extends, and files of configs
and secrets stay here. Values of environment are in the artifact for all
who may read it; so env_file and environment need --with-env.` + exitStatus(),
		Example: `  berth publish registry.example/team/shop:1.4 --resolve-image-digests
  berth -f oci://registry.example/team/shop:1.4 up -d`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.publish(cmd.Context(), o, args[0]) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.digests, "resolve-image-digests", false, "fix each image to the digest that its tag has now")
	f.BoolVar(&o.env, "with-env", false, "publish env_file and values of environment too")
	f.BoolVarP(&o.yes, "yes", "y", false, "accepted; nothing is asked")
	f.StringVar(&o.ociVersion, "oci-version", "1.1", "accepted: `VERSION` 1.1")
	return cmd
}

func (a *app) publish(ctx context.Context, o publishOptions, ref string) error {
	if o.ociVersion != "1.1" {
		return fmt.Errorf("--oci-version %s: only 1.1 is written", o.ociVersion)
	}
	options, err := a.options()
	if err != nil {
		return err
	}
	options.AllResources = true
	result, err := a.read(ctx, options)
	if err != nil {
		return err
	}
	if err := a.printFindings(result.Diagnostics); err != nil {
		return err
	}
	files, err := o.files(result)
	if err != nil {
		return err
	}
	if o.digests {
		pins, err := digests(ctx, result.Stack)
		if err != nil {
			return err
		}
		files = append(files, remote.File{Name: "image-digests.yaml", Data: pins})
	}
	digest, err := remote.Publish(ctx, strings.TrimPrefix(ref, "oci://"), files)
	if err != nil {
		return hinted{err, "check the name, and `berth login`"}
	}
	fmt.Fprintf(a.stdout, "%s@%s\n", cli.Escape(ref), digest)
	return nil
}

// composeTop is what of a Compose file names other files.
type composeTop struct {
	Include  any `yaml:"include"`
	Services map[string]struct {
		EnvFile any `yaml:"env_file"`
	} `yaml:"services"`
}

// addEnvFiles adds the files that env_file names, each once.
func (t composeTop) addEnvFiles(out []remote.File, dir string) ([]remote.File, error) {
	for _, service := range slices.Sorted(maps.Keys(t.Services)) {
		list, ok := t.Services[service].EnvFile.([]any)
		if !ok {
			list = []any{t.Services[service].EnvFile}
		}
		for _, entry := range list {
			required := true
			if long, ok := entry.(map[string]any); ok {
				required, entry = long["required"] != false, long["path"]
			}
			file, ok := entry.(string)
			if !ok {
				continue
			}
			file = filepath.Clean(file)
			if !filepath.IsLocal(file) || strings.Contains(file, "$") {
				return nil, fmt.Errorf("service %s reads %s, which is not a file of the stack's folder", service, file)
			}
			if slices.ContainsFunc(out, func(have remote.File) bool { return have.Env && have.Name == file }) {
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, file))
			if os.IsNotExist(err) && !required {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", file, err)
			}
			out = append(out, remote.File{Name: file, Data: data, Env: true})
		}
	}
	return out, nil
}

// files are what is published; the error says what would be missing.
func (o publishOptions) files(r *spec.Result) ([]remote.File, error) {
	dir := r.Project.WorkingDir
	var out []remote.File
	for _, path := range r.Project.ComposeFiles {
		if path == "-" {
			return nil, errors.New("a Compose file from stdin can't be published")
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		var top composeTop
		if err := yaml.Unmarshal(data, &top); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if top.Include != nil {
			return nil, hinted{fmt.Errorf("%s includes other files, which the artifact would lack", filepath.Base(path)), "merge them: berth config -o merged.yaml"}
		}
		out = append(out, remote.File{Name: filepath.Base(path), Data: data})
		if o.env {
			if out, err = top.addEnvFiles(out, dir); err != nil {
				return nil, err
			}
		}
	}
	lacks := o.lacks(r.Project, dir)
	if len(lacks) > 0 {
		slices.Sort(lacks)
		return nil, hinted{errors.New("the artifact would not be the stack: " + strings.Join(lacks, "; ")), "use images, volumes and content instead"}
	}
	return out, nil
}

// lacks lists what of a stack an artifact would not hold.
func (o publishOptions) lacks(p *types.Project, dir string) []string {
	var lacks []string
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		if s.Build != nil && s.Image == "" {
			lacks = append(lacks, "service "+name+" is built and has no image")
		}
		for _, v := range s.Volumes {
			if v.Type == "bind" && within(dir, v.Source) {
				lacks = append(lacks, "service "+name+" mounts "+v.Source)
			}
		}
		if !o.env && len(s.Environment) > 0 {
			lacks = append(lacks, "service "+name+" has environment, which --with-env publishes")
		}
	}
	for key, c := range p.Configs {
		if c.File != "" {
			lacks = append(lacks, "config "+key+" is the file "+c.File)
		}
	}
	for key, s := range p.Secrets {
		if s.File != "" {
			lacks = append(lacks, "secret "+key+" is the file "+s.File)
		}
	}
	return lacks
}

func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// digests is a Compose file that fixes each image.
func digests(ctx context.Context, st *spec.Stack) ([]byte, error) {
	type pin struct {
		Image string `yaml:"image"`
	}
	services := map[string]pin{}
	for name, s := range st.Services {
		if s.Image == "" || strings.Contains(s.Image, "@") || s.StepOf != "" {
			continue
		}
		digest, err := remote.Digest(ctx, s.Image)
		if err != nil {
			return nil, err
		}
		services[name] = pin{s.Image + "@" + digest}
	}
	text, err := yaml.Marshal(map[string]any{"services": services})
	if err != nil {
		return nil, fmt.Errorf("write the digests: %w", err)
	}
	return text, nil
}
