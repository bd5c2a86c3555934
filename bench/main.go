// Command bench measures Berth beside what the machine itself can do, and
// shows what replacing running services costs their clients. Its sections:
//
//	up       `berth up` and `berth down` of many services of one small image,
//	         beside a floor measured in the same run: what the machine itself
//	         needs for as many network namespaces, links, overlay mounts,
//	         conmons and containers. The ratio of the two is Berth's own cost;
//	         it can be compared between machines, seconds can't.
//	rollout  deploys under load
//	bad      bad versions under load: all of them go back
//	kill     the agent killed at random, under load and amid rollouts
//	ten      ten replicas rolled two at a time: the time and its parts
//	cli      what the commands cost that ask no agent: time and peak memory
//	manners  what a service's own way of stopping costs
//	secrets  a database's password is rotated under load, which three services use
//
// Everything runs in private network and mount namespaces and is gone
// afterwards. It needs root. It exits 1 if a target is missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"berth/bench/rollout"
	"berth/testbed"
	"berth/testbed/fixture"
)

// image is what every service of section up runs: one static program of 2 MB.
const image = "berth-testbed/tiny:latest"

// served is what the services of the other sections run.
const served = "berth-testbed/echo:latest"

type options struct {
	n, parallel, rounds int
	bin                 string
	floorOnly           bool
	only                string
	rollout             rollout.Options
}

// section is a part of the bench that can be run alone. It may fill the folder
// dir, and fails if what it shows is not what it must show.
type section struct {
	name string
	run  func(ctx context.Context, o options, dir string) error
}

var sections = []section{
	{"up", up},
	{"rollout", rolling(rollout.Deploys)},
	{"bad", rolling(rollout.Bad)},
	{"kill", rolling(rollout.Kill)},
	{"ten", rolling(rollout.Ten)},
	{"manners", rolling(rollout.Manners)},
	{"secrets", rolling(rollout.Secrets)},
	{"vip", vip},
	{"cli", cliCost},
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "sections to run, as in up,ten (default all)")
	flag.IntVar(&o.n, "n", 50, "up: services")
	flag.IntVar(&o.parallel, "parallel", 8, "up: containers that the floor makes at once")
	flag.IntVar(&o.rounds, "rounds", 5, "up: rounds; medians are printed")
	flag.StringVar(&o.bin, "bin", "bin", "folder of berth and berthd")
	flag.BoolVar(&o.floorOnly, "floor", false, "up: measure the floor only")
	flag.IntVar(&o.rollout.Deploys, "deploys", 30, "rollout: deploys")
	flag.IntVar(&o.rollout.Kills, "kills", 100, "kill: how often the agent is killed")
	flag.IntVar(&o.rollout.Rotations, "rotations", 20, "secrets: rotations of each kind")
	flag.StringVar(&o.rollout.Cases, "case", "", "bad: only cases with this in their name")
	flag.BoolVar(&o.rollout.Keep, "log", false, "print the agent's log after each section but up")
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "error: the bench makes containers; run it as root")
		os.Exit(1)
	}
	chosen, err := choose(o.only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	testbed.Isolate()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err = run(ctx, o, chosen)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// choose finds the sections that a list names; all of them for "".
func choose(only string) ([]section, error) {
	if only == "" {
		return sections, nil
	}
	var chosen []section
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(sections, func(s section) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only: there is no section %q", name)
		}
		chosen = append(chosen, sections[i])
	}
	return chosen, nil
}

// run carries on after a section that failed.
func run(ctx context.Context, o options, chosen []section) (err error) {
	dir, err := os.MkdirTemp("", "berth-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var failed []string
	for i, s := range chosen {
		if i > 0 {
			fmt.Println()
		}
		fmt.Printf("== %s\n", s.name)
		if err := s.run(ctx, o, filepath.Join(dir, s.name)); err != nil {
			fmt.Printf("%s: %v\n", s.name, err)
			failed = append(failed, s.name)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("did not show what they must: %s", strings.Join(failed, ", "))
	}
	return nil
}

// rolling is a section of package rollout.
func rolling(show func(context.Context, rollout.Options) error) func(context.Context, options, string) error {
	return func(ctx context.Context, o options, dir string) error {
		cache, err := fixture.Open()
		if err != nil {
			return err
		}
		r := o.rollout
		if r.Archive, err = cache.Archive(ctx, served); err != nil {
			return err
		}
		if r.Bin, err = filepath.Abs(o.bin); err != nil {
			return fmt.Errorf("find the programs: %w", err)
		}
		r.Dir, r.Out, r.Fixture = dir, os.Stdout, cache.Archive
		return show(ctx, r)
	}
}

// up times up and down of many services.
func up(ctx context.Context, o options, dir string) (err error) {
	cache, err := fixture.Open()
	if err != nil {
		return err
	}
	archive, err := cache.Archive(ctx, image)
	if err != nil {
		return err
	}
	img, err := cache.Image(ctx, image)
	if err != nil {
		return err
	}

	floor, err := newFloor(filepath.Join(dir, "floor"), img, o)
	if err != nil {
		return err
	}
	contenders := []contender{floor}
	var berth *berthCLI
	if !o.floorOnly {
		if berth, err = newBerth(ctx, filepath.Join(dir, "berth"), archive, o); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, berth.close()) }()
		contenders = append(contenders, berth)
	}
	if docker := newDocker(ctx, filepath.Join(dir, "docker"), archive, o); docker != nil {
		contenders = append(contenders, docker)
	}
	results, err := measure(ctx, contenders, o.rounds)
	if err != nil {
		return err
	}
	report(os.Stdout, o, floor, results)
	if berth != nil {
		berth.memory.report(os.Stdout, o.n)
	}
	return nil
}
