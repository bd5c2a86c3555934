package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"berth/api"
	"berth/build"
	"berth/spec"
)

// BuildOptions are what `berth build` has for all services.
type BuildOptions struct {
	Args                 map[string]string
	SSH                  []spec.BuildSSH
	NoCache, Pull, Check bool
	Memory               int64
	// Builder is buildkit, buildah or an address; "" leaves it to the agent.
	Builder          string
	Provenance, SBOM string
	// Auths are credentials by registry host.
	Auths api.Auths
}

// Build is one image to build, for all services whose build is the same.
type Build struct {
	Services []string
	Names    []string
	Spec     spec.Build
	Platform string
	// After are the builds whose images this one begins with.
	After []*Build

	stack *spec.Stack
	done  chan struct{} // closed when it has succeeded
}

// Builds are the builds of services, and of those that they take as
// additional contexts, each after the ones that it needs.
func Builds(stack *spec.Stack, services []string, o BuildOptions) ([]*Build, error) {
	b := &buildPlan{stack: stack, options: o, of: map[string]*Build{}, same: map[string]*Build{}, entered: map[string]bool{}}
	for _, name := range services {
		if _, err := b.add(name); err != nil {
			return nil, err
		}
	}
	return b.order, nil
}

type buildPlan struct {
	stack   *spec.Stack
	options BuildOptions
	of      map[string]*Build // by service
	same    map[string]*Build // by what is built
	entered map[string]bool
	order   []*Build
}

func (p *buildPlan) add(service string) (*Build, error) {
	if b := p.of[service]; b != nil {
		return b, nil
	}
	s := p.stack.Services[service]
	if s.Build == nil {
		return nil, fmt.Errorf("service %s is not built: it has no build section", service)
	}
	if p.entered[service] {
		return nil, fmt.Errorf("the builds of services wait for each other: %s needs itself", service)
	}
	p.entered[service] = true
	what := *s.Build
	p.options.apply(&what)
	platform := s.Platform
	key, err := json.Marshal([]any{bare(what), platform})
	if err != nil {
		return nil, fmt.Errorf("compare builds: %w", err)
	}
	var after []*Build
	for _, name := range p.needs(service, &what) {
		needed, err := p.add(name)
		if err != nil {
			return nil, err
		}
		after = append(after, needed)
	}
	names := append([]string{p.stack.ImageOf(service)}, what.Tags...)
	b := p.same[string(key)]
	if b == nil {
		b = &Build{Spec: what, Platform: platform, After: after, stack: p.stack, done: make(chan struct{})}
		p.same[string(key)] = b
		p.order = append(p.order, b)
	}
	b.Services = append(b.Services, service)
	for _, n := range names {
		if !slices.Contains(b.Names, n) {
			b.Names = append(b.Names, n)
		}
	}
	p.of[service] = b
	return b, nil
}

// bare is what decides whether two builds are the same.
func bare(b spec.Build) spec.Build {
	b.Tags = nil
	return b
}

func (o *BuildOptions) apply(b *spec.Build) {
	b.Args = maps.Clone(b.Args)
	for k, v := range o.Args {
		if b.Args == nil {
			b.Args = map[string]string{}
		}
		b.Args[k] = v
	}
	b.NoCache, b.Pull = b.NoCache || o.NoCache, b.Pull || o.Pull
	b.Provenance, b.SBOM = cmp.Or(o.Provenance, b.Provenance), cmp.Or(o.SBOM, b.SBOM)
	if len(o.SSH) > 0 {
		b.SSH = o.SSH
	}
}

