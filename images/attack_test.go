package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attack is an archive made to write outside of its layer, or to exhaust the
// machine. refused: unpack must fail; else it must confine it.
type attack struct {
	entries []entry
	refused bool
	// check, if set, looks at what was unpacked.
	check func(t *testing.T, root string)
}

func absent(names ...string) func(*testing.T, string) {
	return func(t *testing.T, root string) {
		for _, n := range names {
			if _, err := os.Lstat(filepath.Join(root, n)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s exists", n)
			}
		}
	}
}

func holds(name, want string) func(*testing.T, string) {
	return func(t *testing.T, root string) {
		if b, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
}

func noOverlayXattr(t *testing.T, root string) {
	if d := describe(t, root); strings.Contains(d, "overlay") || strings.Contains(d, "trusted") {
		t.Errorf("forged attributes are on disk:\n%s", d)
	}
}

func mode(typ byte, name string, m int64) entry {
	return entry{Header: tar.Header{Typeflag: typ, Name: name, Mode: m}}
}

func attacks(canary string) map[string]attack {
	sym := func(n, to string) entry { return link(tar.TypeSymlink, n, to) }
	hard := func(n, to string) entry { return link(tar.TypeLink, n, to) }
	up := strings.Repeat("../", 12) + strings.TrimPrefix(canary, "/")
	dev := func(typ byte, n string, major, minor int64) entry {
		e := mode(typ, n, 0o666)
		e.Devmajor, e.Devminor = major, minor
		return e
	}
	at := func(e entry, when time.Time) entry { e.ModTime = when; return e }
	many := func(n int, f func(i int) entry) (out []entry) {
		for i := range n {
			out = append(out, f(i))
		}
		return out
	}
	return map[string]attack{
		"dot-dot":                     {entries: []entry{file("../canary/victim", "evil")}, refused: true},
		"dot-dot in the middle":       {entries: []entry{dir("a"), file("a/../../canary/victim", "evil")}, refused: true},
		"dot-dot at the end":          {entries: []entry{mode(tar.TypeDir, "a/..", 0o755)}, refused: true},
		"dot-slash-dot-dot":           {entries: []entry{file("./../canary/victim", "evil")}, refused: true},
		"long dot-dot":                {entries: []entry{file(up+"/victim", "evil")}, refused: true},
		"absolute":                    {entries: []entry{file(canary+"/victim", "evil")}, check: holds(canary+"/victim", "evil")},
		"name too long":               {entries: []entry{file(strings.Repeat("a/", 2100)+"x", "")}, refused: true},
		"element too long":            {entries: []entry{file(strings.Repeat("a", 300), "")}, refused: true},
		"symlink out, write through":  {entries: []entry{sym("out", canary), file("out/victim", "evil")}, refused: true},
		"symlink up, write through":   {entries: []entry{sym("out", up), file("out/victim", "evil")}, refused: true},
		"symlink to file, write":      {entries: []entry{sym("v", canary+"/victim"), file("v", "evil")}, check: holds("v", "evil")},
		"symlink chain":               {entries: []entry{sym("a", "b"), sym("b", "c"), sym("c", canary), file("a/victim", "evil")}, refused: true},
		"symlink loop":                {entries: []entry{sym("a", "b"), sym("b", "a"), file("a/x", "")}, refused: true},
		"symlink to proc root":        {entries: []entry{sym("p", "/proc/self/root"), file("p"+canary+"/victim", "evil")}, refused: true},
		"symlink to proc fd":          {entries: []entry{dir("proc"), dir("proc/self"), sym("proc/self/fd", "/proc/self/fd"), file("proc/self/fd/3", "evil")}, refused: true},
		"symlink to slash, confined":  {entries: []entry{sym("r", "/"), file("r/x", "in")}, check: holds("x", "in")},
		"symlink inside is followed":  {entries: []entry{dir("usr"), dir("usr/lib"), sym("lib", "usr/lib"), file("lib/x", "in")}, check: holds("usr/lib/x", "in")},
		"symlink inside, absolute":    {entries: []entry{dir("usr"), sym("lib", "/usr"), file("lib/x", "in")}, check: holds("usr/x", "in")},
		"directory over symlink":      {entries: []entry{sym("d", canary), dir("d"), file("d/victim", "mine")}, check: holds("d/victim", "mine")},
		"chmod through symlink":       {entries: []entry{sym("d", canary), mode(tar.TypeDir, "d", 0o777)}, check: holds("../canary/victim", "untouched")},
		"symlink target empty":        {entries: []entry{sym("a", "")}, refused: true},
		"symlink target too long":     {entries: []entry{sym("a", strings.Repeat("x", 5000))}, refused: true},
		"hard link out":               {entries: []entry{hard("h", canary+"/victim")}, refused: true},
		"hard link up":                {entries: []entry{hard("h", up+"/victim")}, refused: true},
		"hard link through symlink":   {entries: []entry{sym("out", canary), hard("h", "out/victim"), file("h", "evil")}, refused: true},
		"hard link to symlink":        {entries: []entry{sym("v", canary+"/victim"), hard("h", "v"), file("h", "evil")}, check: holds("h", "evil")},
		"hard link forward":           {entries: []entry{hard("h", "later"), file("later", "")}, refused: true},
		"hard link to directory":      {entries: []entry{dir("d"), hard("h", "d")}, refused: true},
		"hard link to whiteout":       {entries: []entry{file(".wh.gone", ""), hard("h", "gone")}, refused: true},
		"hard link to itself":         {entries: []entry{file("f", "x"), hard("f", "f")}, check: holds("f", "x")},
		"hard link to root":           {entries: []entry{hard("h", "/")}, refused: true},
		"hard link over its parent":   {entries: []entry{dir("d"), file("d/f", "x"), hard("d", "d/f")}, refused: true},
		"whiteout of dot-dot":         {entries: []entry{file(".wh...", "")}, refused: true},
		"whiteout of dot":             {entries: []entry{file("a/.wh..", "")}, refused: true},
		"whiteout of nothing":         {entries: []entry{file(".wh.", "")}, refused: true},
		"whiteout through symlink":    {entries: []entry{sym("out", canary), file("out/.wh.victim", "")}, refused: true},
		"opaque through symlink":      {entries: []entry{sym("out", canary), file("out/.wh..wh..opq", "")}, refused: true},
		"aufs bookkeeping":            {entries: []entry{file(".wh..wh.plnk", ""), file(".wh..wh.aufs", "")}, check: absent(".wh.plnk", ".wh.aufs", ".wh..wh.plnk")},
		"device of a disk":            {entries: []entry{dev(tar.TypeBlock, "sda", 8, 0)}, check: absent("sda")},
		"device kmem":                 {entries: []entry{dev(tar.TypeChar, "kmem", 1, 2)}, check: absent("kmem")},
		"hidden whiteout":             {entries: []entry{dev(tar.TypeChar, "shadow", 0, 0)}, check: absent("shadow")},
		"forged opaque":               {entries: []entry{dir("d").xattr("trusted.overlay.opaque", "y")}, check: noOverlayXattr},
		"forged redirect":             {entries: []entry{dir("d").xattr("trusted.overlay.redirect", "/etc")}, check: noOverlayXattr},
		"forged user.overlay":         {entries: []entry{file("f", "").xattr("user.overlay.metacopy", "")}, check: noOverlayXattr},
		"forged security label":       {entries: []entry{file("f", "").xattr("security.selinux", "system_u:object_r:x:s0")}, check: func(t *testing.T, root string) { noXattr(t, root+"/f") }},
		"setuid stays behind 0700":    {entries: []entry{file("su", "").owned(0, 0, 0o4755)}, check: func(t *testing.T, root string) { wantMode(t, root+"/su", "0 4755") }},
		"owner past 32 bits":          {entries: []entry{file("f", "").owned(math.MaxUint32+1, 0, 0o644)}, refused: true},
		"owner of no change":          {entries: []entry{file("f", "").owned(math.MaxUint32, 0, 0o644)}, refused: true},
		"owner negative":              {entries: []entry{file("f", "").owned(-1, 0, 0o644)}, refused: true},
		"before 1970":                 {entries: []entry{at(file("f", ""), time.Unix(-1e6, 0))}, check: func(t *testing.T, root string) { wantTime(t, root+"/f", 0) }},
		"in 2500":                     {entries: []entry{at(file("f", ""), time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC))}, check: func(t *testing.T, root string) { wantTime(t, root+"/f", 15032385535) }},
		"file below file":             {entries: []entry{file("a", ""), file("a/b", "")}, refused: true},
		"same name, last wins":        {entries: []entry{file("a", "1"), file("a", "2"), sym("a", "x"), file("a", "3")}, check: holds("a", "3")},
		"directory replaced by file":  {entries: []entry{dir("a"), file("a/b", ""), file("a", "f")}, check: holds("a", "f")},
		"invalid UTF-8 is kept":       {entries: []entry{file("\xff\xfe", "x")}, check: holds("\xff\xfe", "x")},
		"case is kept apart":          {entries: []entry{file("A", "1"), file("a", "2")}, check: holds("A", "1")},
		"too many entries":            {entries: many(1001, func(i int) entry { return file(fmt.Sprint(i), "") }), refused: true},
		"too many names":              {entries: many(300, func(i int) entry { return dir(fmt.Sprintf("%0200d", i)) }), refused: true},
		"too many implicit names":     {entries: many(300, func(i int) entry { return file(fmt.Sprintf("%0200d/x", i), "") }), refused: true},
		"too many bytes":              {entries: []entry{file("big", strings.Repeat("x", 1<<20+1))}, refused: true},
		"fifo is no hang":             {entries: []entry{mode(tar.TypeFifo, "p", 0o600), file("p", "x")}, check: holds("p", "x")},
		"continuous file":             {entries: []entry{mode(tar.TypeCont, "c", 0o600)}, refused: true},
		"dir from whiteout is opaque": {entries: []entry{file(".wh.d", ""), dir("d"), file("d/x", "new")}, check: isOpaque("d")},
		"implicit dir from whiteout":  {entries: []entry{file(".wh.d", ""), file("d/x", "new")}, check: isOpaque("d")},
		"whiteout of own dir":         {entries: []entry{dir("d"), file("d/x", "new"), file(".wh.d", "")}, check: isOpaque("d")},
		"whiteout of own file":        {entries: []entry{file("f", "new"), file(".wh.f", "")}, check: holds("f", "new")},
	}
}

