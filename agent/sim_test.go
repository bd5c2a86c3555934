package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"berth/api"
	"berth/overlaynet"
)

var (
	simSeeds = flag.Uint64("sim.seeds", 2000, "how many `seeds` the simulator plays")
	simSteps = flag.Int("sim.steps", 500, "how many `steps` a seed has: calls of the engine, and what people and programs do")
	simSeed  = flag.Uint64("sim.seed", 0, "play only this `seed`, and print its log")
	simSame  = flag.Uint64("sim.same", 5, "how many `seeds` are played twice")
	simFrom  = flag.Uint64("sim.from", 1, "the first `seed`")
)

// sim plays one seed: an agent over an engine that fails, delays, hangs and
// dies at any call, programs of all kinds, and people who act at random. What
// happens follows from the seed: each call's fate from what it is and how often
// it was made before, so that it does not matter which of two goroutines that
// run at the same instant is the first.
type sim struct {
	*bench
	seed uint64
	rng  *rand.Rand // of the people; the driver's alone
	root string

	agentCtx context.Context // of the agent that is alive, and of its clients
	cancel   context.CancelFunc
	work     sync.WaitGroup
	clients  sync.WaitGroup

	file file // what the people have in their editor

	mu       sync.Mutex
	draws    map[string]uint64 // how often, in this life
	lives    int               // agents so far
	labels   map[string]string // by task id
	ids      map[string]string // by label
	dead     bool              // the agent crashed: what it does has no effect
	down     chan struct{}     // closed by a crash
	rising   bool              // an agent recovers what the last one left
	calm     bool              // no more faults
	begun    time.Time
	log      []happening
	broke    string // the first invariant that was broken
	checks   checks
	programs map[string]*program
	figures  figures
}

// happening of the log.
type happening struct {
	at   time.Duration
	text string
}

// figures of one or many seeds.
type figures struct {
	Steps, Crashes, Reboots, Faults, Acts int
	Ends                                  map[string]int // rollouts, by how they ended
	Virtual                               time.Duration
}

func (f *figures) add(g figures) {
	f.Steps += g.Steps
	f.Crashes += g.Crashes
	f.Reboots += g.Reboots
	f.Faults += g.Faults
	f.Acts += g.Acts
	f.Virtual += g.Virtual
	if f.Ends == nil {
		f.Ends = map[string]int{}
	}
	for k, n := range g.Ends {
		f.Ends[k] += n
	}
}

// draw is the randomness for the n-th time that something is asked.
func (s *sim) draw(what string) *rand.Rand {
	n := s.draws[what]
	s.draws[what]++
	h := fnv.New64a()
	h.Write([]byte(what))
	return rand.New(rand.NewPCG(s.seed+uint64(s.lives)<<32, h.Sum64()+n*0x9e3779b97f4a7c15))
}

// note adds a line to the log.
func (s *sim) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(format, args...)
}

func (s *sim) noteLocked(format string, args ...any) {
	s.log = append(s.log, happening{time.Since(s.begun), fmt.Sprintf(format, args...)})
}

// breach says that an invariant is broken. The first one counts.
func (s *sim) breach(format string, args ...any) {
	if s.broke == "" {
		s.broke = fmt.Sprintf(format, args...)
		s.noteLocked("BREACH %s", s.broke)
	}
}

// text is the log; what happened at the same instant is sorted.
func (s *sim) text() string {
	slices.SortStableFunc(s.log, func(a, b happening) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return strings.Compare(a.text, b.text)
	})
	var b strings.Builder
	for _, e := range s.log {
		fmt.Fprintf(&b, "%12.6f %s\n", e.at.Seconds(), e.text)
	}
	return b.String()
}

// simRoot is a folder for the few files that an agent writes. They are many
// times as fast in memory.
func simRoot(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "berth-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// play plays a seed in a bubble of make-believe time.
func play(t *testing.T, root string, seed uint64, steps int) (s *sim) {
	t.Helper()
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s = newSim(t, root, seed)
		s.live(steps)
		s.finish()
	})
	return s
}

func newSim(t *testing.T, root string, seed uint64) *sim {
	s := &sim{
		bench: newParts(t), seed: seed, rng: rand.New(rand.NewPCG(seed, 3)), root: root,
		draws: map[string]uint64{}, labels: map[string]string{}, ids: map[string]string{},
		programs: map[string]*program{}, begun: time.Now(), dead: true,
	}
	s.quiet = true
	s.figures.Ends = map[string]int{}
	s.checks = newChecks()
	s.backend = &simStore{s.backend, s, nil}
	s.calls.label = s.name
	s.calls.hook = s.call
	s.containers.onStart = s.started
	s.containers.answer(s.probe)
	s.registry()
	s.file = s.newFile()
	s.rise()
	return s
}

// live lets people act until the steps are used up.
func (s *sim) live(steps int) {
	for s.broke == "" && s.stepped() < steps {
		s.pause()
		if s.isDead() {
			s.rise()
			continue
		}
		s.act()
	}
}

