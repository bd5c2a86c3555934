// Command registry serves the fixture images as a container registry over
// plain HTTP on the loopback interface, until it is interrupted. It prints
// the configuration that makes berthd pull from it.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"berth/testbed/fixture"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *listen, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen string, refs []string) error {
	c, err := fixture.Open()
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	r := c.Serve(l, nil)
	defer r.Close()
	if len(refs) == 0 {
		refs = fixture.References()
	}
	if err := r.Add(ctx, refs...); err != nil {
		return err
	}
	fmt.Printf("registries:\n  docker.io:\n    mirrors: [\"http://%s\"]\n", r.Addr())
	<-ctx.Done()
	return nil
}
