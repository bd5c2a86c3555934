package images

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// bigLayer doesn't compress: n bytes on the wire.
func bigLayer(t testing.TB, n int) v1.Layer {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return layerOf(t, file("big", string(b)))
}

func blobPath(t testing.TB, l v1.Layer) string {
	t.Helper()
	d, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return "/blobs/" + d.String()
}

func isGet(r *http.Request, path string) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, path)
}

// nothingVisible: no image, no layer, no blob came of a failed pull.
func nothingVisible(t *testing.T, s *Store) {
	t.Helper()
	if l, _ := s.List(); len(l) != 0 {
		t.Errorf("image is listed: %v", l)
	}
	for _, d := range []string{"layers", "unpack"} {
		if e := entriesOf(t, s, d); len(e) != 0 {
			t.Errorf("%s holds %v", d, e)
		}
	}
}

func pullErr(t *testing.T, s *Store, ref string) error {
	t.Helper()
	_, err := s.Pull(t.Context(), ref, PullOptions{Auth: noAuth, Platform: "linux/amd64"})
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	return err
}

func TestPull_Statuses_HaveTheirClass(t *testing.T) {
	for status, want := range map[int]struct {
		sentinel error
		requests int // of the manifest
	}{
		401: {ErrUnauthorized, 1}, 403: {ErrUnauthorized, 1}, 404: {ErrNotFound, 1},
		429: {ErrUnreachable, 5}, 500: {ErrUnreachable, 5}, 502: {ErrUnreachable, 5}, 503: {ErrUnreachable, 5},
		400: {ErrUnreachable, 1}, 418: {ErrUnreachable, 1},
	} {
		reg := newRegistry(t)
		reg.push(t, "library/web:v1", twoLayers(t))
		reg.break_(func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if !isGet(r, "/manifests/") {
				return false
			}
			w.WriteHeader(status)
			return true
		})
		s := newStore(t, reg)
		err := pullErr(t, s, "web:v1")
		if !errors.Is(err, want.sentinel) || !strings.Contains(err.Error(), strconv.Itoa(status)) || !strings.Contains(err.Error(), "web:v1") {
			t.Errorf("%d: %v", status, err)
		}
		if n := reg.count("GET /v2/library/web/manifests"); n != want.requests {
			t.Errorf("%d: %d requests, want %d", status, n, want.requests)
		}
		nothingVisible(t, s)
	}
}

func TestPull_ServerErrorsInBetween_AreRetried(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	reg.break_(func(w http.ResponseWriter, r *http.Request, nth int) bool {
		if nth < 4 && r.URL.Path != "/v2/" {
			w.WriteHeader([]int{500, 502, 503, 429}[nth])
			return true
		}
		return false
	})
	pull(t, newStore(t, reg), "web:v1")
}

func TestPull_RetryAfter_IsHonoured(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	var first, second atomic.Int64
	reg.break_(func(w http.ResponseWriter, r *http.Request, nth int) bool {
		if !isGet(r, "/manifests/") {
			return false
		}
		if nth == 1 {
			first.Store(time.Now().UnixNano())
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		second.CompareAndSwap(0, time.Now().UnixNano())
		return false
	})
	pull(t, newStore(t, reg), "web:v1")
	if gap := time.Duration(second.Load() - first.Load()); gap < time.Second {
		t.Errorf("asked again after %s", gap)
	}
}

func TestPull_ConnectionCutEvery64K_Resumes(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		reg := newRegistry(t)
		layer := bigLayer(t, 700<<10)
		reg.push(t, "library/big:v1", imageOf(t, layer))
		path := blobPath(t, layer)
		reg.break_(func(w http.ResponseWriter, r *http.Request, nth int) bool {
			if !isGet(r, path) {
				return false
			}
			blob := compressed(t, layer)
			start := 0
			if h := r.Header.Get("Range"); ranges && h != "" {
				if _, err := fmt.Sscanf(h, "bytes=%d-", &start); err != nil {
					t.Error(err)
				}
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(blob)-1, len(blob)))
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(blob)-start))
			if start > 0 {
				w.WriteHeader(http.StatusPartialContent)
			}
			end := min(len(blob), start+64<<10)
			if !ranges { // a registry that ignores Range gets a little further each time
				end = min(len(blob), nth*64<<10)
			}
			_, _ = w.Write(blob[start:end])
			if end < len(blob) {
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			return true
		})
		s := newStore(t, reg)
		img := pull(t, s, "big:v1")
		if len(readLayerFile(t, s, img, 0, "big")) != 700<<10 {
			t.Error("content has another length")
		}
		if size := int64(len(compressed(t, layer))); ranges && reg.sent() > size*11/10 {
			t.Errorf("%d bytes were sent for %d", reg.sent(), size)
		}
	}
}

