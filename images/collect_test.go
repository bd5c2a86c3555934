package images

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func storeWithTwo(t *testing.T) (s *Store, web, db Image) {
	reg := newRegistry(t)
	base := layerOf(t, file("base", "b"))
	reg.push(t, "library/web:v1", imageOf(t, base, layerOf(t, file("w", "web"))))
	reg.push(t, "library/db:v1", imageOf(t, base, layerOf(t, file("d", "db"))))
	s = newStore(t, reg)
	return s, pull(t, s, "web:v1"), pull(t, s, "db:v1")
}

func TestRemove_LastReference_TakesWhatNobodyElseNeeds(t *testing.T) {
	s, web, db := storeWithTwo(t)
	if err := s.Tag("web:stable", web.Digest); err != nil {
		t.Fatal(err)
	}
	r, err := s.Remove("web:v1", false, nil)
	if err != nil || len(r.Deleted) != 0 || !cmp.Equal(r.Untagged, []string{"docker.io/library/web:v1"}) {
		t.Errorf("first reference: %+v, %v", r, err)
	}
	if _, err := s.Remove("web:stable", false, map[string]bool{web.Digest: true}); !errors.Is(err, ErrInUse) {
		t.Errorf("pinned: %v", err)
	}
	r, err = s.Remove("web:stable", false, map[string]bool{db.Digest: true})
	if err != nil || !cmp.Equal(r.Deleted, []string{web.Digest}) || r.Bytes == 0 {
		t.Errorf("last reference: %+v, %v", r, err)
	}
	if n := len(entriesOf(t, s, "layers")); n != 2 {
		t.Errorf("%d layers left, want db's two", n)
	}
	if n := len(entriesOf(t, s, "blobs")); n != 2 {
		t.Errorf("%d blobs left, want db's two", n)
	}
	if _, err := s.Resolve("web:stable"); !errors.Is(err, ErrNotFound) {
		t.Errorf("still resolved: %v", err)
	}
	if _, err := s.Remove("web:stable", false, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
}

func TestRemove_ByID_WithSeveralNames_NeedsForce(t *testing.T) {
	s, web, _ := storeWithTwo(t)
	if err := s.Tag("other:name", "web:v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(web.ID, false, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("err = %v", err)
	}
	r, err := s.Remove(web.ID, true, nil)
	if err != nil || len(r.Untagged) != 2 || len(r.Deleted) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestPrune_KeepsPinnedAndNamed(t *testing.T) {
	s, web, db := storeWithTwo(t)
	if err := s.Tag("db:v1", web.Digest); err != nil { // db has no name now
		t.Fatal(err)
	}
	r, err := s.Prune(false, map[string]bool{db.Digest: true})
	if err != nil || len(r.Deleted) != 0 {
		t.Errorf("pinned, unnamed: %+v, %v", r, err)
	}
	r, err = s.Prune(false, nil)
	if err != nil || !cmp.Equal(r.Deleted, []string{db.Digest}) || r.Bytes == 0 {
		t.Errorf("unnamed: %+v, %v", r, err)
	}
	r, err = s.Prune(true, map[string]bool{web.Digest: true})
	if err != nil || len(r.Deleted) != 0 {
		t.Errorf("all, pinned: %+v, %v", r, err)
	}
	if _, err := s.Prune(true, nil); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"layers", "blobs"} {
		if e := entriesOf(t, s, d); len(e) != 0 {
			t.Errorf("%s holds %v", d, e)
		}
	}
	s.sweeps.Wait()
	if e := entriesOf(t, s, "trash"); len(e) != 0 {
		t.Errorf("trash holds %v", e)
	}
}

func TestPrune_DuringPull_LeavesItsLayers(t *testing.T) {
	reg := newRegistry(t)
	first, second := layerOf(t, file("1", "1")), layerOf(t, file("2", "2"))
	reg.push(t, "library/web:v1", imageOf(t, first, second))
	path := blobPath(t, second)
	gate := make(chan struct{})
	reg.break_(func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		if isGet(r, path) {
			<-gate
		}
		return false
	})
	s := newStore(t, reg)
	done := make(chan error, 1)
	go func() {
		_, err := s.Pull(t.Context(), "web:v1", PullOptions{Auth: noAuth})
		done <- err
	}()
	eventually(t, "half unpacked", func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return len(s.layers) == 1
	})
	if _, err := s.Prune(true, nil); err != nil {
		t.Fatal(err)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve("web:v1")
	if err != nil {
		t.Fatal(err)
	}
	if got := readLayerFile(t, s, img, 0, "1"); got != "1" {
		t.Errorf("first layer holds %q", got)
	}
	if len(s.leases) != 0 {
		t.Errorf("leases are left: %v", s.leases)
	}
}

