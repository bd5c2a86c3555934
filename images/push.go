package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	v1partial "github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// statusPushing is the state of an image on its way to its registry.
const statusPushing = "pushing"

// RegistryOf is the host of the registry that a reference names, "docker.io"
// for the default one.
func RegistryOf(ref string) (string, error) {
	named, err := parse(ref)
	if err != nil {
		return "", err
	}
	return canonicalHost(reference.Domain(named)), nil
}

// itself is the endpoint of a registry, without its mirrors: what is sent goes
// there and nowhere else.
func (s sources) itself(host string) endpoint {
	list := s.of(host)
	return list[len(list)-1]
}

// Push sends an image of the store to the registry that ref names, layers
// first and the reference last, and returns the digest that it has there.
// What the registry has already is not sent again. Mirrors are passed by.
func (s *Store) Push(ctx context.Context, ref string, o PullOptions) (digest string, err error) {
	named, err := parse(ref)
	if err != nil {
		return "", err
	}
	if wantedDigest(named) != "" {
		return "", fmt.Errorf("push %s: %w: a digest can't be pushed to; name a tag", ref, ErrReference)
	}
	digest, err = s.push(ctx, named, o)
	if err != nil {
		return "", fmt.Errorf("push %s: %w", reference.FamiliarString(named), err)
	}
	return digest, nil
}

func (s *Store) push(ctx context.Context, named reference.Named, o PullOptions) (string, error) {
	core, release, err := s.outgoing(named.String())
	if err != nil {
		return "", err
	}
	defer release()
	img, err := v1partial.CompressedToImage(core)
	if err != nil {
		return "", fmt.Errorf("its manifest: %w", err)
	}
	e := s.sources.itself(reference.Domain(named))
	tag, err := e.tag(named)
	if err != nil {
		return "", err
	}
	who, err := e.credentials(ctx, tag.Registry, o.Auth)
	if err != nil {
		return "", err
	}
	updates := make(chan v1.Update, 16)
	told := make(chan struct{})
	go func() {
		defer close(told)
		report := reporter{named.String(), o.Progress}
		last := time.Time{}
		for u := range updates {
			if u.Error == nil && time.Since(last) > progressEvery {
				report.sent(u.Complete, u.Total)
				last = time.Now()
			}
		}
	}()
	err = remote.Write(tag, img, remote.WithContext(ctx), remote.WithAuth(who), remote.WithJobs(4),
		remote.WithTransport(schemeGuard{e}), remote.WithProgress(updates))
	<-told // Write closes updates
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", classify(e.host, err)
	}
	reporter{named.String(), o.Progress}.image(statusDone)
	return core.document.digest, nil
}

func (r reporter) sent(current, total int64) {
	if r.to != nil {
		r.to(Progress{Reference: r.ref, Layer: "layers", Status: statusPushing, Current: current, Total: total})
	}
}

// tag is named as go-containerregistry has it, at this endpoint.
func (e endpoint) tag(named reference.Named) (name.Tag, error) {
	var opts []name.Option
	if e.http {
		opts = append(opts, name.Insecure)
	}
	tag, err := name.NewTag(e.registryName()+"/"+reference.Path(named)+":"+selector(named), opts...)
	if err != nil {
		return tag, fmt.Errorf("%w %q: %w", ErrReference, reference.FamiliarString(named), err)
	}
	return tag, nil
}

// outgoing is an image of the store as a registry is to get it. release gives
// its blobs up to collection.
func (s *Store) outgoing(canonical string) (*outgoing, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := s.find(canonical)
	if err != nil {
		return nil, nil, err
	}
	d, m, err := s.savable(rec)
	if err != nil {
		return nil, nil, err
	}
	out := &outgoing{store: s, document: d, rawConfig: rec.RawConfig, layers: map[v1.Hash]v1.Descriptor{}}
	var leases []string
	for _, l := range m.Layers {
		out.layers[l.Digest] = l
		leases = append(leases, l.Digest.String())
	}
	return out, s.leaseLocked(leases), nil
}

