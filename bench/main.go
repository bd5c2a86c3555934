// Command bench times `berth up` and `berth down` of many services of one
// small image, beside a floor measured in the same run: what the machine
// itself needs for as many network namespaces, links, overlay mounts, conmons
// and containers. The ratio of the two is Berth's own cost; it can be compared
// between machines, seconds can't.
//
// Everything runs in private network and mount namespaces and is gone
// afterwards. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"berth/testbed"
	"berth/testbed/fixture"
)

// image is what every service runs: one static program of 2 MB.
const image = "berth-testbed/tiny:latest"

type options struct {
	n, parallel, rounds int
	bin                 string
	floorOnly           bool
}

func main() {
	var o options
	flag.IntVar(&o.n, "n", 50, "services")
	flag.IntVar(&o.parallel, "parallel", 8, "containers that the floor makes at once")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds; medians are printed")
	flag.StringVar(&o.bin, "bin", "bin", "folder of berth and berthd")
	flag.BoolVar(&o.floorOnly, "floor", false, "measure the floor only")
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "error: the bench makes containers; run it as root")
		os.Exit(1)
	}
	testbed.Isolate()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
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
	dir, err := os.MkdirTemp("", "berth-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

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
