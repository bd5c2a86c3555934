// Command mkimage makes fixture images and prints the archives that
// `berth image load` reads, one path a line.
//
//	go run ./testbed/cmd/mkimage                       all images, no archives
//	go run ./testbed/cmd/mkimage redis:alpine nginx    archives of these
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"berth/testbed/fixture"
)

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: mkimage [IMAGE ...]")
		for _, ref := range fixture.References() {
			fmt.Fprintln(flag.CommandLine.Output(), "  ", ref)
		}
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, refs []string) error {
	c, err := fixture.Open()
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		return all(ctx, c)
	}
	for _, ref := range refs {
		file, err := c.Archive(ctx, ref)
		if err != nil {
			return err
		}
		fmt.Println(file)
	}
	return nil
}

func all(ctx context.Context, c *fixture.Cache) error {
	start := time.Now()
	for _, ref := range fixture.Repositories() {
		if _, err := c.Image(ctx, ref); err != nil {
			return err
		}
	}
	fmt.Printf("fixture images are ready (%.1f s)\n", time.Since(start).Seconds())
	return nil
}
