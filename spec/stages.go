package spec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	interp "github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/override"
	"github.com/compose-spec/compose-go/v2/paths"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/transform"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/compose-spec/compose-go/v2/validation"
	"go.yaml.in/yaml/v4"
)

// The reference loader is a row of stages. Most of them hold each value of the
// files against each of forty patterns, although few attributes have any, and
// that is two thirds of the time of a load. So the stages are called one by
// one here, in the loader's order, and each is shown only the attributes that
// it has patterns for.
//
// That is for plain files which are right, nine of ten. All that leads
// elsewhere (include, extends from another file, !reset, x-develop), and any
// error, is left to the loader itself: whatever goes wrong here, it says what
// it is.

// stage is one of the loader's: it gives the altered model.
type stage func(map[string]any) (map[string]any, error)

// errNotPlain is the answer to files that need the loader itself.
var errNotPlain = errors.New("not a plain file")

// The attributes of a service or a job that a stage of the loader looks at.
// TestStages_EveryAttribute_AsTheLoader holds them to the loader.
var (
	seenByUnicity = attributes(`annotations build cap_add cap_drop configs deploy devices dns dns_opt dns_search
		env_file environment expose labels links networks ports profiles secrets sysctls tmpfs volumes`)
	seenByCanonical = attributes(`build configs depends_on develop devices dns env_file gpus label_file models networks
		ports pre_start secrets triggers ulimits volumes`)
	seenByOmit       = attributes("dns")
	seenByValidation = attributes("deploy develop gpus ports")
	seenByPaths      = attributes("build develop env_file label_file pre_start volumes")
)

func attributes(names string) map[string]bool {
	out := map[string]bool{}
	for _, name := range strings.Fields(names) {
		out[name] = true
	}
	return out
}

// staged loads plain files stage by stage.
func (l *loading) staged(ctx context.Context) (p *types.Project, err error) {
	repaired := slices.ContainsFunc(l.main, func(s *source) bool { return s.repaired != nil })
	if l.o.partial() || repaired || len(l.suspects) > 0 || len(l.units) != len(l.main) {
		return nil, errNotPlain
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errNotPlain, r)
		}
	}()
	details := l.details()
	opts := loader.ToOptions(&details, []func(*loader.Options){l.options})
	var files []map[string]any
	for _, f := range details.ConfigFiles {
		docs, err := plain(f.Content)
		if err != nil {
			return nil, err
		}
		files = append(files, docs...)
	}
	name, err := l.stackName(files, opts)
	if err != nil {
		return nil, err
	}
	opts.SetProjectName(name, l.in.named)
	details.Environment[consts.ComposeProjectName] = name
	dict := map[string]any{}
	for _, file := range files {
		if dict, err = overlay(ctx, dict, file, opts); err != nil {
			return nil, err
		}
	}
	if dict, err = l.complete(dict, name, details); err != nil {
		return nil, err
	}
	return project(dict, opts, details)
}

// plain reads the documents of a file that needs no more than the stages.
func plain(text []byte) ([]map[string]any, error) {
	if bytes.Contains(text, []byte("!reset")) || bytes.Contains(text, []byte("!override")) {
		return nil, errNotPlain
	}
	var docs []map[string]any
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var raw any
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("decode: %w", err)
		}
		doc, ok := raw.(map[string]any)
		if _, include := doc["include"]; !ok || include || !plainKeys(doc) {
			return nil, errNotPlain
		}
		docs = append(docs, doc)
	}
}

// zero makes the empty list of services that have been extended already, whose
// type the loader keeps to itself.
func zero[T any](func(context.Context, map[string]any, *loader.Options, *T, loader.PostProcessor) error) *T {
	return new(T)
}

// plainKeys says that all keys below v are texts, and none leads to another
// part of the files.
func plainKeys(v any) bool {
	switch v := v.(type) {
	case map[any]any:
		return false
	case map[string]any:
		for key, e := range v {
			from, _ := e.(map[string]any)
			if key == "x-develop" || key == "x-initialSync" || (key == "extends" && from["file"] != nil) || !plainKeys(e) {
				return false
			}
		}
	case []any:
		for _, e := range v {
			if !plainKeys(e) {
				return false
			}
		}
	}
	return true
}

// stackName is the last `name:` of the files where the user gave none.
func (l *loading) stackName(files []map[string]any, opts *loader.Options) (string, error) {
	name, explicit := opts.GetProjectName()
	if explicit {
		if loader.NormalizeProjectName(name) != name {
			return "", errNotPlain
		}
		return name, nil
	}
	var written string
	for _, file := range files {
		switch v := file["name"].(type) {
		case nil:
		case string:
			if v != "" {
				written = v
			}
		default:
			return "", errNotPlain
		}
	}
	written, err := opts.Interpolate.Substitute(written, template.Mapping(opts.Interpolate.LookupValue))
	if err != nil {
		return "", err //nolint:wrapcheck // only whether there is an error is asked
	}
	if written = loader.NormalizeProjectName(written); written != "" {
		name = written
	}
	if name == "" {
		return "", errNotPlain
	}
	return name, nil
}