func compressed(t testing.TB, l v1.Layer) []byte {
	t.Helper()
	rc, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(rc); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPull_AgentRestarted_ResumesWhatIsThere(t *testing.T) {
	for what, damage := range map[string]func([]byte) []byte{
		"as left":  func(b []byte) []byte { return b },
		"damaged":  func(b []byte) []byte { b[1000] ^= 1; return b },
		"too long": func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) },
	} {
		reg := newRegistry(t)
		layer := bigLayer(t, 500<<10)
		reg.push(t, "library/big:v1", imageOf(t, layer))
		s := newStore(t, reg)
		blob := compressed(t, layer)
		partial := s.path("ingest", hexOf(digestOf(blob)))
		if err := os.WriteFile(partial, damage(bytes.Clone(blob[:400<<10])), 0o600); err != nil {
			t.Fatal(err)
		}
		img := pull(t, s, "big:v1")
		if len(readLayerFile(t, s, img, 0, "big")) != 500<<10 {
			t.Errorf("%s: wrong content", what)
		}
		if e := entriesOf(t, s, "ingest"); len(e) != 0 {
			t.Errorf("%s: ingest holds %v", what, e)
		}
		if what == "as left" && reg.sent() > 150<<10 {
			t.Errorf("%d bytes were sent for the missing 100 KiB", reg.sent())
		}
	}
}

func TestPull_StallOrDrip_IsGivenUp(t *testing.T) {
	for _, drip := range []bool{false, true} {
		reg := newRegistry(t)
		layer := bigLayer(t, 100<<10)
		reg.push(t, "library/slow:v1", imageOf(t, layer))
		path := blobPath(t, layer)
		reg.break_(func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if !isGet(r, path) {
				return false
			}
			w.Header().Set("Content-Length", "102400")
			_ = http.NewResponseController(w).Flush()
			for {
				select {
				case <-r.Context().Done():
					return true
				case <-time.After(20 * time.Millisecond):
					if drip {
						_, _ = w.Write([]byte("x"))
						_ = http.NewResponseController(w).Flush()
					}
				}
			}
		})
		s := newStore(t, reg)
		s.limits.idle, s.limits.tries = 150*time.Millisecond, 1
		start := time.Now()
		err := pullErr(t, s, "slow:v1")
		if err == nil || time.Since(start) > 5*time.Second {
			t.Errorf("drip %v: %v after %s", drip, err, time.Since(start))
		}
		nothingVisible(t, s)
	}
}

func TestPull_WrongContent_IsNeverVisible(t *testing.T) {
	layer := bigLayer(t, 50<<10)
	blob := compressed(t, layer)
	evil := gzipped(t, archiveOf(t, file("evil", strings.Repeat("e", 50<<10))))
	flipped := bytes.Clone(blob)
	flipped[len(flipped)/2] ^= 1
	for what, body := range map[string][]byte{
		"other content": evil, "flipped bit": flipped,
		"too long": append(bytes.Clone(blob), 'x'), "garbage": bytes.Repeat([]byte("z"), len(blob)),
	} {
		reg := newRegistry(t)
		reg.push(t, "library/bad:v1", imageOf(t, layer))
		path := blobPath(t, layer)
		reg.break_(func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if !isGet(r, path) {
				return false
			}
			_, _ = w.Write(body)
			return true
		})
		s := newStore(t, reg)
		if err := pullErr(t, s, "bad:v1"); err == nil {
			t.Errorf("%s: was pulled", what)
		}
		nothingVisible(t, s)
		if e := entriesOf(t, s, "blobs"); len(e) != 0 {
			t.Errorf("%s: blobs holds %v", what, e)
		}
		// The registry is mended: nothing bad is taken up again.
		reg.break_(nil)
		pull(t, s, "bad:v1")
	}
}

