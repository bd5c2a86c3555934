package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func dockerArchive(t testing.TB, images map[string]v1.Image) []byte {
	t.Helper()
	refs := map[name.Tag]v1.Image{}
	for ref, img := range images {
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		refs[tag] = img
	}
	var b bytes.Buffer
	if err := tarball.MultiWrite(refs, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tarOf packs a directory, as `tar -C dir -c .` would.
func tarOf(t testing.TB, root string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func load(t testing.TB, s *Store, b []byte) []Image {
	t.Helper()
	imgs, err := s.Load(t.Context(), bytes.NewReader(b), nil)
	if err != nil {
		t.Fatal(err)
	}
	if left := append(entriesOf(t, s, "ingest"), entriesOf(t, s, "unpack")...); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	return imgs
}

func TestLoad_DockerArchive_SeveralImages(t *testing.T) {
	base := layerOf(t, file("base", "b"))
	b := dockerArchive(t, map[string]v1.Image{
		"shop/web:v1": imageOf(t, base, layerOf(t, file("w", "web"))),
		"shop/db:v1":  imageOf(t, base, layerOf(t, file("d", "db"))),
	})
	for form, data := range map[string][]byte{"plain": b, "gzip": gzipped(t, b), "zstd": zstded(t, b)} {
		s := newStore(t, nil)
		if imgs := load(t, s, data); len(imgs) != 2 {
			t.Fatalf("%s: %d images", form, len(imgs))
		}
		img, err := s.Resolve("shop/web:v1")
		if err != nil {
			t.Fatal(err)
		}
		if got := readLayerFile(t, s, img, 1, "w"); got != "web" {
			t.Errorf("%s: %q", form, got)
		}
		if n := len(entriesOf(t, s, "layers")); n != 3 {
			t.Errorf("%s: %d layers, want 3: the base is shared", form, n)
		}
	}
}

func TestLoad_OCILayout_KeepsDigest(t *testing.T) {
	img := twoLayers(t)
	want, _ := img.Digest()
	root := t.TempDir()
	p, err := layout.Write(root, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{annotationRef: "example.com/shop/web:v2"})); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, nil)
	imgs := load(t, s, tarOf(t, root))
	if len(imgs) != 1 || imgs[0].Digest != want.String() || !cmp.Equal(imgs[0].References, []string{"example.com/shop/web:v2"}) {
		t.Errorf("loaded %+v", imgs)
	}
}

func TestSave_Load_IsTheSameImage(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	reg.push(t, "library/db:v1", imageOf(t, layerOf(t, file("db", "x"))))
	s := newStore(t, reg)
	web, db := pull(t, s, "web:v1"), pull(t, s, "db:v1")
	if err := s.Tag("web:stable", "web:v1"); err != nil {
		t.Fatal(err)
	}
	save := func() []byte {
		var b bytes.Buffer
		if err := s.Save(t.Context(), &b, []string{"web:v1", "web:stable", db.ID[7:19]}); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	first := save()
	if !bytes.Equal(first, save()) {
		t.Error("two saves differ")
	}
	other := newStore(t, nil)
	imgs := load(t, other, first)
	if len(imgs) != 2 {
		t.Fatalf("%d images", len(imgs))
	}
	got, err := other.Resolve("web:stable")
	if err != nil || got.Digest != web.Digest || got.ID != web.ID || len(got.References) != 2 {
		t.Errorf("web: %+v, %v", got, err)
	}
	if got, err := other.Resolve(db.Digest); err != nil || len(got.References) != 0 {
		t.Errorf("db, saved by id: %v, %v", got.References, err)
	}
	// The other half of the format: as older docker load reads it.
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(first)), nil }
	tag, _ := name.NewTag("web:v1")
	old, err := tarball.Image(opener, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := old.ConfigName(); err != nil || id.String() != web.ID {
		t.Errorf("as a docker-archive: %v, %v", id, err)
	}
}

func TestSave_LayerSharedInOtherCompression_StaysLoadable(t *testing.T) {
	reg := newRegistry(t)
	plain := archiveOf(t, file("a", "b"))
	reg.push(t, "library/gz:v1", imageOf(t, blobLayer(gzipped(t, plain), digestOf(plain), "application/vnd.oci.image.layer.v1.tar+gzip")))
	reg.push(t, "library/zst:v1", imageOf(t, blobLayer(zstded(t, plain), digestOf(plain), "application/vnd.oci.image.layer.v1.tar+zstd")))
	s := newStore(t, reg)
	pull(t, s, "gz:v1")
	want := pull(t, s, "zst:v1")
	if n := reg.count("GET /v2/library/zst/blobs/"); n != 1 {
		t.Errorf("%d blobs for an image of a known layer, want its config only", n)
	}
	var b bytes.Buffer
	if err := s.Save(t.Context(), &b, []string{"zst:v1"}); err != nil {
		t.Fatal(err)
	}
	imgs := load(t, newStore(t, nil), b.Bytes())
	if len(imgs) != 1 || imgs[0].ID != want.ID {
		t.Errorf("%+v", imgs)
	}
}

// replaceIn changes one file of an archive.
func replaceIn(t testing.TB, b []byte, match func(name string) bool, change func([]byte) []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(b)), tar.NewWriter(&out)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if match(h.Name) {
			body = change(body)
		}
		if body == nil {
			continue
		}
		h.Size = int64(len(body))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestLoad_DamagedArchive_LoadsNothing(t *testing.T) {
	img := imageOf(t, layerOf(t, file("f", strings.Repeat("content", 100))))
	good := dockerArchive(t, map[string]v1.Image{"shop/web:v1": img})
	var m []dockerItem
	if err := json.Unmarshal(fileIn(t, good, "manifest.json"), &m); err != nil {
		t.Fatal(err)
	}
	is := func(want string) func(string) bool { return func(n string) bool { return n == want } }
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	other := gzipped(t, archiveOf(t, file("evil", "x")))
	for what, b := range map[string][]byte{
		"empty":            {},
		"no tar":           []byte(strings.Repeat("not a tar", 200)),
		"truncated":        good[:len(good)/2],
		"other layer":      replaceIn(t, good, is(m[0].Layers[0]), func([]byte) []byte { return other }),
		"flipped layer":    replaceIn(t, good, is(m[0].Layers[0]), flip),
		"layer missing":    replaceIn(t, good, is(m[0].Layers[0]), func([]byte) []byte { return nil }),
		"config missing":   replaceIn(t, good, is(m[0].Config), func([]byte) []byte { return nil }),
		"config garbage":   replaceIn(t, good, is(m[0].Config), func([]byte) []byte { return []byte("{") }),
		"manifest missing": replaceIn(t, good, is("manifest.json"), func([]byte) []byte { return nil }),
		"manifest garbage": replaceIn(t, good, is("manifest.json"), func([]byte) []byte { return []byte(`{"a":`) }),
		"manifest empty":   replaceIn(t, good, is("manifest.json"), func([]byte) []byte { return []byte(`[]`) }),
		"path leaves": replaceIn(t, good, is("manifest.json"), func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(m[0].Config), []byte("../../../../etc/passwd"))
		}),
		"link loop": archiveOf(t, link(tar.TypeSymlink, "manifest.json", "b"), link(tar.TypeSymlink, "b", "manifest.json")),
	} {
		s := newStore(t, nil)
		_, err := s.Load(t.Context(), bytes.NewReader(b), nil)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: err = %v, want ErrInvalid", what, err)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %q", what, err)
		}
		if list, _ := s.List(); len(list) != 0 {
			t.Errorf("%s: %v was loaded", what, list)
		}
		if left := append(entriesOf(t, s, "ingest"), entriesOf(t, s, "layers")...); len(left) > 0 {
			t.Errorf("%s: left over: %v", what, left)
		}
	}
}

