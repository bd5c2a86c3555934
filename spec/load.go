package spec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
)

// Options say which files to load and how. The zero value loads what
// `docker compose` would in Dir.
type Options struct {
	Dir         string   // where the user stands; "" is the process's
	ProjectDir  string   // --project-directory
	ProjectName string   // -p
	Files       []string // -f; "-" is Stdin; nil: found upward from Dir
	Profiles    []string
	EnvFiles    []string // --env-file
	// Environ is the environment for interpolation as KEY=VALUE; nil is the
	// process's.
	Environ []string
	// Services, when not empty, limits the stack to these services and what
	// they depend on; profiles of the named services are enabled.
	Services []string
	// NoDeps leaves the dependencies of Services out.
	NoDeps bool
	// NoInterpolate keeps ${VAR} as it is. Such a file is no stack: the
	// Result can only be printed with Config.
	NoInterpolate bool
	// NoNormalize adds no defaults (the default network, names of networks and
	// volumes), NoPathResolution keeps relative paths, NoConsistency checks
	// nothing beyond the schema: such a Result can be printed, but has no Stack.
	NoNormalize, NoPathResolution, NoConsistency bool
	// NoEnvResolution keeps env_file instead of reading it.
	NoEnvResolution bool
	// Inspect is for `config` and `lint`, which start nothing and may run
	// where the secrets are not: the content of configs and secrets is left
	// out, and what only fails at `up` (content that cannot be read, two
	// services on one port) is a warning.
	Inspect bool
	// AllResources keeps networks, volumes, configs and secrets that no
	// service uses.
	AllResources bool
	// Fetch gives the local file of a remote one, named with -f, under include
	// or in extends. Remote says what is one. Without them only local files
	// can be read.
	Fetch  func(ctx context.Context, ref string) (string, error)
	Remote func(path string) bool
	// Stdin is read for a file named "-".
	Stdin []byte
}

// Result is what Load found. Stack and Project are nil when Diagnostics holds
// an error.
type Result struct {
	Stack       *Stack
	Project     *types.Project // for `config`; never sent anywhere
	Diagnostics Diagnostics

	// references are the variables that the files mention; see Variables.
	references []Variable
	environ    map[string]string
	// model is the merged file when it was loaded without interpolation.
	model map[string]any
	// values is loading.secretValues until it is asked for, known what it said.
	values func() [][]byte
	known  [][]byte
}

// Load reads, merges, interpolates and checks the Compose files. A mistake of
// the user is not an error of Load: it is a Diagnostic. The error is for what
// has no place in a file, such as an unreadable folder. It may be called from
// several goroutines.
func Load(ctx context.Context, o Options) (*Result, error) {
	dir := o.Dir
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("find the current folder: %w", err)
		}
		dir = wd
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find folder %s: %w", o.Dir, err)
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("look into folder %s: %w", dir, err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("look into folder %s: it is a file", dir)
	}
	filterLoaderWarnings()
	l := &loading{o: o, dir: dir, bySource: map[string]*source{}, extended: map[string]extended{}, fetched: map[string]string{}}
	l.ctx = ctx
	l.run(ctx)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load Compose files: %w", err)
	}
	r := &Result{Diagnostics: l.diags.sorted(), references: l.references, environ: l.in.environ, values: l.secretValues}
	if !r.Diagnostics.Errors() {
		r.Project, r.Stack, r.model = l.project, l.stack, l.model
	}
	return r, nil
}

// warmSchema compiles the Compose schema beside what the loader does before it
// needs it: it takes longer than the rest of the first Load in a process.
var warmSchema = sync.OnceFunc(func() {
	go func() { _ = schema.Validate(map[string]any{}) }()
})

// loading is one call of Load.
type loading struct {
	o     Options
	dir   string
	in    inputs
	diags Diagnostics

	main     []*source // as merged
	bySource map[string]*source
	units    []*unit
	places   index

	// suspects are findings of our own walk that are only certain when the
	// loader fails too: `!reset` or a later file may have removed the place.
	suspects   Diagnostics
	references []Variable
	unset      Diagnostics // uses of variables without a value
	// ignored becomes diagnostics for what is still in the stack.
	ignored Diagnostics
	resets  []string // paths that a file removes with !reset

	ctx context.Context //nolint:containedctx // lives as long as one Load
	// fetched are the local files of remote ones, both ways.
	fetched map[string]string

	// extended is what the extension keys of each service say.
	extended map[string]extended
	// named are networks of the machine that network_mode names, by key.
	named map[string]Network

	jobs    map[string]types.ServiceConfig // resolved
	project *types.Project
	stack   *Stack
	model   map[string]any
}

func (l *loading) add(d ...Diagnostic) { l.diags = append(l.diags, d...) }
func (l *loading) show(path string) string {
	if ref, ok := l.fetched[path]; ok {
		return ref
	}
	return showPath(l.dir, path)
}

// fail reports a whole file that cannot be used.
func (l *loading) fail(shown string, err error, hint string) {
	message := err.Error()
	var fe *fileError
	if errors.As(err, &fe) {
		message = fe.reason
	}
	l.add(Diagnostic{Severity: Error, Position: Position{File: shown}, Message: message, Hint: hint})
}