func (s *sim) stepped() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.figures.Steps
}

func (s *sim) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// pause is the time until somebody acts; a crash ends it.
func (s *sim) pause() {
	d := time.Duration(s.rng.IntN(700)) * time.Millisecond
	switch n := s.rng.IntN(10); {
	case n == 0:
		d = time.Duration(s.rng.IntN(30)) * time.Second
	case n < 4:
		d = time.Duration(s.rng.IntN(5000)) * time.Millisecond
	}
	s.sleep(d + time.Duration(s.rng.IntN(1e6)))
}

// rest lets time pass.
func rest(d time.Duration) { <-time.After(d) }

// sleep waits; a crash ends it.
func (s *sim) sleep(d time.Duration) {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	select {
	case <-time.After(d):
	case <-down:
	}
}

// crash ends the agent here and now: nothing that it does from now on has an
// effect. The caller holds mu.
func (s *sim) crashLocked(where string) {
	if s.dead {
		return
	}
	s.dead = true
	s.figures.Crashes++
	s.noteLocked("CRASH %s", where)
	s.checks.crashed(s)
	close(s.down)
}

// rise buries the agent that died and starts another one over what it left:
// the store, containers, namespaces and rules.
func (s *sim) rise() {
	for s.broke == "" {
		s.bury()
		s.mu.Lock()
		r := s.draw("outage")
		s.mu.Unlock()
		outage := time.Duration(r.IntN(1500))*time.Millisecond + time.Duration(r.IntN(1e6))
		if r.IntN(8) == 0 {
			outage *= 10
		}
		rest(outage)
		if !s.calm && r.IntN(12) == 0 {
			s.reboot()
		}
		s.reopen()
		err := s.recover(s.agentCtx)
		s.mu.Lock()
		s.rising = false
		s.mu.Unlock()
		if err != nil {
			s.note("the agent does not come up: %v", err)
			continue
		}
		s.Agent.work(s.agentCtx, &s.work)
		s.note("the agent is up")
		return
	}
}

// bury waits for everything of the last agent to end.
func (s *sim) bury() {
	if s.cancel == nil {
		return
	}
	s.mu.Lock()
	s.crashLocked("at its end")
	s.mu.Unlock()
	end := time.Now().Add(10 * time.Millisecond)
	s.cancel()
	s.clients.Wait()
	s.work.Wait()
	s.probes.stopAll()
	rest(time.Until(end)) // how long that took is a matter of chance
	s.ports.releaseAll()  // the kernel closes what a dead process held
}

// reopen assembles the next agent.
func (s *sim) reopen() {
	s.containers.reopen()
	s.mu.Lock()
	// Whether a call came just before the crash or just after is chance: the
	// next life does not depend on it.
	clear(s.draws)
	s.lives++
	s.dead, s.rising, s.down = false, true, make(chan struct{})
	s.agentCtx, s.cancel = context.WithCancel(context.Background())
	s.mu.Unlock()
	s.assembleIn(s.root)
	s.Agent.networks = &simNetworks{s.networks, s}
	s.loop.gather = 700 * time.Microsecond // not the time for which traffic gathers
}

// reboot takes all that does not survive it.
func (s *sim) reboot() {
	s.note("REBOOT")
	s.mu.Lock()
	s.figures.Reboots++
	s.checks.disturbed()
	s.mu.Unlock()
	s.containers.mu.Lock()
	clear(s.containers.all)
	s.containers.mu.Unlock()
	s.networks.mu.Lock()
	clear(s.networks.netns)
	clear(s.networks.bridges)
	s.networks.rules, s.networks.last = overlaynet.Rules{}, ""
	s.networks.mu.Unlock()
}

// finish lets everything work again and looks whether it ends as it should.
func (s *sim) finish() {
	defer func() {
		s.figures.Virtual = time.Since(s.begun)
		s.bury()
	}()
	if s.broke != "" {
		return
	}
	rest(777 * time.Microsecond) // not at the instant of what came last
	s.mu.Lock()
	s.calm = true
	s.noteLocked("CALM")
	s.mu.Unlock()
	s.await(10*time.Minute, "the rollout did not end", s.rolloutEnded)
	s.lastUp()
	s.await(10*time.Minute, "it did not converge", func() string {
		if s.spoilt() {
			s.lastUp()
		}
		return s.converged()
	})
	s.takeAway()
	s.await(5*time.Minute, "something is left after down", s.nothingLeft)
}

// spoilt says that a fault of before the calm rolled the last up back: it hit
// a task that was being started then.
func (s *sim) spoilt() bool {
	st, _ := s.w.stack("shop")
	return st != nil && st.Rollout != nil && st.Rollout.Failed != 0 && strings.Contains(st.Rollout.Reason, errDisk.Error()) &&
		st.Rollout.State == api.RolloutRolledBack
}

