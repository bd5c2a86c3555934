package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

var manifestTypes = strings.Join([]string{
	"application/vnd.oci.image.index.v1+json",
	"application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.docker.distribution.manifest.v2+json",
}, ", ")

// statusError is an answer that is not the one asked for.
type statusError struct {
	code  int
	url   string
	after time.Duration // Retry-After
}

func (e *statusError) Error() string {
	return fmt.Sprintf("GET %s answers %d %s", e.url, e.code, http.StatusText(e.code))
}

// sourceError marks what went wrong with the download, to tell it from what is
// wrong with the content.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// get sends one request, without retries. The body must be closed.
func (src *source) get(ctx context.Context, method, path string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, src.base+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := src.client.Do(req)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		return resp, nil
	}
	resp.Body.Close()
	return nil, &statusError{code: resp.StatusCode, url: src.base + path, after: retryAfter(resp.Header.Get("Retry-After"))}
}

func retryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return time.Duration(min(n, 3600)) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// retry runs f until it succeeds, fails for good, or has been tried often
// enough. f says whether it made progress: then the count starts again.
func (l limits) retry(ctx context.Context, f func() (progress bool, err error)) error {
	wait := l.backoff
	for try := 1; ; try++ {
		progress, err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if progress {
			try, wait = 1, l.backoff
		}
		if !isTransient(err) || try >= l.tries {
			return err
		}
		// Full jitter: many nodes lose one registry at the same time.
		pause := wait/2 + rand.N(wait/2+1) //nolint:gosec // not a secret
		var status *statusError
		if errors.As(err, &status) && status.after > 0 {
			if status.after > l.backoffTo {
				return err
			}
			pause = status.after + rand.N(wait/4+1) //nolint:gosec // not a secret
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		wait = min(2*wait, l.backoffTo)
	}
}

// isTransient: worth another try.
func isTransient(err error) bool {
	if code := statusOf(err); code != 0 {
		return code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500
	}
	var (
		unknownCA *tls.CertificateVerificationError
		host      x509.HostnameError
		header    tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, errPlain), errors.Is(err, errSink), errors.Is(err, ErrInvalid), errors.Is(err, ErrUnauthorized), errors.Is(err, ErrNoSpace),
		errors.As(err, &unknownCA), errors.As(err, &host), errors.As(err, &header),
		strings.Contains(err.Error(), "realm"):
		return false
	}
	return true
}

func statusOf(err error) int {
	var status *statusError
	if errors.As(err, &status) {
		return status.code
	}
	var te *transport.Error
	if errors.As(err, &te) {
		return te.StatusCode
	}
	return 0
}

// classify gives a failure of one endpoint its sentinel and one line.
func classify(host string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnauthorized) ||
		errors.Is(err, ErrNotFound) || errors.Is(err, ErrNoSpace) || errors.Is(err, ErrReference) || errors.Is(err, ErrPlatform) {
		return err
	}
	line := strings.Join(strings.Fields(err.Error()), " ")
	switch statusOf(err) {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w at %s: %s; `berth login %s` or check the name", ErrUnauthorized, host, line, host)
	case http.StatusNotFound:
		return fmt.Errorf("%w at %s: %s; check name and tag", ErrNotFound, host, line)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s limits the rate of pulls: %s; log in, use a mirror or wait", ErrUnreachable, host, line)
	}
	var cert x509.CertificateInvalidError
	if errors.As(err, &cert) && cert.Reason == x509.Expired && time.Now().Year() < 2025 {
		return fmt.Errorf("%w: %s: this machine's clock says %s: %s", ErrUnreachable, host, time.Now().Format(time.DateOnly), line)
	}
	return fmt.Errorf("%w: %s: %s", ErrUnreachable, host, line)
}

// small reads a whole body of at most limit bytes, with retries.
func (s *Store) small(ctx context.Context, src *source, path string, header http.Header, limit int64) (body []byte, h http.Header, err error) {
	err = s.limits.retry(ctx, func() (bool, error) {
		ctx, watch := s.limits.watch(ctx)
		defer watch.stop()
		resp, err := src.get(ctx, http.MethodGet, path, header)
		if err != nil {
			return false, watch.explain(err)
		}
		defer resp.Body.Close()
		if resp.ContentLength > limit {
			return false, invalid("%s has %d bytes, at most %d are allowed", path, resp.ContentLength, limit)
		}
		body, err = io.ReadAll(io.LimitReader(watch.reader(resp.Body), limit+1))
		if err != nil {
			return false, watch.explain(err)
		}
		if int64(len(body)) > limit {
			return false, invalid("%s is too large: at most %d bytes are allowed", path, limit)
		}
		h = resp.Header
		return false, nil
	})
	return body, h, err
}

// watch cancels a request that doesn't bring minRate bytes per idle time: a
// server may send one byte a second for ever.
type watch struct {
	cancel  context.CancelFunc
	timer   *time.Timer
	idle    time.Duration
	left    time.Duration // of idle; runs only while the network is waited for
	rate    int64
	pending int64
	expired atomic.Bool
}

func (l limits) watch(ctx context.Context) (context.Context, *watch) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{cancel: cancel, idle: l.idle, left: l.idle, rate: l.minRate}
	w.timer = time.AfterFunc(l.idle, func() {
		w.expired.Store(true)
		cancel()
	})
	return ctx, w
}

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel()
}

// explain replaces the cancellation by what it was for.
func (w *watch) explain(err error) error {
	if w.expired.Load() {
		return fmt.Errorf("no data for %s", w.idle)
	}
	return err
}

func (w *watch) reader(r io.Reader) io.Reader { return &watchedReader{w, r} }

type watchedReader struct {
	w *watch
	r io.Reader
}

func (r *watchedReader) Read(p []byte) (int, error) {
	w, start := r.w, time.Now()
	w.timer.Reset(max(w.left, time.Millisecond))
	n, err := r.r.Read(p)
	w.timer.Stop()
	w.left -= time.Since(start)
	if w.pending += int64(n); w.pending >= w.rate {
		w.pending, w.left = 0, w.idle
	}
	return n, err
}
