package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/api"
	"berth/build"
	"berth/spec"
)

// pack collects what the build needs from this machine. release takes away
// what was cloned for it.
func (b *Build) pack(ctx context.Context, client *api.Client, o BuildOptions) (p *build.Packing, release func(), err error) {
	p = &build.Packing{Request: build.Request{
		Stack: b.stack.Name, Names: b.Names, Build: b.Spec, Builder: o.Builder, Memory: o.Memory, Check: o.Check,
		Platforms: b.Spec.Platforms,
	}}
	if len(p.Request.Platforms) == 0 && b.Platform != "" {
		p.Request.Platforms = []string{b.Platform}
	}
	for host, auth := range o.Auths {
		if p.Request.Auths == nil {
			p.Request.Auths = map[string]build.Auth{}
		}
		p.Request.Auths[host] = build.Auth{Username: auth.Username, Password: auth.Password}
	}
	var clones []string
	release = func() {
		for _, dir := range clones {
			os.RemoveAll(dir)
		}
	}
	clone := func(url string) (string, error) {
		dir, root, err := cloneGit(ctx, url)
		if root != "" {
			clones = append(clones, root)
		}
		return dir, err
	}
	if err := b.packContext(p, clone); err != nil {
		return nil, release, err
	}
	if err := b.packContexts(ctx, client, p, clone); err != nil {
		return nil, release, err
	}
	for _, s := range b.Spec.Secrets {
		if f := b.stack.Secrets[s.Source]; f.External || f.Encrypted != "" || f.Provider != nil {
			return nil, release, b.wrong("secrets", "secret "+s.Source+" is known to the agent only, and a build gets its secrets from here",
				"give the build one with a plain file or environment")
		}
		p.Request.Secrets = append(p.Request.Secrets, build.Part{ID: s.ID, File: p.AddPart(b.stack.Secrets[s.Source].Content)})
	}
	for _, s := range b.Spec.SSH {
		part, err := packSSH(ctx, client, p, s)
		if err != nil {
			return nil, release, err
		}
		p.Request.SSH = append(p.Request.SSH, part)
	}
	for _, list := range []*[]string{&p.Request.Build.CacheFrom, &p.Request.Build.CacheTo} {
		*list = slices.Clone(*list)
		for i, entry := range *list {
			(*list)[i] = localCache(b.stack.Dir, entry)
		}
	}
	return p, release, nil
}

// packContext packs the folder to build, with its Dockerfile.
func (b *Build) packContext(p *build.Packing, clone func(string) (string, error)) error {
	s := &b.Spec
	inline := func(ignore []string) { p.SetDockerfile("Dockerfile", []byte(s.DockerfileInline), ignore) }
	switch {
	case isGit(s.Context):
		dir, err := clone(s.Context)
		if err != nil {
			return err
		}
		// What stands in a repository is somebody else's: its links lead
		// nowhere but into it.
		root, err := os.OpenRoot(dir)
		if err != nil {
			return fmt.Errorf("build context %s: %w", s.Context, err)
		}
		defer root.Close()
		name := cmp.Or(s.Dockerfile, "Dockerfile")
		ignore, err := build.ReadIgnore(dir, filepath.Join(dir, name))
		if err != nil {
			return err
		}
		p.Request.Build.Context = p.AddFolder(dir, ignore)
		if s.DockerfileInline != "" {
			inline(ignore)
			return nil
		}
		content, err := root.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read the Dockerfile of %s: %w", s.Context, err)
		}
		p.SetDockerfile(filepath.Base(name), content, ignore)
		return nil
	case strings.Contains(s.Context, "://"):
		if s.DockerfileInline != "" {
			inline(nil)
		}
		return nil
	}
	return b.packFolder(p, inline)
}

