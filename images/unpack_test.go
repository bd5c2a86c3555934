package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"berth/testbed"

	ctrarchive "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"pgregory.net/rapid"
)

// drawLayer makes a layer as a build tool would: each file below directories
// that are listed, no name twice, whiteouts only of what isn't in it. With
// lower, whiteouts are only of what is there and not in opaque directories:
// overlayfs lists a whiteout that hides nothing, in a directory of one layer,
// as a name that can't be opened. No tool writes one.
func drawLayer(t *rapid.T, lower map[string]string) []entry {
	names := []string{"a", "b", "c", "d"}
	seen := map[string]bool{}
	var out []entry
	var files []string
	var addDir func(d string)
	addDir = func(d string) {
		if d == "." || seen[d] {
			return
		}
		addDir(path.Dir(d))
		seen[d] = true
		out = append(out, dir(d).owned(rapid.IntRange(0, 3).Draw(t, "uid"), 0, 0o700|rapid.Int64Range(0, 0o77).Draw(t, "mode")))
	}
	n := rapid.IntRange(1, 14).Draw(t, "entries")
	for range n {
		parts := rapid.SliceOfN(rapid.SampledFrom(names), 1, 3).Draw(t, "path")
		name := strings.Join(parts, "/")
		kind := rapid.SampledFrom([]string{"file", "file", "dir", "symlink", "hardlink", "whiteout", "opaque", "fifo", "xattr"}).Draw(t, "kind")
		if kind == "opaque" {
			name += "/x"
		}
		clash := seen[name]
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			clash = clash || seen[d+"\x00"] // a file is there
		}
		if clash {
			continue
		}
		up := path.Dir(name)
		addDir(up)
		if kind != "dir" && kind != "opaque" {
			seen[name], seen[name+"\x00"] = true, true
		}
		switch kind {
		case "file":
			out = append(out, file(name, rapid.StringN(0, 20, 40).Draw(t, "body")).owned(1, 2, rapid.Int64Range(0, 0o7777).Draw(t, "mode")))
			files = append(files, name)
		case "xattr":
			out = append(out, file(name, "x").xattr("security.capability", capNetBind))
		case "dir":
			addDir(name)
		case "symlink":
			out = append(out, link(tar.TypeSymlink, name, rapid.SampledFrom([]string{"a", "/b", "../c", "/etc/passwd"}).Draw(t, "to")))
		case "hardlink":
			if len(files) > 0 {
				// containerd sets the attributes of the header, we keep the file's.
				to := rapid.SampledFrom(files).Draw(t, "to")
				e := link(tar.TypeLink, name, to)
				for _, f := range out {
					if f.Name == to {
						e.Mode, e.Uid, e.Gid = f.Mode, f.Uid, f.Gid
					}
				}
				out = append(out, e)
			}
		case "whiteout":
			if _, there := lower[name]; lower != nil && (!there || insideOpaque(out, up)) {
				continue
			}
			out = append(out, file(path.Join(up, ".wh."+path.Base(name)), ""))
		case "opaque":
			if lower != nil && hasWhiteoutBelow(out, up) {
				continue
			}
			out = append(out, file(path.Join(up, ".wh..wh..opq"), ""))
		case "fifo":
			out = append(out, mode(tar.TypeFifo, name, 0o640))
		}
	}
	return out
}

func insideOpaque(es []entry, dir string) bool {
	for _, e := range es {
		if up, base := splitName(e.Name); base == whiteoutOpaque && (dir == up || strings.HasPrefix(dir, up+"/")) {
			return true
		}
	}
	return false
}

func hasWhiteoutBelow(es []entry, dir string) bool {
	for _, e := range es {
		if strings.HasPrefix(e.Name, dir+"/") && strings.Contains(e.Name, whiteoutPrefix) {
			return true
		}
	}
	return false
}

