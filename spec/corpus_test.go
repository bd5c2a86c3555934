package spec_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"gopkg.in/yaml.v3"

	"berth/spec"
	"berth/testbed/corpus"
)

// TestCorpus_VerdictAgreesWithReference is the measure of compatibility: real
// stacks are accepted or rejected as the reference loader does, and each
// rejection says where.
func TestCorpus_VerdictAgreesWithReference(t *testing.T) {
	cases := corpus.Cases(t)
	var (
		mu       sync.Mutex
		disagree []string
		unplaced []string
		rejected int
		differ   []string
		compared int
		slowest  time.Duration
	)
	var g errgroup.Group
	g.SetLimit(4)
	start := time.Now()
	for _, c := range cases {
		g.Go(func() error {
			began := time.Now()
			r, err := spec.Load(t.Context(), c.Options())
			took := time.Since(began)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			var content []string
			if r.Stack != nil && c.Refuses == "" {
				content = compareContent(c, r)
			}
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, took)
			bad := r.Diagnostics.Errors()
			if bad {
				rejected++
				for _, d := range r.Diagnostics.Filter(spec.Error) {
					if d.File == "" || d.Line == 0 || d.Col == 0 {
						unplaced = append(unplaced, c.Name+": "+d.Error())
					}
				}
			}
			if r.Stack != nil && c.Refuses == "" {
				compared++
				differ = append(differ, content...)
			}
			switch {
			case bad && c.Refuses == "":
				disagree = append(disagree, fmt.Sprintf("%s: rejected, the reference accepts: %v", c.Name, r.Diagnostics.Err()))
			case !bad && c.Refuses != "":
				disagree = append(disagree, fmt.Sprintf("%s: accepted, the reference says: %s", c.Name, c.Refuses))
			case bad && testing.Verbose() && os.Getenv("BERTH_SHOW") != "":
				fmt.Printf("== %s\n-- %s\n%v\n", c.Name, c.Refuses, r.Diagnostics.Err())
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
func compareContent(c corpus.Case, r *spec.Result) []string {
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
	b, err := os.ReadFile(c.Accepted)
	if err != nil {
		return []string{c.Name + ": " + err.Error()}
	}
	if err := yaml.Unmarshal(b, &ref); err != nil {
		return nil // the reference prints tags that yaml.v3 refuses
	}
	var out []string
	say := func(format string, a ...any) { out = append(out, c.Name+": "+fmt.Sprintf(format, a...)) }
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
