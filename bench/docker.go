package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// dockerCompose times Docker Compose on the same file, where there is one.
type dockerCompose struct{ file string }

// newDocker returns nil unless a Docker engine and Docker Compose answer and
// take the image.
func newDocker(ctx context.Context, dir, archive string, o options) contender {
	probe, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, args := range [][]string{{"version", "--format", "{{.Server.Version}}"}, {"compose", "version"}} {
		if out, err := exec.CommandContext(probe, "docker", args...).Output(); err != nil || len(bytes.TrimSpace(out)) == 0 {
			fmt.Fprintf(os.Stderr, "no Docker to compare with: `docker %s` does not answer\n", strings.Join(args, " "))
			return nil
		}
	}
	file, err := writeCompose(dir, o.n)
	if err == nil {
		err = docker(ctx, "load", "-i", archive)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "no Docker to compare with:", err)
		return nil
	}
	return dockerCompose{file}
}

func (d dockerCompose) name() string { return "docker" }

func (d dockerCompose) up(ctx context.Context) error {
	return docker(ctx, "compose", "-f", d.file, "up", "-d")
}

func (d dockerCompose) again(ctx context.Context) error { return d.up(ctx) }

func (d dockerCompose) down(ctx context.Context) error {
	return docker(ctx, "compose", "-f", d.file, "down")
}

func docker(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
