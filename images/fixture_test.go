package images

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// entry is one entry of a layer; a name that ends in "/" is a directory.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body}
}

func dir(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}}
}

func link(kind byte, name, to string) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777}}
}

func (e entry) owned(uid, gid int, mode int64) entry {
	e.Uid, e.Gid, e.Mode = uid, gid, mode
	return e
}

func (e entry) xattr(k, v string) entry {
	e.PAXRecords = map[string]string{xattrRecord + k: v}
	return e
}

func archiveOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Size == 0 {
			h.Size = int64(len(e.body))
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		if h.Typeflag != tar.TypeReg {
			h.Size = 0
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// rawLayer is a layer of any bytes, with a diff id of its own.
type rawLayer struct {
	v1.Layer
	diffID v1.Hash
}

func (l rawLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }

func layerOf(t testing.TB, entries ...entry) v1.Layer {
	t.Helper()
	plain := archiveOf(t, entries...)
	return rawLayer{static.NewLayer(gzipped(t, plain), types.OCILayer), hashOf(digestOf(plain))}
}

func blobLayer(blob []byte, diffID string, mt types.MediaType) v1.Layer {
	return rawLayer{static.NewLayer(blob, mt), hashOf(diffID)}
}

// imageOf is an OCI image of linux/amd64 with a config to recognise.
func imageOf(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(img, layers...)
	if err != nil {
		t.Fatal(err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", "amd64"
	cf.Config.Env = []string{"LAYERS=" + time.Duration(len(layers)).String()}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// faulty is a registry in this process whose answers a test can bend.
type faulty struct {
	*httptest.Server
	inner http.Handler

	mu   sync.Mutex
	gets map[string]int // "GET /v2/…" -> how often
	// fault, if set, answers a request itself (true) or lets it pass (false).
	fault func(w http.ResponseWriter, r *http.Request, nth int) bool
	bytes int64
}

func newRegistry(t testing.TB) *faulty {
	t.Helper()
	f := &faulty{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0))), gets: map[string]int{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	key := r.Method + " " + r.URL.Path
	f.gets[key]++
	n, fault := f.gets[key], f.fault
	f.mu.Unlock()
	cw := &countingWriter{ResponseWriter: w, f: f}
	if fault != nil && fault(cw, r, n) {
		return
	}
	f.inner.ServeHTTP(cw, r)
}

type countingWriter struct {
	http.ResponseWriter
	f *faulty
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.f.mu.Lock()
	w.f.bytes += int64(n)
	w.f.mu.Unlock()
	return n, err
}

func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (f *faulty) host() string { return strings.TrimPrefix(f.URL, "http://") }

// count of requests whose "METHOD path" contains s.
func (f *faulty) count(s string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for k, v := range f.gets {
		if strings.Contains(k, s) {
			n += v
		}
	}
	return n
}

func (f *faulty) break_(fault func(w http.ResponseWriter, r *http.Request, nth int) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// sent is how many bytes of bodies have left the registry.
func (f *faulty) sent() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

// forget the requests so far.
func (f *faulty) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gets, f.bytes = map[string]int{}, 0
}

func (f *faulty) push(t testing.TB, ref string, img v1.Image) string {
	t.Helper()
	r, err := name.ParseReference(f.host()+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	f.forget()
	return d.String()
}

func (f *faulty) pushIndex(t testing.TB, ref string, idx v1.ImageIndex) {
	t.Helper()
	r, err := name.ParseReference(f.host()+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(r, idx); err != nil {
		t.Fatal(err)
	}
	f.forget()
}

// openStore opens a store whose docker.io is the registry f, with waits made
// for tests.
func openStore(t testing.TB, root string, f *faulty) *Store {
	t.Helper()
	c := Config{Root: root}
	if f != nil {
		c.Registries = map[string]Registry{"docker.io": {Mirrors: []string{f.URL}}}
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.limits.backoff = time.Millisecond
	s.limits.idle = 2 * time.Second
	// The default registry itself is out of reach: only the mirror is left.
	if f != nil {
		s.sources.registries["docker.io"] = s.sources.registries["docker.io"][:1]
	}
	t.Cleanup(func() { closed(t, s) })
	return s
}

func closed(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func newStore(t testing.TB, f *faulty) *Store { return openStore(t, t.TempDir(), f) }

func noAuth(string) (string, string, bool) { return "", "", false }

func pull(t testing.TB, s *Store, ref string) Image {
	t.Helper()
	img, err := s.Pull(t.Context(), ref, PullOptions{Auth: noAuth, Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// entriesOf lists the names in a directory of the store.
func entriesOf(t testing.TB, s *Store, d string) []string {
	t.Helper()
	es, err := os.ReadDir(s.path(d))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

// eventually polls until ok or fails after a while.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("after 10 s: not %s", what)
}

// read a file of the unpacked layer i of an image.
func readLayerFile(t testing.TB, s *Store, img Image, i int, name string) string {
	t.Helper()
	s.mu.RLock()
	l := s.layers[s.images[img.Digest].Keys[i]]
	s.mu.RUnlock()
	b, err := os.ReadFile(filepath.Join(s.layerDir(l), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