func TestPull_DiffIDMismatch_IsRefused(t *testing.T) {
	reg := newRegistry(t)
	lie := blobLayer(gzipped(t, archiveOf(t, file("a", "b"))), digestOf([]byte("other")), types.OCILayer)
	reg.push(t, "library/lie:v1", imageOf(t, lie))
	s := newStore(t, reg)
	if err := pullErr(t, s, "lie:v1"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "diff id") {
		t.Errorf("err = %v", err)
	}
	nothingVisible(t, s)
}

func TestPull_HostileManifests_AreRefused(t *testing.T) {
	img := imageOf(t, layerOf(t, file("a", "b")))
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(m map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	layer0 := func(m map[string]any) map[string]any { return m["layers"].([]any)[0].(map[string]any) }
	ref := map[string]any{"mediaType": types.OCIManifestSchema1, "size": len(raw), "digest": digestOf(raw)}
	for what, c := range map[string]struct {
		body        []byte
		contentType string
		says        string
	}{
		"200 MB":                {bytes.Repeat([]byte(" "), 5<<20), "", "at most"},
		"deep JSON":             {[]byte(strings.Repeat(`{"a":`, 100_000)), "", ""},
		"not JSON":              {[]byte("<html>"), "", ""},
		"both kinds":            {edit(func(m map[string]any) { m["manifests"] = []any{ref} }), "", "both manifests and layers"},
		"schema 1":              {[]byte(`{"schemaVersion":1,"fsLayers":[]}`), "", "schema version 1"},
		"media type differs":    {raw, string(types.DockerManifestSchema2), "Content-Type"},
		"index called image":    {edit(func(m map[string]any) { m["mediaType"] = types.OCIImageIndex }), string(types.OCIImageIndex), "mediaType"},
		"10 000 layers":         {edit(func(m map[string]any) { m["layers"] = repeat(layer0(m), 10_000) }), "", "at most 512"},
		"foreign layer":         {edit(func(m map[string]any) { layer0(m)["urls"] = []string{"http://evil"} }), "", "urls"},
		"negative size":         {edit(func(m map[string]any) { layer0(m)["size"] = -5 }), "", "size"},
		"huge size":             {edit(func(m map[string]any) { layer0(m)["size"] = int64(1) << 62 }), "", "size"},
		"huge config":           {edit(func(m map[string]any) { m["config"].(map[string]any)["size"] = 9 << 20 }), "", "config"},
		"digest leaves a path":  {edit(func(m map[string]any) { layer0(m)["digest"] = "sha256:../../../../etc/passwd" }), "", ""},
		"digest of md5":         {edit(func(m map[string]any) { layer0(m)["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e" }), "", ""},
		"artifact, no image":    {edit(func(m map[string]any) { layer0(m)["mediaType"] = "application/vnd.helm.chart" }), "", "no container image"},
		"fewer layers":          {edit(func(m map[string]any) { m["layers"] = []any{} }), "", "diff ids"},
		"indexes without end":   {nil, "", "nested"},
		"empty index":           {[]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`), "", "platform"},
		"index of no sha256":    {[]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:00","size":1,"mediaType":"application/vnd.oci.image.manifest.v1+json","platform":{"os":"linux","architecture":"amd64"}}]}`), "", ""},
		"digest header is lied": {raw, "lie", "digest"},
	} {
		reg := newRegistry(t)
		reg.push(t, "library/bad:v1", img)
		reg.break_(func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", c.contentType)
			if c.contentType == "lie" {
				w.Header().Set("Docker-Content-Digest", digestOf([]byte("x")))
			}
			body := c.body
			if body == nil {
				body = nested(r.URL.Path)
			}
			_, _ = w.Write(body)
			return true
		})
		s := newStore(t, reg)
		start := time.Now()
		err := pullErr(t, s, "bad:v1")
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("%s: refused after %s", what, d)
		}
		nothingVisible(t, s)
	}
}

