package main

import "testing"

func TestLanding_IsThatOfDockerCp(t *testing.T) {
	for _, c := range []struct {
		src          string
		dir, content bool
		to           string
		kind         int
		folder, name string // name: of an entry "x" below the source, or of the source if it is a file
	}{
		{"/a/f", false, false, "/d", isDir, "/d", "f"},
		{"/a/f", false, false, "/d/g", isMissing, "/d", "g"},
		{"/a/f", false, false, "/d/g", isFile, "/d", "g"},
		{"/a/t", true, false, "/d", isDir, "/d", "t/x"},
		{"/a/t", true, true, "/d", isDir, "/d", "x"},
		{"/a/t", true, false, "/d/new", isMissing, "/d", "new/x"},
		{"/a/t", true, true, "/d/new/", isMissing, "/d", "new/x"},
		{"/", true, false, "/d", isDir, "/d", "x"},
	} {
		folder, r, err := landing(c.src, c.dir, c.content, c.to, c.kind)
		name := r.from
		if c.dir {
			name += "/x"
		}
		if r.from == "." {
			name = "x"
		}
		if got := r.apply(name); err != nil || folder != c.folder || got != c.name {
			t.Errorf("%+v: %s in %s, %v", c, got, folder, err)
		}
	}
	for _, c := range []struct {
		dir  bool
		to   string
		kind int
	}{{true, "/f", isFile}, {false, "/d/", isMissing}} {
		if _, _, err := landing("/a/s", c.dir, false, c.to, c.kind); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestPlaced(t *testing.T) {
	for arg, want := range map[string][2]string{"web:/x": {"web", "/x"}, "./web:x": {"", "./web:x"}, "/a:b": {"", "/a:b"}, "plain": {"plain", ""}} {
		service, path, ok := placed(arg)
		if ok != (want[0] != "" && want[1] != "") || ok && (service != want[0] || path != want[1]) {
			t.Errorf("%s: %q %q %v", arg, service, path, ok)
		}
	}
}