func fileIn(t testing.TB, b []byte, name string) (out []byte) {
	t.Helper()
	replaceIn(t, b, func(n string) bool { return n == name }, func(b []byte) []byte { out = append(out, b...); return b })
	if out == nil {
		t.Fatalf("archive lacks %s", name)
	}
	return out
}

func TestLoad_BuildahArchive(t *testing.T) {
	if _, err := exec.LookPath("buildah"); err != nil {
		t.Skip("SKIPPED: needs buildah to make an archive with another tool")
	}
	d := t.TempDir()
	flags := []string{"--root", d + "/root", "--runroot", d + "/run", "--storage-driver", "vfs"}
	run := func(args ...string) string {
		out, err := exec.Command("buildah", append(flags, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("buildah %v: %v\n%s", args, err, out)
		}
		lines := append([]string{""}, strings.Fields(string(out))...)
		return lines[len(lines)-1]
	}
	if err := os.WriteFile(d+"/hello", []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := run("from", "scratch")
	run("copy", c, d+"/hello", "/srv/hello")
	run("config", "--entrypoint", `["/srv/hello"]`, c)
	run("commit", "--disable-compression=false", c, "localhost/made:v1")
	for _, to := range []string{"docker-archive", "oci-archive"} {
		made := filepath.Join(d, to)
		run("push", "localhost/made:v1", to+":"+made+":localhost/made:v1")
		b, err := os.ReadFile(made)
		if err != nil {
			t.Fatal(err)
		}
		s := newStore(t, nil)
		imgs := load(t, s, b)
		if len(imgs) != 1 || !cmp.Equal(imgs[0].References, []string{"localhost/made:v1"}) || imgs[0].Config.Entrypoint[0] != "/srv/hello" {
			t.Errorf("%s: %+v", to, imgs)
			continue
		}
		if got := readLayerFile(t, s, imgs[0], 0, "srv/hello"); got != "hello" {
			t.Errorf("%s: %q", to, got)
		}
	}
}