// packFolder packs a context on this machine.
func (b *Build) packFolder(p *build.Packing, inline func(ignore []string)) error {
	s := &b.Spec
	file := localDockerfile(s)
	ignore, err := build.ReadIgnore(s.Context, file)
	if err != nil {
		return err
	}
	if info, err := os.Stat(s.Context); err != nil || !info.IsDir() {
		return b.wrong("context", "there is no folder "+s.Context+" to build", "make it, or correct build.context")
	}
	p.Request.Build.Context = p.AddFolder(s.Context, ignore)
	if s.DockerfileInline != "" {
		inline(ignore)
		return nil
	}
	content, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return b.wrong("dockerfile", "there is no Dockerfile "+file, "write it, or name another one with build.dockerfile")
	case err != nil:
		return fmt.Errorf("read the Dockerfile: %w", err)
	}
	p.SetDockerfile(filepath.Base(file), content, ignore)
	return nil
}

// wrong is a mistake in an attribute of the service's build, with its place.
func (b *Build) wrong(attribute, message, hint string) error {
	e := &api.Error{Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid, Detail: "service " + strings.Join(b.Services, ", ") + ": " + message, Hint: hint}
	at := "services." + b.Services[0] + ".build"
	for _, path := range []string{at + "." + attribute, at} {
		if pos, ok := b.stack.Positions[path]; ok {
			e.Position = &pos
			break
		}
	}
	return e
}

// packContexts packs the additional contexts, and the images of services that
// the Dockerfile begins with.
func (b *Build) packContexts(ctx context.Context, client *api.Client, p *build.Packing, clone func(string) (string, error)) error {
	contexts := map[string]string{}
	for name, source := range b.Spec.Contexts {
		service, isService := strings.CutPrefix(source, "service:")
		layout, isLayout := strings.CutPrefix(source, "oci-layout://")
		switch {
		case isService:
			contexts[name] = build.SourceImage + b.stack.ImageOf(service)
		case isLayout:
			return fmt.Errorf("additional context %s: an OCI layout can't be sent; `berth image load` it and name it with docker-image://, or mount %s as a folder", name, layout)
		case isGit(source):
			dir, err := clone(source)
			if err != nil {
				return err
			}
			contexts[name] = p.AddFolder(dir, nil)
		case strings.Contains(source, "://"):
			contexts[name] = source
		default:
			ignore, err := build.ReadIgnore(source, filepath.Join(source, "Dockerfile"))
			if err != nil {
				return err
			}
			contexts[name] = p.AddFolder(source, ignore)
		}
	}
	for _, base := range bases(&b.Spec) {
		if _, given := contexts[base]; given {
			continue
		}
		for name, s := range b.stack.Services {
			if s.Build == nil || slices.Contains(b.Services, name) || !sameImage(b.stack.ImageOf(name), base) {
				continue
			}
			if _, err := client.InspectImage(ctx, b.stack.ImageOf(name)); err == nil {
				contexts[base] = build.SourceImage + b.stack.ImageOf(name)
			}
		}
	}
	p.Request.Build.Contexts = contexts
	return nil
}

// packSSH offers an SSH agent to the build, or gives it a private key.
func packSSH(ctx context.Context, client *api.Client, p *build.Packing, s spec.BuildSSH) (build.Part, error) {
	path := cmp.Or(s.Path, os.Getenv("SSH_AUTH_SOCK"))
	if path == "" {
		return build.Part{}, fmt.Errorf("ssh %s: there is no SSH agent: SSH_AUTH_SOCK is not set; start one with ssh-agent, or name a key: %s=FILE", s.ID, s.ID)
	}
	info, err := os.Stat(path)
	if err != nil {
		return build.Part{}, fmt.Errorf("ssh %s: %w", s.ID, err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		key, err := os.ReadFile(path)
		if err != nil {
			return build.Part{}, fmt.Errorf("ssh %s: %w", s.ID, err)
		}
		return build.Part{ID: s.ID, File: p.AddPart(key)}, nil
	}
	name, err := client.OfferSSH(ctx, path)
	return build.Part{ID: s.ID, Socket: name}, err
}

// localCache makes the folder of a cache of type local absolute.
func localCache(dir, entry string) string {
	if !strings.Contains(entry, "type=local") {
		return entry
	}
	parts := strings.Split(entry, ",")
	for i, part := range parts {
		key, value, _ := strings.Cut(part, "=")
		if (key == "src" || key == "dest") && !filepath.IsAbs(value) {
			parts[i] = key + "=" + filepath.Join(dir, value)
		}
	}
	return strings.Join(parts, ",")
}
