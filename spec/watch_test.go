package spec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/spec"
)

const watchedStack = `
services:
  web:
    image: nginx
    volumes:
      - ./other:/other
      - ./conf:/etc/app.d
      - ./app.conf:/etc/app.conf:ro
    x-watch-content: [/etc/app.d/, /etc/app.conf]
`

// TestLoad_WatchContent_TheDigestFollowsWhatTheContainerSees changes one thing
// at a time.
func TestLoad_WatchContent_TheDigestFollowsWhatTheContainerSees(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(dir string) error
		target string // whose digest changes; "": none
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"a file", func(d string) error { return os.WriteFile(d+"/app.conf", []byte("2"), 0o644) }, "/etc/app.conf"},
		{"the mode of a file", func(d string) error { return os.Chmod(d+"/app.conf", 0o600) }, "/etc/app.conf"},
		{"a file in a folder", func(d string) error { return os.WriteFile(d+"/conf/sub/a", []byte("2"), 0o644) }, "/etc/app.d"},
		{"a new name", func(d string) error { return os.Rename(d+"/conf/sub/a", d+"/conf/sub/b") }, "/etc/app.d"},
		{"a new empty folder", func(d string) error { return os.Mkdir(d+"/conf/new", 0o755) }, "/etc/app.d"},
		{"a link that leads elsewhere", func(d string) error {
			if err := os.Remove(d + "/conf/link"); err != nil {
				return err
			}
			return os.Symlink("sub/b", d+"/conf/link")
		}, "/etc/app.d"},
		{"content that moves to its neighbour", func(d string) error {
			return os.Rename(d+"/conf/sub/a", d+"/conf/a")
		}, "/etc/app.d"},
		{"a time", func(d string) error {
			data, err := os.ReadFile(d + "/app.conf")
			if err != nil {
				return err
			}
			return os.WriteFile(d+"/app.conf", data, 0o644)
		}, ""},
		{"what is not watched", func(d string) error { return os.WriteFile(d+"/other/x", []byte("2"), 0o644) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, sub := range []string{"conf/sub", "other"} {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"app.conf", "conf/sub/a", "other/x"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("1"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink("sub/a", filepath.Join(dir, "conf/link")); err != nil {
				t.Fatal(err)
			}
			before := loadText(t, dir, watchedStack)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			after := loadText(t, dir, watchedStack)
			old, now := before.Services["web"], after.Services["web"]
			var got []string
			for _, ch := range spec.Diff(&old, &now, spec.Identity{}, spec.Identity{}) {
				got = append(got, ch.String()+" at "+fmt.Sprint(after.Positions["services.web."+strings.TrimSuffix(ch.Path, ".content")]))
			}
			want := map[string]string{
				"": "", "/etc/app.d": "mounts./etc/app.d.content: changed at compose.yaml:7:9",
				"/etc/app.conf": "mounts./etc/app.conf.content: changed at compose.yaml:8:9",
			}[c.target]
			if text := strings.Join(got, "\n"); text != want {
				t.Errorf("got %q, want %q", text, want)
			}
			if now.Mounts[0].Digest != "" || now.Mounts[1].Digest == "" {
				t.Errorf("mounts: %+v", now.Mounts)
			}
			if same := spec.Hash(&old, spec.Identity{}) == spec.Hash(&now, spec.Identity{}); same != (c.target == "") {
				t.Errorf("the hash is the same: %v", same)
			}
		})
	}
}

// TestLoad_WatchContent_AFolderThatUpMakes: the second `up` finds the folder
// that the first one made.
func TestLoad_WatchContent_AFolderThatUpMakes(t *testing.T) {
	dir := t.TempDir()
	const text = "services: {web: {image: nginx, volumes: ['./made:/made'], x-watch-content: true}}"
	before := loadText(t, dir, text)
	if err := os.Mkdir(filepath.Join(dir, "made"), 0o700); err != nil {
		t.Fatal(err)
	}
	if after := loadText(t, dir, text); before.Services["web"].Mounts[0].Digest != after.Services["web"].Mounts[0].Digest {
		t.Error("it counts as a change")
	}
}

func TestLoad_WatchContent_Bounded(t *testing.T) {
	dir := t.TempDir()
	big, many := filepath.Join(dir, "big"), filepath.Join(dir, "many")
	for _, d := range []string{big, many} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(big, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(64<<20 + 1); err != nil {
		t.Fatal(err)
	}
	for i := range 10_001 {
		if err := os.Symlink("x", filepath.Join(many, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(
		"services:\n  web:\n    image: nginx\n    volumes: ['./big:/big', './many:/many']\n    x-watch-content:\n      - /big\n      - /many\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "compose.yaml:6:9: content of big holds more than 64 MiB\ncompose.yaml:7:9: content of many holds more than 10000 files"
	if err := r.Diagnostics.Err(); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	r, err = spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}, Inspect: true})
	if err != nil || r.Diagnostics.Errors() {
		t.Errorf("looking at the file reads the content: %v, %v", r.Diagnostics.Err(), err)
	}
}
