package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// route is how one pull reaches its repository: the mirrors, then the registry.
type route struct {
	store     *Store
	named     reference.Named
	auth      func(string) (string, string, bool)
	endpoints []endpoint

	mu        sync.Mutex
	connected map[int]*source
	best      int // the endpoint that had the manifest
}

func (s *Store) route(named reference.Named, auth func(string) (string, string, bool)) *route {
	return &route{
		store: s, named: named, auth: auth,
		endpoints: s.sources.of(reference.Domain(named)), connected: map[int]*source{},
	}
}

// patience: there is somewhere else to go from a mirror that is down.
func (r *route) patience(i int) limits {
	l := r.store.limits
	if i < len(r.endpoints)-1 {
		l.tries = min(l.tries, 2)
	}
	return l
}

// source connects to endpoint i, once per pull.
func (r *route) source(ctx context.Context, i int) (*source, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if src := r.connected[i]; src != nil {
		return src, nil
	}
	var src *source
	err := r.patience(i).retry(ctx, func() (_ bool, err error) {
		src, err = r.endpoints[i].connect(ctx, r.named, r.auth)
		return false, err
	})
	if err != nil {
		return nil, classify(r.endpoints[i].host, err)
	}
	r.connected[i] = src
	return src, nil
}

// open is an opener of blobs: the endpoint that had the manifest comes first.
func (r *route) open(ctx context.Context, n int) (*source, error) {
	switch {
	case n >= len(r.endpoints):
		return nil, errNoSource
	case n == 0:
		return r.source(ctx, r.best)
	case n <= r.best:
		return r.source(ctx, n-1)
	}
	return r.source(ctx, n)
}

// each tries f at one endpoint after the other. If all fail, the error is that
// of the registry itself and tells of the mirrors in passing.
func (r *route) each(ctx context.Context, f func(*source, limits) error) error {
	var mirrors []string
	for i, e := range r.endpoints {
		src, err := r.source(ctx, i)
		if err == nil {
			if err = f(src, r.patience(i)); err == nil {
				r.best = i
				return nil
			}
			err = classify(e.host, err)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrPlatform):
			return err
		case i == len(r.endpoints)-1 && mirrors == nil:
			return err
		case i == len(r.endpoints)-1:
			return fmt.Errorf("%w (mirrors before it: %s)", err, strings.Join(mirrors, "; "))
		}
		mirrors = append(mirrors, err.Error())
	}
	return errNoSource
}

// found is what a reference means at a registry.
type found struct {
	route     *route
	document  document // the manifest of the platform's image
	source    string   // digest that the reference itself has
	unchanged bool     // source is the one that was known: document is empty
	manifest  *v1.Manifest
	rawConfig []byte
	config    *v1.ConfigFile
}

// find asks for the manifest of want, and for the config, unless the store has
// them. known is the digest that the reference had last time, "" to ask anew.
func (r *route) find(ctx context.Context, want v1.Platform, explicit bool, known string) (*found, error) {
	var out *found
	err := r.each(ctx, func(src *source, l limits) (err error) {
		out = &found{route: r}
		if known != "" && r.head(ctx, src) == known {
			out.source, out.unchanged = known, true
			return nil
		}
		if err = r.descend(ctx, src, l, want, out); err != nil {
			return err
		}
		return r.readConfig(ctx, src, want, explicit, out)
	})
	return out, err
}

// head asks for the digest only: registries don't count that as a pull. "" if
// there is no answer to trust; the GET that follows tells why.
func (r *route) head(ctx context.Context, src *source) string {
	ctx, watch := r.store.limits.watch(ctx)
	defer watch.stop()
	resp, err := src.get(ctx, http.MethodHead, "/manifests/"+selector(r.named), http.Header{"Accept": {manifestTypes}})
	if err != nil {
		return ""
	}
	resp.Body.Close()
	return resp.Header.Get("Docker-Content-Digest")
}

// descend goes from the reference through indexes to one manifest.
func (r *route) descend(ctx context.Context, src *source, l limits, want v1.Platform, out *found) error {
	wanted := wantedDigest(r.named)
	d, err := r.document(ctx, src, selector(r.named), wanted)
	if err != nil {
		return err
	}
	out.source = d.digest
	for depth := 0; ; depth++ {
		index, err := d.classify()
		if err != nil {
			return err
		}
		if !index {
			out.document = *d
			out.manifest, err = d.image(l)
			return err
		}
		if depth >= l.depth {
			return invalid("index %s: indexes are nested deeper than %d", short(out.source), l.depth)
		}
		im, err := v1.ParseIndexManifest(bytes.NewReader(d.raw))
		if err != nil {
			return invalid("index %s: %w", short(d.digest), err)
		}
		desc, err := choose(im, want)
		if err != nil {
			return err
		}
		if err := checkDigest(desc.Digest); err != nil {
			return invalid("index %s: %w", short(d.digest), err)
		}
		if d, err = r.document(ctx, src, desc.Digest.String(), desc.Digest.String()); err != nil {
			return err
		}
	}
}

func (r *route) document(ctx context.Context, src *source, sel, digest string) (*document, error) {
	raw, h, err := r.store.small(ctx, src, "/manifests/"+sel, http.Header{"Accept": {manifestTypes}}, r.store.limits.manifest)
	if err != nil {
		return nil, err
	}
	d := &document{raw: raw, digest: digestOf(raw)}
	d.mediaType, _, _ = strings.Cut(h.Get("Content-Type"), ";")
	if said := h.Get("Docker-Content-Digest"); digest == "" && strings.HasPrefix(said, "sha256:") {
		digest = said
	}
	if digest != "" && digest != d.digest {
		return nil, invalid("%s sent a manifest with digest %s for %s", src.host, short(d.digest), short(digest))
	}
	return d, nil
}

func (r *route) readConfig(ctx context.Context, src *source, want v1.Platform, explicit bool, out *found) error {
	r.store.mu.RLock()
	have := r.store.images[out.document.digest]
	r.store.mu.RUnlock()
	m := out.manifest
	if have != nil {
		out.rawConfig = have.RawConfig
	} else {
		var err error
		out.rawConfig, _, err = r.store.small(ctx, src, "/blobs/"+m.Config.Digest.String(), nil, m.Config.Size)
		if err != nil {
			return err
		}
	}
	var err error
	if out.config, err = parseConfig(out.rawConfig, m); err != nil {
		return err
	}
	return checkPlatform(out.config, want, explicit)
}

// checkPlatform refuses an image that can't run here. One that doesn't say what
// it is for is the user's risk.
func checkPlatform(cf *v1.ConfigFile, want v1.Platform, explicit bool) error {
	have := configPlatform(cf)
	if have.Architecture == "" || fits(have, want) > 0 {
		return nil
	}
	if explicit {
		return fmt.Errorf("%w %s: it is made for %s", ErrPlatform, want, have)
	}
	return fmt.Errorf("%w %s: it is made for %s; set platform: %s to run it under emulation", ErrPlatform, want, have, have)
}

func configPlatform(cf *v1.ConfigFile) v1.Platform {
	return normal(v1.Platform{OS: cf.OS, Architecture: cf.Architecture, Variant: cf.Variant})
}