func (l *loading) run(ctx context.Context) {
	l.in = l.discover()
	if len(l.in.files) == 0 && !l.diags.Errors() {
		l.add(Diagnostic{
			Severity: Error,
			Message:  fmt.Sprintf("no Compose file in %s or above it", l.dir),
			Hint:     "write compose.yaml there, or name a file with -f",
		})
	}
	l.readMain()
	if l.diags.Errors() {
		return
	}
	go composeRules() // beside the reading of the files
	l.survey(ctx)
	if l.diags.Errors() {
		return
	}
	if err := l.compose(ctx); err != nil {
		l.explain(err)
		l.warnUnset()
		l.more(ctx)
		return
	}
	if l.model != nil {
		return
	}
	for _, d := range l.stillThere(l.suspects) {
		// The loader took it, so it is no error; still it does nothing.
		d.Severity = Ignored
		l.add(d)
	}
	l.add(l.stillThere(l.ignored)...)
	l.warnUnset()
	if l.o.partial() {
		l.narrow()
		return
	}
	l.check()
	if l.diags.Errors() {
		return
	}
	l.convert()
}

// readMain reads the files that are merged, each once.
func (l *loading) readMain() {
	for _, path := range l.in.files {
		if path == "-" {
			if n := int64(len(l.o.Stdin)); n > maxYAML {
				l.fail(l.show(path), &fileError{path, fmt.Sprintf("is %s; the limit is %s", size(n), size(maxYAML))}, "split it, or move data into files")
				continue
			}
			l.main = append(l.main, newSource(path, l.show(path), l.o.Stdin))
			continue
		}
		s, err := readSource(path, l.show(path))
		if err != nil {
			hint := "check the name given with -f"
			if l.o.Files == nil {
				hint = "check COMPOSE_FILE"
			}
			l.fail(l.show(path), err, hint)
			continue
		}
		l.main = append(l.main, s)
	}
}

// compose runs the reference loader. A panic in it is reported as its error:
// a bad file must never end the program.
func (l *loading) compose(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the Compose loader failed: %v", p)
		}
	}()
	if l.o.NoInterpolate {
		l.model, err = loader.LoadModelWithContext(ctx, l.details(), l.options)
		withoutStandIns(l.model)
		return err //nolint:wrapcheck // explain takes the text apart
	}
	project, err := l.staged(ctx)
	if err != nil {
		warmSchema()
		project, err = loader.LoadWithContext(ctx, l.details(), l.options)
	}
	if err != nil {
		return err //nolint:wrapcheck // explain takes the text apart
	}
	for _, s := range l.main {
		project.ComposeFiles = append(project.ComposeFiles, s.path)
	}
	if len(l.o.Services) > 0 {
		if err := l.knowServices(project); err != nil {
			return err
		}
		if project, err = project.WithServicesEnabled(l.o.Services...); err != nil {
			return fmt.Errorf("enable services: %w", err)
		}
	}
	l.project = project
	return nil
}

// details are what the loader reads.
func (l *loading) details() types.ConfigDetails {
	details := types.ConfigDetails{WorkingDir: l.in.projectDir, Environment: maps.Clone(l.in.environ)}
	for _, s := range l.main {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: s.path, Content: s.loaded()})
	}
	return details
}

// options are how the loader reads it.
func (l *loading) options(o *loader.Options) {
	o.SetProjectName(l.in.name, l.in.named)
	o.Profiles = l.in.profiles
	o.SkipInterpolation = l.o.NoInterpolate
	o.SkipNormalization = l.o.NoNormalize
	o.ResolvePaths = !l.o.NoPathResolution
	// Consistency and files are checked here, to report all at once.
	o.SkipConsistencyCheck = true
	o.SkipResolveEnvironment = true
	o.SkipResolveLabels = true
	o.ResourceLoaders = append(o.ResourceLoaders, fetcher{l})
	o.Interpolate.Substitute = substitute
	o.Interpolate.TypeCastMapping = l.casts(o.Interpolate.TypeCastMapping)
}

// stillThere leaves out what a profile, a selection or !reset has removed.
func (l *loading) stillThere(ds Diagnostics) Diagnostics {
	return slices.DeleteFunc(ds, func(d Diagnostic) bool {
		if rest, ok := strings.CutPrefix(d.Path, "services."); ok && l.project != nil && !l.inStack(rest) {
			return true
		}
		return slices.ContainsFunc(l.resets, func(r string) bool {
			return within(d.Path, r)
		})
	})
}

func (l *loading) knowServices(p *types.Project) error {
	all := map[string]*element{}
	for name := range p.AllServices() {
		all[name] = nil
	}
	for _, name := range l.o.Services {
		if _, ok := all[name]; ok {
			continue
		}
		hint := "the services are: " + strings.Join(sortedKeys(all), ", ")
		if near := (&element{keys: all}).suggest(name); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return &plainError{fmt.Sprintf("no service %q in the stack", name), hint}
	}
	return nil
}

// plainError is an error that has no place in a file.
type plainError struct{ message, hint string }

func (e *plainError) Error() string { return e.message }

// substitute interpolates without the library's own log lines: variables
// reports what is unset, with the place.
func substitute(s string, lookup template.Mapping) (string, error) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
	out, err := template.SubstituteWithOptions(s, lookup, template.WithoutLogging)
	if err != nil {
		return "", err //nolint:wrapcheck // the loader tells errors of this package apart
	}
	return out, nil
}