// overlay lays one file over those before it.
func overlay(ctx context.Context, dict, file map[string]any, opts *loader.Options) (map[string]any, error) {
	casts := newPatterns(opts.Interpolate.TypeCastMapping)
	filled, err := interpolate(file, opts.Interpolate, rest[interp.Cast]{casts})
	if err != nil {
		return nil, err
	}
	file, _ = filled.(map[string]any)
	// The loader asks for the name of the file, for its errors.
	ctx = context.WithValue(ctx, consts.ComposeFileKey{}, "")
	if err := loader.ApplyExtends(ctx, file, opts, zero(loader.ApplyExtends), loader.NoopPostProcessor{}); err != nil {
		return nil, err //nolint:wrapcheck // only whether there is an error is asked
	}
	if dict, err = override.Merge(dict, file); err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	if err := on(dict, seenByUnicity, override.EnforceUnicity); err != nil {
		return nil, err
	}
	if valid(dict) != nil {
		if err := schema.Validate(dict); err != nil {
			return nil, err //nolint:wrapcheck // as above
		}
	}
	delete(dict, "version")
	for _, stage := range []struct {
		seen map[string]bool
		run  stage
	}{
		{seenByCanonical, func(d map[string]any) (map[string]any, error) { return transform.Canonical(d, false) }},
		{seenByOmit, func(d map[string]any) (map[string]any, error) { return loader.OmitEmpty(d), nil }},
		{seenByUnicity, override.EnforceUnicity},
	} {
		if err := on(dict, stage.seen, stage.run); err != nil {
			return nil, err
		}
	}
	return dict, nil
}

// complete adds the defaults to the merged files, and makes their paths
// absolute.
func (l *loading) complete(dict map[string]any, name string, details types.ConfigDetails) (map[string]any, error) {
	defaults := rest[transform.Func]{newPatterns(transform.DefaultValues)}
	_, err := defaults.each(dict, func(f transform.Func, v any) (any, error) { return f(v, "", false) })
	if err != nil {
		return nil, err
	}
	err = on(dict, seenByValidation, func(d map[string]any) (map[string]any, error) { return d, validation.Validate(d) })
	if err != nil {
		return nil, err
	}
	err = on(dict, seenByPaths, func(d map[string]any) (map[string]any, error) {
		return d, paths.ResolveRelativePaths(d, details.WorkingDir, []paths.RemoteResource{fetcher{l}.Accept})
	})
	if err != nil {
		return nil, err
	}
	loader.ResolveEnvironment(dict, details.Environment)
	if len(dict) == 0 {
		return nil, errNotPlain
	}
	dict["name"] = name
	return loader.Normalize(dict, details.Environment) //nolint:wrapcheck // only whether there is an error is asked
}

// on runs a stage on dict. Of services and jobs it sees only some attributes.
func on(dict map[string]any, seen map[string]bool, run stage) error {
	view := maps.Clone(dict)
	for _, kind := range []string{"services", "jobs"} {
		if containers, ok := dict[kind].(map[string]any); ok {
			view[kind] = narrowed(containers, seen)
		}
	}
	view, err := run(view)
	if err != nil {
		return err
	}
	for key, v := range view {
		containers, ok := dict[key].(map[string]any)
		if !ok || (key != "services" && key != "jobs") {
			dict[key] = v
			continue
		}
		views, _ := v.(map[string]any)
		for name, v := range views {
			attributes, _ := v.(map[string]any)
			container, _ := containers[name].(map[string]any)
			maps.Copy(container, attributes)
		}
	}
	return nil
}

// narrowed is a copy of services or jobs with only the attributes in seen.
// What is no mapping stays as it is, for the stage to refuse.
func narrowed(containers map[string]any, seen map[string]bool) map[string]any {
	out := make(map[string]any, len(containers))
	for name, c := range containers {
		container, ok := c.(map[string]any)
		if !ok {
			out[name] = c
			continue
		}
		view := map[string]any{}
		for attribute, value := range container {
			if seen[attribute] {
				view[attribute] = value
			}
		}
		out[name] = view
	}
	return out
}

// project makes the Project of a complete model.
func project(model map[string]any, opts *loader.Options, details types.ConfigDetails) (*types.Project, error) {
	services, err := decodeServices(model)
	if err != nil {
		return nil, err
	}
	p, err := loader.ModelToProject(model, opts, details)
	if err != nil {
		return nil, err //nolint:wrapcheck // only whether there is an error is asked
	}
	for name, s := range services {
		if s.HasProfile(opts.Profiles) {
			p.Services[name] = s
		} else {
			p.DisabledServices[name] = s
		}
	}
	return p, nil
}
