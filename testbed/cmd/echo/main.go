// Command echo is the service that rollouts are measured with. It answers
// over HTTP (:8080), raw TCP (:7000, one answer for each line) and UDP (:7000,
// one for each datagram), each time with
//
//	VERSION CLIENT-ADDRESS MESSAGE
//
// On SIGTERM it does what a service should: it takes no more connections,
// tells clients that keep theirs open to come back on another one, and ends
// when all are gone or LINGER is over.
//
//	echo            serve
//	echo -check     be the health test of a container that has no shell
//	echo -job N     be a job that ends with exit code N
//
// Environment: VERSION; LINGER, a duration, 3s by default; BAD, one of the
// ways in which a new version can be bad (see bad.go); DOWN, a folder: while it
// holds a file with the container's host name, /healthz answers 503.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	check := flag.Bool("check", false, "ask the running service whether it is well")
	job := flag.Int("job", -1, "say so and end with this exit code")
	flag.Parse()
	var err error
	switch {
	case *check:
		err = healthy()
	case *job >= 0:
		fmt.Fprintln(os.Stderr, "echo: the job ends with", *job)
		os.Exit(*job)
	default:
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run() error {
	bad := misbehave(os.Getenv("BAD"))
	linger, err := time.ParseDuration(cmp.Or(os.Getenv("LINGER"), "3s"))
	if err != nil {
		return fmt.Errorf("LINGER: %w", err)
	}
	version := cmp.Or(os.Getenv("VERSION"), "v0")

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if bad.deaf {
		stop = context.WithoutCancel(stop)
	}
	datagrams, err := net.ListenPacket("udp", ":7000")
	if err != nil {
		return err
	}
	lines, err := net.Listen("tcp", ":7000")
	if err != nil {
		return err
	}
	requests, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	var open connections
	go answerDatagrams(datagrams, version)
	go answerLines(lines, version, &open)
	srv := newServer(stop, version, bad, &open)
	go srv.Serve(requests) //nolint:errcheck // it ends with the listener
	fmt.Println("echo:", version, "serves")

	<-stop.Done()
	lines.Close()
	requests.Close()
	fmt.Println("echo: stopping with", open.count(), "connections")
	open.wait(linger)
	fmt.Println("echo: ending with", open.count(), "connections")
	ctx, end := context.WithTimeout(context.Background(), time.Second)
	defer end()
	if err := srv.Shutdown(ctx); err != nil {
		return fmt.Errorf("finish what is under way: %w", err)
	}
	return nil
}

// healthy is the container's health test.
func healthy() error {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://127.0.0.1:8080/healthz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/healthz: %s", resp.Status)
	}
	return nil
}
