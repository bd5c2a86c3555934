package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func twoLayers(t testing.TB) v1.Image {
	return imageOf(t,
		layerOf(t, dir("etc"), file("etc/one", "1"), file("etc/gone", "x")),
		layerOf(t, dir("etc"), file("etc/two", "2"), file("etc/.wh.gone", "")))
}

func TestPull_Image_IsUnpackedAndListed(t *testing.T) {
	reg := newRegistry(t)
	want := reg.push(t, "library/web:v1", twoLayers(t))
	s := newStore(t, reg)
	img := pull(t, s, "web:v1")
	if img.Digest != want {
		t.Errorf("digest %s, want %s", img.Digest, want)
	}
	if diff := cmp.Diff([]string{"docker.io/library/web:v1"}, img.References); diff != "" {
		t.Error(diff)
	}
	if got := readLayerFile(t, s, img, 1, "etc/two"); got != "2" {
		t.Errorf("etc/two holds %q", got)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || !cmp.Equal(list[0], img) {
		t.Errorf("List: %v, %v", list, err)
	}
	if img.Platform != "linux/amd64" || img.Config.Env[0] == "" || len(img.Layers) != 2 || img.Size == 0 {
		t.Errorf("incomplete image: %+v", img)
	}
	if left := append(entriesOf(t, s, "ingest"), entriesOf(t, s, "unpack")...); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestPull_AfterReopen_NeedsNoRegistry(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	root := t.TempDir()
	s, err := Open(t.Context(), Config{Root: root, Registries: map[string]Registry{"docker.io": {Mirrors: []string{reg.URL}}}})
	if err != nil {
		t.Fatal(err)
	}
	first := pull(t, s, "web:v1")
	if _, err := Open(t.Context(), Config{Root: root}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second Open of an open store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	reg.Close()
	s = openStore(t, root, nil)
	if again := pull(t, s, "web:v1"); !cmp.Equal(first, again) {
		t.Error(cmp.Diff(first, again))
	}
	if byDigest := pull(t, s, "web@"+first.Digest); byDigest.Digest != first.Digest {
		t.Error("the digest isn't found offline")
	}
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("root is %v, %v", info.Mode(), err)
	}
}

func TestPull_Policies(t *testing.T) {
	reg := newRegistry(t)
	s := newStore(t, reg)
	old := reg.push(t, "library/web:latest", imageOf(t, layerOf(t, file("a", "old"))))
	do := func(p Policy) (Image, error) {
		return s.Pull(t.Context(), "web", PullOptions{Policy: p, Auth: noAuth})
	}
	if _, err := do(PullNever); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "never") {
		t.Fatalf("never, absent: %v", err)
	}
	if img, err := do(PullMissing); err != nil || img.Digest != old {
		t.Fatalf("missing, absent: %v", err)
	}
	newer := reg.push(t, "library/web:latest", imageOf(t, layerOf(t, file("a", "new"))))
	for _, p := range []Policy{"", PullMissing, PullNever, PullBuild, "daily", "weekly", "every_1w2d3h4m5s"} {
		if img, err := do(p); err != nil || img.Digest != old {
			t.Errorf("%q: %s, %v; want the old image", p, img.Digest, err)
		}
	}
	if n := reg.count("/v2/"); n != 0 {
		t.Errorf("%d requests for what is present", n)
	}
	// The image is older than the policy allows.
	s.refs["docker.io/library/web:latest"].Pulled = time.Now().Add(-25 * time.Hour)
	if img, err := do("weekly"); err != nil || img.Digest != old {
		t.Errorf("weekly after a day: %v, %v", img.Digest, err)
	}
	if img, err := do("daily"); err != nil || img.Digest != newer {
		t.Errorf("daily after 25 h: %v, %v", img.Digest, err)
	}
	if img, err := do(PullAlways); err != nil || img.Digest != newer {
		t.Errorf("always: %v, %v", img.Digest, err)
	}
	if n := reg.count("GET /v2/library/web/manifests"); n != 1 {
		t.Errorf("%d manifest GETs; an unchanged tag costs a HEAD only", n)
	}
	for _, p := range []Policy{"sometimes", "every_", "every_3", "every_0s", "every_h", "every_-1h", "every_99999999w"} {
		if _, err := do(p); err == nil || !strings.Contains(err.Error(), "unknown pull policy") {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestPull_TagMoved_KeepsOldImageUntilPrune(t *testing.T) {
	reg := newRegistry(t)
	s := newStore(t, reg)
	old := reg.push(t, "library/web:v1", imageOf(t, layerOf(t, file("a", "old"))))
	pull(t, s, "web:v1")
	newer := reg.push(t, "library/web:v1", imageOf(t, layerOf(t, file("a", "new"))))
	if _, err := s.Pull(t.Context(), "web:v1", PullOptions{Policy: PullAlways, Auth: noAuth}); err != nil {
		t.Fatal(err)
	}
	if img, err := s.Resolve(old); err != nil || len(img.References) != 0 {
		t.Errorf("old image: %v, %v", img.References, err)
	}
	if img, err := s.Resolve("web:v1"); err != nil || img.Digest != newer {
		t.Errorf("new image: %v", err)
	}
}

func TestPull_FailureAfterSuccess_LeavesReference(t *testing.T) {
	reg := newRegistry(t)
	s := newStore(t, reg)
	old := reg.push(t, "library/web:v1", imageOf(t, layerOf(t, file("a", "old"))))
	pull(t, s, "web:v1")
	reg.push(t, "library/web:v1", twoLayers(t))
	reg.break_(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	})
	if _, err := s.Pull(t.Context(), "web:v1", PullOptions{Policy: PullAlways, Auth: noAuth}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("err = %v", err)
	}
	if img, err := s.Resolve("web:v1"); err != nil || img.Digest != old {
		t.Errorf("the reference moved: %v, %v", img.Digest, err)
	}
}

func TestPull_TenAtOnce_FetchEachBlobOnce(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	s := newStore(t, reg)
	gate := make(chan struct{})
	reg.break_(func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			<-gate
		}
		return false
	})
	var wg sync.WaitGroup
	errs := make(chan error, 10)
	for range 10 {
		wg.Go(func() {
			_, err := s.Pull(t.Context(), "web:v1", PullOptions{Auth: noAuth})
			errs <- err
		})
	}
	eventually(t, "asked", func() bool { return reg.count("GET /v2/library/web/manifests") > 0 })
	close(gate)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	for k, n := range reg.gets {
		if strings.Contains(k, "/blobs/") && n != 1 {
			t.Errorf("%s: %d times", k, n)
		}
	}
}

func TestPull_CancelledByOne_GoesOnForOther(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", imageOf(t, layerOf(t, file("a", "x"))))
	s := newStore(t, reg)
	gate := make(chan struct{})
	reg.break_(func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			<-gate
		}
		return false
	})
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, "web:v1", PullOptions{Auth: noAuth})
		first <- err
	}()
	eventually(t, "started", func() bool { return reg.count("/blobs/") > 0 })
	go func() {
		_, err := s.Pull(t.Context(), "web:v1", PullOptions{Auth: noAuth})
		second <- err
	}()
	eventually(t, "joined", func() bool {
		s.questions.mu.Lock()
		defer s.questions.mu.Unlock()
		for _, j := range s.questions.jobs {
			return j.waiting == 2
		}
		return false
	})
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("first: %v", err)
	}
	close(gate)
	if err := <-second; err != nil {
		t.Errorf("second: %v", err)
	}
}