// outgoing is an image whose layers are blobs of the store.
type outgoing struct {
	store     *Store
	document  document
	rawConfig []byte
	layers    map[v1.Hash]v1.Descriptor
}

// RawConfigFile is the config as it came.
func (o *outgoing) RawConfigFile() ([]byte, error) { return o.rawConfig, nil }

// RawManifest is the manifest that names the blobs that are here.
func (o *outgoing) RawManifest() ([]byte, error) { return o.document.raw, nil }

// MediaType is the manifest's.
func (o *outgoing) MediaType() (types.MediaType, error) {
	return types.MediaType(o.document.mediaType), nil
}

// LayerByDigest opens a layer.
func (o *outgoing) LayerByDigest(h v1.Hash) (v1partial.CompressedLayer, error) {
	desc, ok := o.layers[h]
	if !ok {
		return nil, fmt.Errorf("layer %s: %w", short(h.String()), ErrNotFound)
	}
	return outgoingLayer{o.store, desc}, nil
}

type outgoingLayer struct {
	store *Store
	desc  v1.Descriptor
}

func (l outgoingLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l outgoingLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l outgoingLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l outgoingLayer) Compressed() (io.ReadCloser, error) {
	f, err := os.Open(l.store.blobPath(l.desc.Digest.String()))
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", short(l.desc.Digest.String()), err)
	}
	return f, nil
}

// Digest asks the registry what ref means there now: the digest of an index
// or a manifest. A reference with a digest means that one.
func (s *Store) Digest(ctx context.Context, ref string, o PullOptions) (string, error) {
	named, err := parse(ref)
	if err != nil {
		return "", err
	}
	if d := wantedDigest(named); d != "" {
		return d, nil
	}
	r := s.route(named, o.Auth)
	digest := ""
	err = r.each(ctx, func(src *source, _ limits) error {
		if digest = r.head(ctx, src); digest != "" {
			return checkDigest(hashOf(digest))
		}
		d, err := r.document(ctx, src, selector(named), "") // the answer tells why
		if err == nil {
			digest = d.digest
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("digest of %s: %w", reference.FamiliarString(named), err)
	}
	return digest, nil
}

// Login asks the registry whether it takes these credentials.
func (s *Store) Login(ctx context.Context, host, user, password string) error {
	e := s.sources.itself(canonicalHost(host))
	var opts []name.Option
	if e.http {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(e.registryName(), opts...)
	if err != nil {
		return fmt.Errorf("%w: registry %q", ErrReference, host)
	}
	who, err := e.credentials(ctx, reg, func(string) (string, string, bool) { return user, password, true })
	if err != nil {
		return err
	}
	rt, err := transport.NewWithContext(ctx, reg, who, schemeGuard{e}, nil)
	if err != nil {
		return classify(e.host, err)
	}
	// A registry that asks for Basic says so only when asked with it.
	scheme := "https"
	if !e.https || e.http && reg.Scheme() == "http" {
		scheme = "http"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+reg.RegistryStr()+"/v2/", http.NoBody)
	if err != nil {
		return fmt.Errorf("%w: registry %q", ErrReference, host)
	}
	resp, err := (&http.Client{Transport: rt, CheckRedirect: e.checkRedirect}).Do(req)
	if err != nil {
		return classify(e.host, err)
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		var te *transport.Error
		if errors.As(err, &te) && (te.StatusCode == http.StatusUnauthorized || te.StatusCode == http.StatusForbidden) {
			return fmt.Errorf("%w: %s refuses this name and password", ErrUnauthorized, e.host)
		}
		return classify(e.host, err)
	}
	return nil
}

// registryName is the host as go-containerregistry names it.
func (e endpoint) registryName() string {
	if e.host == "docker.io" {
		return name.DefaultRegistry
	}
	return e.host
}

// identityToken is the user's name under which credential helpers keep a
// token instead of a password.
const identityToken = "<token>"

// given are credentials as the caller has them.
func given(user, password string) authn.Authenticator {
	if user == identityToken {
		return authn.FromConfig(authn.AuthConfig{IdentityToken: password})
	}
	return &authn.Basic{Username: user, Password: password}
}
