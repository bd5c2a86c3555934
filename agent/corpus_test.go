package agent

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"berth/api"
	"berth/spec"
	"berth/testbed/corpus"
)

// TestCorpus_EveryAcceptedStackHasAPlan: each real stack that is accepted can
// be planned, with one local image in place of its own.
func TestCorpus_EveryAcceptedStackHasAPlan(t *testing.T) {
	cases := corpus.Cases(t)
	b := newParts(t)
	b.quiet = true
	b.img.image("stand-in", "stand-in", v1.Config{
		Cmd: []string{"/run"}, Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/ok"}}, // some wait for the image's own
	})
	b.img.local["stand-in"] = b.img.remote["stand-in"]
	b.assembleIn(t.TempDir())
	var (
		mu       sync.Mutex
		planned  int
		services int
		failed   []string
		refused  []string
	)
	var g errgroup.Group
	g.SetLimit(4)
	for _, c := range cases {
		g.Go(func() error {
			r, err := spec.Load(t.Context(), c.Options())
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			if r.Stack == nil {
				return nil
			}
			for name, s := range r.Stack.Services {
				s.Image, s.PullPolicy = "stand-in", ""
				r.Stack.Services[name] = s
			}
			// What is external is taken to be there.
			for key, n := range r.Stack.Networks {
				n.External = false
				r.Stack.Networks[key] = n
			}
			for key, v := range r.Stack.Volumes {
				v.External = false
				r.Stack.Volumes[key] = v
			}
			for _, files := range []map[string]spec.File{r.Stack.Configs, r.Stack.Secrets} {
				for key, f := range files {
					f.External = false
					files[key] = f
				}
			}
			mu.Lock() // the fakes are one agent's
			defer mu.Unlock()
			plan, err := b.plan(t.Context(), &api.ApplyRequest{Stack: *r.Stack})
			switch {
			case err != nil && strings.Contains(err.Error(), "create it, or set create_host_path"):
				refused = append(refused, c.Name) // what the stack asks for is not here
			case err != nil:
				failed = append(failed, fmt.Sprintf("%s: %v", c.Name, err))
			case len(plan.Services) != len(r.Stack.Services):
				failed = append(failed, fmt.Sprintf("%s: %d services, the plan has %d", c.Name, len(r.Stack.Services), len(plan.Services)))
			}
			planned++
			services += len(r.Stack.Services)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(failed)
	for _, f := range failed {
		t.Error(f)
	}
	if len(refused) > 5 {
		t.Errorf("refused: %v", refused)
	}
	if planned < 1000 {
		t.Errorf("only %d of %d stacks were planned", planned, len(cases))
	}
	t.Logf("%d of %d stacks planned, %d services; %d refused for what is not on this machine, %d without a plan", planned, len(cases), services, len(refused), len(failed))
}