func TestPull_Index_ChoosesPlatform(t *testing.T) {
	reg := newRegistry(t)
	s := newStore(t, reg)
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	want := map[string]string{}
	for i, p := range []v1.Platform{
		{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm64", Variant: "v8"},
		{OS: "linux", Architecture: "arm", Variant: "v6"},
		{OS: "linux", Architecture: "arm", Variant: "v5"},
		{OS: "unknown", Architecture: "unknown"},
	} {
		img := imageOf(t, layerOf(t, file("arch", fmt.Sprint(i))))
		cf, _ := img.ConfigFile()
		cf = cf.DeepCopy()
		cf.Architecture, cf.Variant = p.Architecture, p.Variant
		img, err := mutate.ConfigFile(img, cf)
		if err != nil {
			t.Fatal(err)
		}
		d, _ := img.Digest()
		want[p.Architecture+p.Variant] = d.String()
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	reg.pushIndex(t, "library/multi:v1", idx)
	for platform, key := range map[string]string{
		"linux/amd64": "amd64", "linux/arm64": "arm64v8", "linux/arm64/v8": "arm64v8",
		"linux/arm/v7": "armv6", "linux/arm/v6": "armv6", "linux/arm/v5": "armv5", "linux/aarch64": "arm64v8",
	} {
		img, err := s.Pull(t.Context(), "multi:v1", PullOptions{Platform: platform, Auth: noAuth})
		if err != nil || img.Digest != want[key] {
			t.Errorf("%s: %s, %v; want %s", platform, img.Digest, err, want[key])
		}
	}
	_, err := s.Pull(t.Context(), "multi:v1", PullOptions{Platform: "linux/s390x", Auth: noAuth})
	if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "linux/arm/v6") || strings.Contains(err.Error(), "unknown/") {
		t.Errorf("absent platform: %v", err)
	}
	if _, err := s.Pull(t.Context(), "multi:v1", PullOptions{Platform: "linux", Auth: noAuth}); err == nil {
		t.Error("platform without architecture was taken")
	}
}

func TestPull_OtherArchitecture_SaysWhatToDo(t *testing.T) {
	reg := newRegistry(t)
	s := newStore(t, reg)
	img := imageOf(t, layerOf(t, file("a", "b")))
	cf, _ := img.ConfigFile()
	cf = cf.DeepCopy()
	cf.Architecture = "riscv64"
	img, err := mutate.ConfigFile(img, cf)
	if err != nil {
		t.Fatal(err)
	}
	reg.push(t, "library/rv:v1", img)
	_, err = s.Pull(t.Context(), "rv:v1", PullOptions{Auth: noAuth})
	if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "platform: linux/riscv64") {
		t.Errorf("err = %v", err)
	}
	if _, err = s.Pull(t.Context(), "rv:v1", PullOptions{Platform: "linux/riscv64", Auth: noAuth}); err != nil {
		t.Error(err)
	}
}