func TestUnpack_RandomLayers_EqualContainerd(t *testing.T) {
	testbed.NeedKernel(t)
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		b := archiveOf(t, drawLayer(rt, nil)...)
		n++
		ours, theirs := fmt.Sprintf("%s/ours%d", base, n), fmt.Sprintf("%s/theirs%d", base, n)
		for _, d := range []string{ours, theirs} {
			if err := os.Mkdir(d, 0o755); err != nil {
				rt.Fatal(err)
			}
		}
		u, err := unpack(t.Context(), ours, bytes.NewReader(b), defaultLimits)
		if err != nil {
			rt.Fatal(err)
		}
		_, err = ctrarchive.Apply(t.Context(), theirs, bytes.NewReader(b), ctrarchive.WithConvertWhiteout(ctrarchive.OverlayConvertWhiteout))
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(describe(t, theirs), describe(t, ours)); diff != "" {
			rt.Errorf("containerd's tree (-) isn't ours (+):\n%s", diff)
		}
		if u.diffID != digestOf(b) || u.tarSize != int64(len(b)) || len(u.implicit) != 0 {
			rt.Errorf("wrong account %+v", u)
		}
	})
}

// flatten is the plainest reading of the layer specification: a map of paths.
func flatten(layers [][]entry) map[string]string {
	tree := map[string]string{}
	below := func(dir string, keep map[string]bool) {
		for p := range tree {
			if strings.HasPrefix(p, dir+"/") && !keep[p] {
				delete(tree, p)
			}
		}
	}
	for _, entries := range layers {
		own := map[string]bool{}
		for _, e := range entries {
			own[strings.TrimSuffix(e.Name, "/")] = true
		}
		for _, e := range entries { // deletions first: they are of lower layers
			up, name := splitName(e.Name)
			if name == whiteoutOpaque {
				below(up, nil)
			} else if gone, ok := strings.CutPrefix(name, whiteoutPrefix); ok {
				p := path.Join(up, gone)
				delete(tree, p)
				below(p, nil)
			}
		}
		for _, e := range entries {
			p := strings.TrimSuffix(e.Name, "/")
			if strings.HasPrefix(path.Base(p), whiteoutPrefix) {
				continue
			}
			if e.Typeflag != tar.TypeDir {
				below(p, own)
			}
			tree[p] = fmt.Sprintf("%c %o %d %s %s", e.Typeflag, e.Mode, e.Uid, e.body, e.Linkname)
		}
	}
	return tree
}

func TestPull_RandomImages_MountLikeTheSpecification(t *testing.T) {
	testbed.NeedKernel(t)
	reg := newRegistry(t)
	s := newStore(t, reg)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		if n++; n > 40 {
			return
		}
		var all [][]entry
		var layers []v1.Layer
		for range rapid.IntRange(1, 5).Draw(rt, "layers") {
			es := drawLayer(rt, flatten(all))
			all, layers = append(all, es), append(layers, layerOf(t, es...))
		}
		ref := fmt.Sprintf("random:v%d", n)
		reg.push(t, "library/"+ref, imageOf(t, layers...))
		img := pull(t, s, ref)
		d := t.TempDir()
		m := Mount{Target: d + "/root", Upper: d + "/u", Work: d + "/w"}
		if err := s.Mount(t.Context(), img.Digest, m); err != nil {
			rt.Fatal(err)
		}
		defer func() {
			if err := s.Unmount(m.Target); err != nil {
				t.Error(err)
			}
		}()
		want, got := map[string]bool{}, map[string]bool{}
		for p := range flatten(all) {
			want[p] = true
		}
		for _, line := range strings.Split(describe(t, m.Target), "\n") {
			if p, _, _ := strings.Cut(line, " "); p != "" {
				got[p] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Errorf("specification (-), mount (+):\n%s", diff)
		}
		for p, w := range flatten(all) {
			if strings.HasPrefix(w, "0 ") {
				b, err := os.ReadFile(m.Target + "/" + p)
				if err != nil || !strings.Contains(w, " "+string(b)+" ") {
					rt.Errorf("%s: %q, %v; want %s", p, b, err, w)
				}
			}
		}
	})
}
