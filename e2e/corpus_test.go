package e2e_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"berth/testbed"
	"berth/testbed/corpus"
)

var (
	corpusSeed   = flag.Uint64("corpus.seed", 1, "which of the real stacks are brought up")
	corpusStacks = flag.Int("corpus.stacks", 20, "how many of the real stacks are brought up")
	corpusOnly   = flag.String("corpus.only", "", "the one stack to bring up")
)

// TestCorpus_RealStacksComeUp brings real stacks up as they were published,
// with a stand-in for every image, and looks at what is there: all networks,
// volumes, ports, dependencies and limits are as the reference's model says.
func TestCorpus_RealStacksComeUp(t *testing.T) {
	testbed.NeedKernel(t)
	cases := slices.DeleteFunc(corpus.Cases(t), func(c corpus.Case) bool {
		return c.Kind != "real" || c.Refuses != ""
	})
	r := rand.New(rand.NewPCG(*corpusSeed, 0))
	r.Shuffle(len(cases), func(i, j int) { cases[i], cases[j] = cases[j], cases[i] })
	if *corpusOnly != "" {
		cases = slices.DeleteFunc(cases, func(c corpus.Case) bool { return c.Name != *corpusOnly })
	} else {
		cases = cases[:min(len(cases), *corpusStacks)]
	}
	m := newMachine(t)
	m.must(t, "ls")
	good := 0
	for _, c := range cases {
		if t.Run(c.Name, func(t *testing.T) { m.real(t, c) }) {
			good++
		}
	}
	t.Logf("%d of %d real stacks are as the reference model says", good, len(cases))
}

// real brings one real stack up, looks at it, and takes it away.
func (m *machine) real(t *testing.T, c corpus.Case) {
	s, err := stage(t, c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("replaced: %q", s.attributes())
	before := m.inventory(t)
	for _, n := range s.networks {
		m.must(t, "network", "create", n)
	}
	for _, v := range s.volumes {
		m.must(t, "volume", "create", v)
	}
	defer func() {
		if r := m.in(t, s, "down", "--volumes", "--timeout", "0"); r.code != 0 {
			t.Error(r)
		}
		for _, n := range s.networks {
			m.must(t, "network", "rm", n)
		}
		for _, v := range s.volumes {
			m.must(t, "volume", "rm", v)
		}
		if after := m.inventory(t); after != before {
			t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
		}
	}()
	r := m.in(t, s, "up", "-d", "--wait-timeout", "60")
	if len(s.ref.Services) == 0 { // Docker Compose says the same
		if r.code == 0 || !strings.Contains(r.err, "no service selected") {
			t.Error(r)
		}
		return
	}
	if r.code != 0 {
		t.Fatal(r)
	}
	for _, w := range m.compare(t, s) {
		t.Error(w)
	}
}

// in runs berth where a user of the stack stands.
func (m *machine) in(t *testing.T, s *staged, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	var files []string
	for _, f := range s.files {
		files = append(files, "-f", f)
	}
	cmd := m.command(ctx, t, "", append(files, args...)...)
	cmd.Dir = s.dir
	cmd.Env = append(corpus.Environ(s.dir), "XDG_CACHE_HOME="+m.dir)
	return finish(t, cmd, args)
}
