package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// sources knows how to reach each registry: in what order, over what
// transport. Credentials come with each pull.
type sources struct {
	registries map[string][]endpoint // by host, "docker.io" for the default
	plain      *http.Transport       // for registries without an entry
}

// endpoint is a mirror or a registry itself.
type endpoint struct {
	host  string // host[:port]
	http  bool   // plain HTTP is allowed
	https bool
	rt    *http.Transport
}

// newSources checks the configuration, so that its mistakes show at the start
// and not with the first pull.
func newSources(config map[string]Registry) (sources, error) {
	s := sources{registries: map[string][]endpoint{}, plain: newTransport(&tls.Config{MinVersion: tls.VersionTLS12})}
	for host, r := range config {
		host = canonicalHost(host)
		t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: r.Insecure} //nolint:gosec // asked for by the user
		if r.CA != "" {
			pem, err := os.ReadFile(r.CA)
			if err != nil {
				return s, fmt.Errorf("registry %s: read its CA: %w", host, err)
			}
			if t.RootCAs, err = x509.SystemCertPool(); err != nil {
				t.RootCAs = x509.NewCertPool()
			}
			if !t.RootCAs.AppendCertsFromPEM(pem) {
				return s, fmt.Errorf("registry %s: %s holds no PEM certificate", host, r.CA)
			}
		}
		rt := newTransport(t)
		var list []endpoint
		for _, m := range r.Mirrors {
			u, err := url.Parse(m)
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
				return s, fmt.Errorf("registry %s: mirror %q: write http://host:port or https://host", host, m)
			}
			list = append(list, endpoint{host: u.Host, http: u.Scheme == "http", https: u.Scheme == "https", rt: rt})
		}
		s.registries[host] = append(list, endpoint{host: host, http: r.Insecure || isLoopback(host), https: true, rt: rt})
	}
	return s, nil
}

func newTransport(t *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       t,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true, // digests are of the bytes as sent
	}
}

func (s sources) close() {
	s.plain.CloseIdleConnections()
	for _, list := range s.registries {
		for _, e := range list {
			e.rt.CloseIdleConnections()
		}
	}
}

// of lists the endpoints for a registry, in the order to try them.
func (s sources) of(host string) []endpoint {
	host = canonicalHost(host)
	if list, ok := s.registries[host]; ok {
		return list
	}
	return []endpoint{{host: host, http: isLoopback(host), https: true, rt: s.plain}}
}

func canonicalHost(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return host
}

// isLoopback: this machine's registry may be plain HTTP, as with Docker.
func isLoopback(host string) bool {
	h := host
	if name, _, err := net.SplitHostPort(host); err == nil {
		h = name
	}
	if a, err := netip.ParseAddr(strings.Trim(h, "[]")); err == nil {
		return a.IsLoopback()
	}
	return h == "localhost"
}

// source is one endpoint made ready for one repository: authenticated.
type source struct {
	endpoint
	base   string // https://host/v2/repository
	client *http.Client
}

// connect does the handshake of the distribution spec with one endpoint.
func (e endpoint) connect(ctx context.Context, named reference.Named, auth func(string) (string, string, bool)) (*source, error) {
	var opts []name.Option
	if e.http {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(e.host, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w: registry %q: %w", ErrReference, e.host, err)
	}
	who, err := e.credentials(ctx, reg, auth)
	if err != nil {
		return nil, err
	}
	repo := reference.Path(named)
	scope := "repository:" + repo + ":pull"
	guard := schemeGuard{e}
	rt, err := transport.NewWithContext(ctx, reg, who, guard, []string{scope})
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if !e.https {
		scheme = "http"
	}
	// The transport of go-containerregistry turns the scheme into the one its
	// handshake found, and sends credentials to this registry's host only.
	return &source{
		endpoint: e,
		base:     scheme + "://" + reg.RegistryStr() + "/v2/" + repo,
		client:   &http.Client{Transport: rt, CheckRedirect: e.checkRedirect},
	}, nil
}

func (e endpoint) credentials(ctx context.Context, reg name.Registry, auth func(string) (string, string, bool)) (authn.Authenticator, error) {
	if auth != nil {
		if user, password, ok := auth(e.host); ok {
			return given(user, password), nil
		}
		return authn.Anonymous, nil
	}
	who, err := authn.Resolve(ctx, authn.DefaultKeychain, reg)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: read docker's configuration: %w", ErrUnauthorized, e.host, err)
	}
	return who, nil
}

var errPlain = errors.New("plain HTTP is not allowed for this registry; if it has no TLS, set insecure: true for it under registries")

// schemeGuard keeps requests to the schemes the endpoint allows. Without it
// go-containerregistry would try plain HTTP for every private address.
type schemeGuard struct{ e endpoint }

func (g schemeGuard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !g.e.http {
		return nil, errPlain
	}
	if r.URL.Scheme == "https" && !g.e.https && r.URL.Host == g.e.host {
		return nil, fmt.Errorf("%s is a plain HTTP mirror", g.e.host)
	}
	return g.e.rt.RoundTrip(r)
}

// checkRedirect follows to storage on other hosts, which is common, but never
// from TLS to plain and never to link-local addresses, where clouds keep their
// credentials. Credentials of ours don't come along.
func (e endpoint) checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("more than 10 redirects")
	}
	if r.URL.Scheme == "http" && !e.http {
		return fmt.Errorf("redirect to %s: %w", r.URL.Host, errPlain)
	}
	if a, err := netip.ParseAddr(r.URL.Hostname()); err == nil && (a.IsLinkLocalUnicast() || a.IsUnspecified()) {
		return fmt.Errorf("redirect to %s is refused", r.URL.Host)
	}
	if r.URL.Host != via[0].URL.Host {
		r.Header.Del("Authorization")
	}
	return nil
}