func noXattr(t *testing.T, path string) {
	if x := xattrsOf(path); x != "" {
		t.Errorf("%s has attributes %s", path, x)
	}
}

func wantMode(t *testing.T, path, want string) {
	if got := ownerAndMode(t, path); got != want {
		t.Errorf("%s: %s, want %s", path, got, want)
	}
}

func wantTime(t *testing.T, path string, want int64) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mtim.Sec != want {
		t.Errorf("%s: time %d, %v; want %d", path, st.Mtim.Sec, err, want)
	}
}

func isOpaque(name string) func(*testing.T, string) {
	return func(t *testing.T, root string) {
		if x := xattrsOf(filepath.Join(root, name)); !strings.Contains(x, overlayOpaque+`="y"`) {
			t.Errorf("%s isn't opaque: %q", name, x)
		}
		holds(name+"/x", "new")(t, root)
	}
}

// tight makes the limits reachable in a test.
func tight() limits {
	l := defaultLimits
	l.entries, l.names, l.unpacked = 1000, 50_000, 1<<20
	return l
}

func TestUnpack_HostileArchives_StayInside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root: layers hold files of other owners")
	}
	n := 0
	base := t.TempDir()
	for what, a := range attacks(filepath.Join(base, "canary")) {
		n++
		t.Run(what, func(t *testing.T) {
			canary, root := filepath.Join(base, "canary"), filepath.Join(base, "layer")
			defer os.RemoveAll(canary)
			defer os.RemoveAll(root)
			for _, d := range []string{canary, root} {
				if err := os.Mkdir(d, 0o751); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(canary+"/victim", []byte("untouched"), 0o640); err != nil {
				t.Fatal(err)
			}
			before := describe(t, canary) + ownerAndMode(t, canary)
			_, err := unpack(t.Context(), root, bytes.NewReader(archiveOf(t, a.entries...)), tight())
			if after := describe(t, canary) + ownerAndMode(t, canary); after != before {
				t.Errorf("the world outside changed:\n%s\nwas\n%s", after, before)
			}
			switch {
			case a.refused && err == nil:
				t.Errorf("was unpacked:\n%s", describe(t, root))
			case !a.refused && err != nil:
				t.Error(err)
			case err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 900):
				t.Errorf("not one short line: %q", err)
			}
			if a.check != nil {
				a.check(t, root)
			}
		})
	}
	if n < 60 {
		t.Errorf("only %d kinds", n)
	}
}