func TestOpen_AfterCrash_CollectsHalves(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	root := t.TempDir()
	s, err := Open(t.Context(), Config{Root: root, Registries: map[string]Registry{"docker.io": {Mirrors: []string{reg.URL}}}})
	if err != nil {
		t.Fatal(err)
	}
	img := pull(t, s, "web:v1")
	// What a kill at each point leaves: half unpacked, unpacked but not
	// recorded, deleted from the records but not from the disk, a half archive.
	for _, d := range []string{"unpack/7777", "layers/8888/etc", "trash/9999/x"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * partialAge)
	young, stale, orphan := "ingest/"+strings.Repeat("a", 64), "ingest/"+strings.Repeat("b", 64), "blobs/"+strings.Repeat("c", 64)
	for _, f := range []string{"ingest/load-5", young, stale, orphan} {
		if err := os.WriteFile(s.path(f), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{stale, orphan} {
		if err := os.Chtimes(s.path(f), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, nil)
	s.sweeps.Wait()
	for d, want := range map[string]int{"unpack": 0, "trash": 0, "layers": 2, "blobs": 2, "ingest": 1} {
		if e := entriesOf(t, s, d); len(e) != want {
			t.Errorf("%s holds %v, want %d", d, e, want)
		}
	}
	if got := readLayerFile(t, s, img, 1, "etc/two"); got != "2" {
		t.Errorf("etc/two holds %q", got)
	}
	if id := s.newID(); id <= 9999 {
		t.Errorf("number %d may be taken", id)
	}
}

func TestResolve_ByPrefix(t *testing.T) {
	s, web, db := storeWithTwo(t)
	for _, ref := range []string{"web:v1", "docker.io/library/web:v1", web.Digest, web.ID, web.ID[7:], web.ID[7:19], web.Digest[:20], "web@" + web.Digest} {
		if img, err := s.Resolve(ref); err != nil || img.Digest != web.Digest {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []string{"", "nothing", "web:v2", "abc", "sha256:", "../x", "UPPER"} {
		if _, err := s.Resolve(ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	// Two that begin alike.
	s.mu.Lock()
	s.images["sha256:"+web.ID[7:17]+strings.Repeat("0", 54)] = s.images[db.Digest]
	s.mu.Unlock()
	if _, err := s.Resolve(web.ID[7:15]); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("ambiguous: %v", err)
	}
	if err := s.Tag("bad@"+web.Digest, "web:v1"); !errors.Is(err, ErrReference) {
		t.Errorf("tag with a digest: %v", err)
	}
	if err := s.Tag("good:v1", "nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("tag of nothing: %v", err)
	}
}

func TestPrune_FreesPartialDownloads_NotASpoolOfLoad(t *testing.T) {
	s := newStore(t, nil)
	digest := strings.Repeat("a", 64)
	for _, f := range []string{"ingest/" + digest, "ingest/" + strings.Repeat("b", 64), "ingest/load-7"} {
		if err := os.WriteFile(s.path(f), []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	release := s.lease("sha256:" + digest)
	r, err := s.Prune(false, nil)
	if err != nil || r.Bytes != 5 {
		t.Errorf("%+v, %v; want one partial of 5 bytes", r, err)
	}
	release()
	if diff := cmp.Diff([]string{digest, "load-7"}, entriesOf(t, s, "ingest")); diff != "" {
		t.Error(diff)
	}
}