func TestPull_EveryCompression_UnpacksTheSame(t *testing.T) {
	reg := newRegistry(t)
	plain := archiveOf(t, dir("d"), file("d/f", "content"))
	for name, blob := range map[string][]byte{
		"gzip": gzipped(t, plain), "zstd": zstded(t, plain), "plain": plain,
		"members":   append(gzipped(t, plain[:512]), gzipped(t, plain[512:])...),
		"skippable": append([]byte{0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'h', 'i'}, zstded(t, plain)...),
	} {
		s := newStore(t, reg)
		// The media type lies on purpose: only the bytes count.
		reg.push(t, "library/c:"+name, imageOf(t, blobLayer(blob, digestOf(plain), types.OCILayer)))
		img := pull(t, s, "c:"+name)
		if got := readLayerFile(t, s, img, 0, "d/f"); got != "content" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestPull_ImplicitParents_TakeAttributesFromBelow(t *testing.T) {
	reg := newRegistry(t)
	s := newStore(t, reg)
	base := layerOf(t, dir("var").owned(0, 0, 0o755), dir("var/www").owned(33, 33, 0o1777))
	other := layerOf(t, dir("var").owned(0, 0, 0o711), dir("var/www").owned(7, 7, 0o750))
	sparse := layerOf(t, file("var/www/index.html", "hi"))
	reg.push(t, "library/a:v1", imageOf(t, base, sparse))
	reg.push(t, "library/b:v1", imageOf(t, other, sparse))
	// In this order: what a has brought is not downloaded for b.
	for _, pulled := range []struct{ ref, want string }{{"a:v1", "33 1777"}, {"b:v1", "7 750"}} {
		img := pull(t, s, pulled.ref)
		l := s.layers[s.images[img.Digest].Keys[1]]
		if got := ownerAndMode(t, filepath.Join(s.layerDir(l), "var/www")); got != pulled.want {
			t.Errorf("%s: var/www is %s, want %s", pulled.ref, got, pulled.want)
		}
	}
	if n := len(entriesOf(t, s, "layers")); n != 4 {
		t.Errorf("%d layers, want 4: the sparse one belongs to its parents", n)
	}
	// Nothing is downloaded twice.
	if n := reg.count("GET /v2/library/b/blobs/"); n != 2 {
		t.Errorf("%d blobs for b, want config and base only", n)
	}
}

func TestPull_LayerDeletedByHand_ComesBack(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	s := newStore(t, reg)
	img := pull(t, s, "web:v1")
	if err := os.RemoveAll(s.layerDir(s.layers[img.Layers[0]])); err != nil {
		t.Fatal(err)
	}
	pull(t, s, "web:v1")
	if got := readLayerFile(t, s, img, 0, "etc/one"); got != "1" {
		t.Errorf("etc/one holds %q", got)
	}
	if n := reg.count("GET /v2/library/web/blobs"); n != 3 {
		t.Errorf("%d blob requests: the kept blobs were not used", n)
	}
}

func TestPull_KeptBlobRotten_IsFetchedAgain(t *testing.T) {
	reg := newRegistry(t)
	layer := layerOf(t, file("a", strings.Repeat("content", 100)))
	reg.push(t, "library/web:v1", imageOf(t, layer))
	s := newStore(t, reg)
	img := pull(t, s, "web:v1")
	blob := s.blobPath(s.layers[img.Layers[0]].Blob)
	b, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(blob, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.layerDir(s.layers[img.Layers[0]])); err != nil {
		t.Fatal(err)
	}
	pull(t, s, "web:v1")
	if got := readLayerFile(t, s, img, 0, "a"); got != strings.Repeat("content", 100) {
		t.Errorf("a holds %q", got)
	}
	if n := reg.count("GET /v2/library/web" + blobPath(t, layer)); n != 2 {
		t.Errorf("%d requests for the layer, want 2", n)
	}
}

func TestPull_Progress_EndsEachLayer(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	s := newStore(t, reg)
	var mu sync.Mutex
	last := map[string]string{}
	_, err := s.Pull(t.Context(), "web:v1", PullOptions{Auth: noAuth, Progress: func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		last[p.Layer] = p.Status
		if p.Reference != "docker.io/library/web:v1" || p.Current > p.Total {
			t.Errorf("odd progress %+v", p)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(last) != 3 {
		t.Errorf("%d things reported, want 2 layers and the image: %v", len(last), last)
	}
	for l, st := range last {
		if st != statusDone {
			t.Errorf("%q ends as %s", l, st)
		}
	}
}