// Broken bytes rather than broken entries.
func TestUnpack_BrokenStreams_AreInvalid(t *testing.T) {
	good := archiveOf(t, dir("d"), file("d/f", strings.Repeat("abc", 5000)))
	header := func(change func([]byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return b
	}
	bomb := make([]byte, 4<<20)
	for what, b := range map[string][]byte{
		"cut in a file":         good[:3000],
		"cut in a header":       good[:700],
		"cut gzip":              gzipped(t, good)[:60],
		"cut zstd":              zstded(t, good)[:60],
		"gzip and garbage":      append(gzipped(t, good), "garbage that follows"...),
		"zstd and garbage":      append(zstded(t, good), "garbage that follows"...),
		"bad header checksum":   header(func(b []byte) { b[0] ^= 1 }),
		"negative size":         header(func(b []byte) { copy(b[124:136], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }),
		"gzip bomb":             gzipped(t, bomb),
		"zstd bomb":             zstded(t, bomb),
		"zstd of a huge window": {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 1, 0, 0},
	} {
		root := t.TempDir()
		if _, err := unpack(t.Context(), root, bytes.NewReader(b), tight()); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archiveOf(f, dir("d"), file("d/.wh.f", ""), link(tar.TypeLink, "a", "d/x")))
	f.Add(gzipped(f, archiveOf(f, file("a", "b"))))
	f.Add(zstded(f, archiveOf(f, link(tar.TypeSymlink, "a", "/"), file("a/b", "b"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		base := t.TempDir()
		root := base + "/layer"
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		_, _ = unpack(t.Context(), root, bytes.NewReader(b), tight())
		if n := names(t, base); len(n) != 1 {
			t.Errorf("outside of the layer: %v", n)
		}
	})
}