// needs are the services whose images a build begins with: those that it
// names as contexts, and those whose image its Dockerfile begins with.
func (p *buildPlan) needs(service string, b *spec.Build) []string {
	needs := map[string]bool{}
	for _, source := range b.Contexts {
		if name, ok := strings.CutPrefix(source, "service:"); ok {
			needs[name] = true
		}
	}
	for _, base := range bases(b) {
		for name, s := range p.stack.Services {
			if name != service && s.Build != nil && sameImage(p.stack.ImageOf(name), base) {
				needs[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(needs))
}

// bases are the images that the Dockerfile of b begins with; none if it can't
// be read here, which the build itself will say.
func bases(b *spec.Build) []string {
	content := b.DockerfileInline
	if content == "" && filepath.IsAbs(b.Context) {
		text, err := os.ReadFile(localDockerfile(b))
		if err != nil {
			return nil
		}
		content = string(text)
	}
	return build.Bases(content, b.Args)
}

func localDockerfile(b *spec.Build) string {
	name := cmp.Or(b.Dockerfile, "Dockerfile")
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(b.Context, name)
}

// sameImage says that two references mean the same image.
func sameImage(a, b string) bool {
	full := func(ref string) string {
		ref = strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
		if strings.LastIndexByte(ref, ':') <= strings.LastIndexByte(ref, '/') {
			ref += ":latest"
		}
		return ref
	}
	return a != "" && full(a) == full(b)
}

// References are the images and caches that a build may ask registries for.
func (b *Build) References() []string {
	refs := bases(&b.Spec)
	for _, cache := range slices.Concat(b.Spec.CacheFrom, b.Spec.CacheTo) {
		if i := strings.Index(cache, "ref="); i >= 0 {
			cache, _, _ = strings.Cut(cache[i+len("ref="):], ",")
		}
		refs = append(refs, cache)
	}
	return refs
}

// RunBuilds builds, what can be at once, and yields what is told of it as one
// stream. The first failure ends the others.
func RunBuilds(ctx context.Context, client *api.Client, builds []*Build, o BuildOptions) iter.Seq2[api.Progress, error] {
	return func(yield func(api.Progress, error) bool) {
		type news struct {
			api.Progress
			err error
		}
		running, cancel := context.WithCancel(ctx)
		defer cancel()
		heard := make(chan news)
		var all sync.WaitGroup
		for _, b := range builds {
			all.Go(func() {
				for p, err := range b.run(running, client, o) {
					select {
					case heard <- news{p, err}:
					case <-running.Done():
						return
					}
				}
			})
		}
		go func() { all.Wait(); close(heard) }()
		for n := range heard {
			if !yield(n.Progress, n.err) || n.err != nil {
				cancel()
				for range heard { // until all have ended
				}
				return
			}
		}
		if ctx.Err() != nil {
			yield(api.Progress{}, context.Cause(ctx))
			return
		}
		yield(api.Progress{Done: &api.Done{Outcome: api.OutcomeDone}}, nil)
	}
}

// run waits for what b needs, and builds it.
func (b *Build) run(ctx context.Context, client *api.Client, o BuildOptions) iter.Seq2[api.Progress, error] {
	return func(yield func(api.Progress, error) bool) {
		for _, needed := range b.After {
			select {
			case <-needed.done:
			case <-ctx.Done():
				return
			}
		}
		fail := func(err error) { yield(api.Progress{}, b.named(err)) }
		ctx, cancel := context.WithCancel(ctx) // ends what is offered to the build
		defer cancel()
		packing, release, err := b.pack(ctx, client, o)
		defer release()
		if err != nil {
			fail(err)
			return
		}
		packing.Request.Service = strings.Join(b.Services, ", ")
		for p, err := range client.Build(ctx, packing) {
			if err != nil {
				if ctx.Err() == nil {
					fail(err)
				}
				return
			}
			b.place(p.Build)
			if p.Done != nil {
				close(b.done)
				return
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// named says whose build failed, if err does not.
func (b *Build) named(err error) error {
	var placed *api.Error
	if errors.As(err, &placed) && placed.Position != nil {
		return err // wrong names it
	}
	return fmt.Errorf("service %s: %w", strings.Join(b.Services, ", "), err)
}

// place adds the place of an attribute to what is said about it.
func (b *Build) place(p *build.Progress) {
	if p == nil || p.Attribute == "" {
		return
	}
	if pos, ok := b.stack.Positions["services."+b.Services[0]+".build."+p.Attribute]; ok {
		p.Warning = pos.String() + ": " + p.Warning
	}
}