// nested is an index of an index, by any name: its digest is that of the
// request, counted down.
func nested(path string) []byte {
	level := 5
	for i := range 5 {
		if strings.HasSuffix(path, digestOf(nestedAt(i))) {
			level = i
		}
	}
	return nestedAt(level)
}

func nestedAt(level int) []byte {
	child := digestOf([]byte("end"))
	if level > 0 {
		child = digestOf(nestedAt(level - 1))
	}
	return []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","size":1,"digest":"` + child + `"}]}`)
}

func repeat(v any, n int) (out []any) {
	for range n {
		out = append(out, v)
	}
	return out
}

func TestPull_Redirect_LeavesCredentialsBehind(t *testing.T) {
	reg := newRegistry(t)
	layer := layerOf(t, file("a", "b"))
	reg.push(t, "library/web:v1", imageOf(t, layer))
	path, blob := blobPath(t, layer), compressed(t, layer)
	var leaked atomic.Value
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			leaked.Store(a)
		}
		_, _ = w.Write(blob)
	}))
	defer storage.Close()
	reg.break_(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if isGet(r, path) {
			http.Redirect(w, r, storage.URL+"/somewhere", http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	s := newStore(t, reg)
	if err := pullErr(t, s, "web:v1"); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "berth login") {
		t.Errorf("without credentials: %v", err)
	}
	_, err := s.Pull(t.Context(), "web:v1", PullOptions{Auth: func(host string) (string, string, bool) {
		return "me", "secret", host == reg.host()
	}})
	if err != nil {
		t.Error(err)
	}
	if a := leaked.Load(); a != nil {
		t.Errorf("the other host got Authorization %q", a)
	}
}

func TestPull_RealmElsewhere_GetsNothing(t *testing.T) {
	var asked atomic.Int64
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer evil.Close()
	for _, realm := range []string{evil.URL + "/token", "http://169.254.169.254/latest", "file:///etc/passwd", "gopher://x"} {
		reg := newRegistry(t)
		reg.push(t, "library/web:v1", twoLayers(t))
		reg.break_(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		s := newStore(t, reg)
		_, err := s.Pull(t.Context(), "web:v1", PullOptions{Auth: func(string) (string, string, bool) { return "me", "secret", true }})
		if err == nil {
			t.Errorf("%s: pulled", realm)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests at another host", n)
	}
}

func TestPull_TokenExpires_IsFetchedAgain(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	var tokens atomic.Int64
	reg.break_(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.URL.Path == "/token" {
			if got := r.URL.Query().Get("scope"); got != "repository:library/web:pull" {
				t.Errorf("scope %q", got)
			}
			fmt.Fprintf(w, `{"token":"t%d"}`, tokens.Add(1))
			return true
		}
		// The first token is good for the manifest only.
		ok := r.Header.Get("Authorization") == "Bearer t1" && strings.Contains(r.URL.Path, "/manifests/") ||
			strings.HasPrefix(r.Header.Get("Authorization"), "Bearer t") && r.Header.Get("Authorization") != "Bearer t1"
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+reg.URL+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	pull(t, newStore(t, reg), "web:v1")
	if n := tokens.Load(); n < 2 || n > 4 {
		t.Errorf("%d tokens were fetched", n)
	}
}

func TestPull_Mirrors_AreTriedInOrderThenTheRegistry(t *testing.T) {
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	lacks, bad, good := newRegistry(t), newRegistry(t), newRegistry(t)
	layer := layerOf(t, file("a", "b"))
	for _, r := range []*faulty{bad, good} {
		r.push(t, "library/web:v1", imageOf(t, layer))
	}
	bad.break_(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if isGet(r, blobPath(t, layer)) {
			_, _ = w.Write([]byte("garbage"))
			return true
		}
		return false
	})
	s, err := Open(t.Context(), Config{Root: t.TempDir(), Registries: map[string]Registry{
		"registry.example": {Mirrors: []string{down.URL, lacks.URL, bad.URL, good.URL}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s) })
	s.limits.backoff = time.Millisecond
	pull(t, s, "registry.example/library/web:v1")
	if lacks.count("/manifests/") == 0 || bad.count("/blobs/") == 0 || good.count("/manifests/") != 0 || good.count(blobPath(t, layer)) == 0 {
		t.Error("mirrors were asked in another order")
	}
	_, err = s.Pull(t.Context(), "registry.example/nothing:v1", PullOptions{Auth: noAuth})
	if err == nil || !strings.Contains(err.Error(), "mirrors before it") {
		t.Errorf("err = %v", err)
	}
}

func TestOpen_BadRegistries_AreToldAtOnce(t *testing.T) {
	for _, r := range []Registry{
		{Mirrors: []string{"127.0.0.1:5000"}},
		{Mirrors: []string{"ftp://x"}},
		{Mirrors: []string{"http://x/path"}},
		{Mirrors: []string{"http://u:p@x"}},
		{CA: "/nowhere.pem"},
		{CA: "/dev/null"},
	} {
		if s, err := Open(t.Context(), Config{Root: t.TempDir(), Registries: map[string]Registry{"x": r}}); err == nil {
			closed(t, s)
			t.Errorf("%+v was taken", r)
		}
	}
}

func TestPull_TLS_FailsClosed(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	secure := httptest.NewTLSServer(reg)
	defer secure.Close()
	host := strings.TrimPrefix(secure.URL, "https://")
	ca := t.TempDir() + "/ca.pem"
	if err := os.WriteFile(ca, pemOf(secure.Certificate()), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		r  Registry
		ok bool
	}{"unknown CA": {Registry{}, false}, "own CA": {Registry{CA: ca}, true}, "insecure": {Registry{Insecure: true}, true}} {
		s, err := Open(t.Context(), Config{Root: t.TempDir(), Registries: map[string]Registry{host: c.r}})
		if err != nil {
			t.Fatal(err)
		}
		s.limits.backoff = time.Millisecond
		_, err = s.Pull(t.Context(), host+"/library/web:v1", PullOptions{Auth: noAuth})
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", what, err)
		}
		closed(t, s)
	}
}

func TestPull_PrivateAddressWithoutTLS_IsNotTriedInPlain(t *testing.T) {
	e := sources{plain: newTransport(nil)}.of("10.1.2.3:5000")[0]
	req := httptest.NewRequest(http.MethodGet, "http://10.1.2.3:5000/v2/", nil)
	if _, err := (schemeGuard{e}).RoundTrip(req); !errors.Is(err, errPlain) {
		t.Errorf("err = %v", err)
	}
	to := httptest.NewRequest(http.MethodGet, "https://169.254.169.254/x", nil)
	if err := e.checkRedirect(to, []*http.Request{req}); err == nil {
		t.Error("redirect to a link-local address was followed")
	}
}

func TestPull_Cancelled_ReturnsSoonAndLeavesNoHalf(t *testing.T) {
	reg := newRegistry(t)
	layer := bigLayer(t, 300<<10)
	reg.push(t, "library/big:v1", imageOf(t, layer))
	path := blobPath(t, layer)
	reg.break_(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if !isGet(r, path) {
			return false
		}
		_, _ = w.Write(compressed(t, layer)[:100<<10])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	s := newStore(t, reg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, "big:v1", PullOptions{Auth: noAuth})
		done <- err
	}()
	eventually(t, "half there", func() bool {
		info, err := os.Stat(s.path("ingest", hexOf(strings.TrimPrefix(path, "/blobs/"))))
		return err == nil && info.Size() > 50<<10
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	nothingVisible(t, s)
	reg.break_(nil)
	reg.forget()
	pull(t, s, "big:v1")
	if reg.sent() > 260<<10 {
		t.Errorf("%d bytes: it didn't resume", reg.sent())
	}
}