// await gives a condition some time to hold.
func (s *sim) await(most time.Duration, what string, wrong func() string) {
	if s.broken() {
		return
	}
	last := ""
	for end := time.Now().Add(most); ; {
		s.riseIfDead()
		if last = wrong(); last == "" || s.broken() {
			return
		}
		if time.Now().After(end) {
			break
		}
		s.pass(time.Second)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breach("%s in %s: %s", what, most, last)
}

// riseIfDead starts another agent if a fault of before the calm ended the last.
func (s *sim) riseIfDead() {
	if s.isDead() {
		s.rise()
	}
}

func (s *sim) broken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broke != ""
}

// client runs what a person asks of the agent, in the background.
func (s *sim) client(what string, f func(ctx context.Context, a *Agent) (*api.Done, error)) {
	a, ctx := s.Agent, s.agentCtx
	s.note("%s", what)
	s.mu.Lock()
	s.figures.Acts++
	s.figures.Steps++
	s.checks.acted(s)
	s.mu.Unlock()
	s.clients.Go(func() {
		done, err := f(ctx, a)
		s.mu.Lock()
		defer s.mu.Unlock()
		var p *api.Error
		switch {
		case s.dead || ctx.Err() != nil: // nobody can tell any more
		case errors.As(err, &p):
			s.noteLocked("%s: %s: %s", what, p.Code, p.Detail)
		case err != nil:
			s.noteLocked("%s: %v", what, err)
		case done.Outcome != api.OutcomeDone:
			s.figures.Ends["client was told: "+done.Outcome]++
		}
	})
}

// seedFolder holds the seeds that once broke something, to be played first.
const seedFolder = "../testdata/seeds"

// kept are those seeds, with the steps that they need.
func kept(t *testing.T) (seeds []uint64, steps []int) {
	files, err := filepath.Glob(filepath.Join(seedFolder, "agent-*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var seed uint64
		var n int
		if _, err := fmt.Sscanf(string(data), "seed %d steps %d", &seed, &n); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		seeds, steps = append(seeds, seed), append(steps, n)
	}
	return seeds, steps
}

// keep writes a seed that broke something down.
func keep(t *testing.T, s *sim, steps int) {
	path := filepath.Join(seedFolder, fmt.Sprintf("agent-%d.txt", s.seed))
	if _, err := os.Stat(path); err == nil {
		return
	}
	text := fmt.Sprintf("seed %d steps %d\n%s\n", s.seed, steps, s.broke)
	if err := errors.Join(os.MkdirAll(seedFolder, 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Log(err)
	}
}

// TestSim_WhateverHappens_NoInvariantBreaks_AndEverythingConverges plays many
// seeds on all processors. `make sim` plays more of them.
func TestSim_WhateverHappens_NoInvariantBreaks_AndEverythingConverges(t *testing.T) {
	if *simSeed != 0 {
		s := play(t, simRoot(t), *simSeed, *simSteps)
		t.Log("\n" + s.text())
		if s.broke != "" {
			t.Errorf("seed %d: %s", s.seed, s.broke)
		}
		return
	}
	seeds, steps := kept(t)
	n := *simSeeds
	if testing.Short() {
		n /= 20
	}
	for i := range n {
		seeds, steps = append(seeds, *simFrom+i), append(steps, *simSteps)
	}
	var next, failed atomic.Int64
	var mu sync.Mutex
	var total figures
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for w := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(w), func(t *testing.T) {
				t.Parallel()
				root := simRoot(t)
				for {
					i := int(next.Add(1)) - 1
					if i >= len(seeds) || failed.Load() >= 5 {
						return
					}
					s := play(t, root, seeds[i], steps[i])
					mu.Lock()
					total.add(s.figures)
					mu.Unlock()
					if s.broke != "" {
						failed.Add(1)
						keep(t, s, steps[i])
						t.Errorf("seed %d: %s\nthe end of its log (all of it: go test ./agent -run TestSim_Whatever -sim.seed %d -sim.steps %d -v):\n%s",
							s.seed, s.broke, s.seed, steps[i], lastLines(s.text(), 40))
					}
				}
			})
		}
	})
	t.Logf("%d seeds in %s: %d steps in %s of make-believe time, %d acts, %d faults, %d crashes, %d reboots, rollouts by end: %v",
		len(seeds), time.Since(began).Round(time.Second), total.Steps, total.Virtual.Round(time.Second), total.Acts, total.Faults,
		total.Crashes, total.Reboots, total.Ends)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func TestSim_SameSeed_SameLog(t *testing.T) {
	root := simRoot(t)
	for seed := range *simSame {
		a, b := play(t, root, seed, 300).text(), play(t, root, seed, 300).text()
		if a == b {
			continue
		}
		x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
		for i := range x {
			if i >= len(y) || x[i] != y[i] {
				t.Fatalf("seed %d: from line %d on two runs differ:\n%s\n\n%s", seed, i,
					strings.Join(x[max(0, i-5):min(len(x), i+5)], "\n"), strings.Join(y[max(0, i-5):min(len(y), i+5)], "\n"))
			}
		}
	}
}
