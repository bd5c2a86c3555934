package spec_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"gopkg.in/yaml.v3"

	"berth/spec"
)

// corpusCase is one published stack and what the reference loader makes of it.
type corpusCase struct {
	name    string
	Workdir string   `json:"workdir"`
	Files   []string `json:"files"`
	dir     string
	// refuses is the reference's error; "" when it accepts.
	refuses string
	// accepted is its YAML.
	accepted string
}

// corpus unpacks the shared collection of real stacks. It is not part of the
// repository: their licences do not allow it.
func corpus(t testing.TB) []corpusCase {
	t.Helper()
	archive := filepath.Join("..", "..", "shared", "corpus", "dev.tar.zst")
	if p := os.Getenv("BERTH_CORPUS"); p != "" {
		archive = p
	}
	f, err := os.Open(archive)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("SKIPPED: THE CORPUS IS ABSENT (%s): agreement with the reference loader is NOT tested", archive)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root := t.TempDir()
	if err := untar(f, root); err != nil {
		t.Fatalf("unpack %s: %v", archive, err)
	}
	var cases []corpusCase
	err = filepath.WalkDir(filepath.Join(root, "cases"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "case.json" {
			return err
		}
		c := corpusCase{dir: filepath.Dir(path)}
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read case: %w", err)
		}
		if err := json.Unmarshal(b, &c); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		c.name, _ = filepath.Rel(filepath.Join(root, "cases"), c.dir)
		ref := filepath.Join(root, "reference", c.name)
		if refused, err := os.ReadFile(ref + ".err"); err == nil {
			c.refuses = strings.TrimSpace(string(refused))
		} else {
			c.accepted = ref + ".yaml"
		}
		cases = append(cases, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

func untar(r io.Reader, root string) error {
	z, err := zstd.NewReader(r)
	if err != nil {
		return fmt.Errorf("open zstd: %w", err)
	}
	defer z.Close()
	dir, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer func() { _ = dir.Close() }()
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		name := filepath.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = dir.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			_ = dir.MkdirAll(filepath.Dir(name), 0o755)
			err = dir.Symlink(h.Linkname, name)
		case tar.TypeReg:
			_ = dir.MkdirAll(filepath.Dir(name), 0o755)
			var content []byte
			if content, err = io.ReadAll(tr); err == nil {
				err = dir.WriteFile(name, content, 0o644)
			}
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

func (c corpusCase) options() spec.Options {
	dir := filepath.Join(c.dir, c.Workdir)
	return spec.Options{
		Dir: dir, Files: c.Files, Inspect: true, AllResources: true,
		Environ: []string{"HOME=/home/user", "USER=user", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PWD=" + dir},
	}
}

// TestCorpus_VerdictAgreesWithReference is the measure of compatibility: real
// stacks are accepted or rejected as the reference loader does, and each
// rejection says where.
func TestCorpus_VerdictAgreesWithReference(t *testing.T) {
	cases := corpus(t)
	var (
		mu       sync.Mutex
		disagree []string
		unplaced []string
		rejected int
		differ   []string
		compared int
		slowest  time.Duration
	)
	cache := t.TempDir()
	var g errgroup.Group
	g.SetLimit(4)
	start := time.Now()
	for _, c := range cases {
		g.Go(func() error {
			began := time.Now()
			o := c.options()
			o.Cache = cache
			r, err := spec.Load(t.Context(), o)
			took := time.Since(began)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			var content []string
			if r.Stack != nil && c.refuses == "" {
				content = compareContent(c, r)
				again, err := spec.Load(t.Context(), o) // as a file found valid before
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				if diff := cmp.Diff(r.Stack, again.Stack); diff != "" {
					content = append(content, c.name+": differs the second time: "+diff)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, took)
			bad := r.Diagnostics.Errors()
			if bad {
				rejected++
				for _, d := range r.Diagnostics.Filter(spec.Error) {
					if d.File == "" || d.Line == 0 || d.Col == 0 {
						unplaced = append(unplaced, c.name+": "+d.Error())
					}
				}
			}
			if r.Stack != nil && c.refuses == "" {
				compared++
				differ = append(differ, content...)
			}
			switch {
			case bad && c.refuses == "":
				disagree = append(disagree, fmt.Sprintf("%s: rejected, the reference accepts: %v", c.name, r.Diagnostics.Err()))
			case !bad && c.refuses != "":
				disagree = append(disagree, fmt.Sprintf("%s: accepted, the reference says: %s", c.name, c.refuses))
			case bad && testing.Verbose() && os.Getenv("BERTH_SHOW") != "":
				fmt.Printf("== %s\n-- %s\n%v\n", c.name, c.refuses, r.Diagnostics.Err())
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	agree := 100 * float64(len(cases)-len(disagree)) / float64(len(cases))
	t.Logf("%d stacks: verdict agrees on %.2f %%; %d rejected, %d of them without a line; content compared on %d, differs on %d; %v in all, slowest %v",
		len(cases), agree, rejected, len(unplaced), compared, len(differ), time.Since(start).Round(time.Millisecond), slowest.Round(time.Millisecond))
	slices.Sort(disagree)
	for _, d := range disagree {
		t.Logf("disagrees: %s", d)
	}
	if agree < 99.5 {
		t.Errorf("the verdict agrees on %.2f %%, less than 99.5 %%", agree)
	}
	for _, u := range unplaced {
		t.Errorf("rejected without file, line and column: %s", u)
	}
	for _, d := range differ {
		t.Errorf("content differs from the reference: %s", d)
	}
}

// compareContent holds a Stack against the reference's YAML.
func compareContent(c corpusCase, r *spec.Result) []string {
	var ref struct {
		Name     string `yaml:"name"`
		Services map[string]struct {
			Image       string             `yaml:"image"`
			Environment map[string]*string `yaml:"environment"`
			Command     []string           `yaml:"command"`
			Ports       []struct {
				Published string `yaml:"published"`
				Target    uint16 `yaml:"target"`
			} `yaml:"ports"`
		} `yaml:"services"`
	}
	b, err := os.ReadFile(c.accepted)
	if err != nil {
		return []string{c.name + ": " + err.Error()}
	}
	if err := yaml.Unmarshal(b, &ref); err != nil {
		return nil // the reference prints tags that yaml.v3 refuses
	}
	var out []string
	say := func(format string, a ...any) { out = append(out, c.name+": "+fmt.Sprintf(format, a...)) }
	own := maps.Clone(r.Stack.Services)
	maps.DeleteFunc(own, func(_ string, s spec.Service) bool { return s.StepOf != "" })
	if len(ref.Services) != len(own) {
		say("%d services, the reference has %d", len(own), len(ref.Services))
	}
	for name, want := range ref.Services {
		got, ok := r.Stack.Services[name]
		if !ok {
			say("no service %s", name)
			continue
		}
		if got.Image != want.Image {
			say("%s: image %q, want %q", name, got.Image, want.Image)
		}
		if len(got.Ports) != len(want.Ports) {
			say("%s: %d ports, want %d", name, len(got.Ports), len(want.Ports))
		}
		for k, v := range want.Environment {
			value, ok := got.Environment[k]
			if ok != (v != nil) {
				say("%s: environment %s: set %v, want %v", name, k, ok, v != nil)
			}
			if v != nil && !sameText(value, *v) && !strings.Contains(*v, "/corpus/") {
				say("%s: environment %s: %q, want %q", name, k, value, *v)
			}
		}
		if got.Command != nil && !slices.EqualFunc(*got.Command, want.Command, sameText) {
			say("%s: command %q, want %q", name, *got.Command, want.Command)
		}
	}
	return out
}

// sameText compares without regard to indentation: yaml.v3 reads a block that
// begins with an empty line otherwise than the loader, which wrote it.
func sameText(a, b string) bool {
	return slices.Equal(strings.Fields(a), strings.Fields(b))
}
