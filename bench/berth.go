package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"berth/api"
	"berth/testbed"
)

// berthCLI times the two programs as a user runs them.
type berthCLI struct {
	cli, file string
	root, run string
	cgroups   string
	memory    memory
	agent     *exec.Cmd
	client    *api.Client
}

// newBerth starts an agent of its own and loads the image.
func newBerth(ctx context.Context, dir, archive string, o options) (*berthCLI, error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, fmt.Errorf("find the programs: %w", err)
	}
	b := &berthCLI{
		cli:  filepath.Join(bin, "berth"),
		root: filepath.Join(dir, "root"), run: filepath.Join(dir, "run"),
		cgroups: fmt.Sprintf("/berth-bench-%d-agent", os.Getpid()),
	}
	if b.file, err = writeCompose(dir, o.n); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("cgroup_parent: %s\nparallel: %d\n", b.cgroups, o.parallel)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the agent's configuration: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "agent.log"))
	if err != nil {
		return nil, fmt.Errorf("make the agent's log: %w", err)
	}
	defer log.Close()
	b.agent = exec.Command(filepath.Join(bin, "berthd"), "--root", b.root, "--run", b.run, "--config", config)
	b.agent.Stdout, b.agent.Stderr = log, log
	if err := b.agent.Start(); err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	b.client = api.NewClient(api.Socket(b.run))
	if err := b.ready(ctx); err != nil {
		text, _ := os.ReadFile(log.Name()) // what there is of it
		return nil, errors.Join(fmt.Errorf("%w: its log: %s", err, text), b.close())
	}
	if err := b.berth(ctx, "image", "load", "-i", archive); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// writeCompose writes the file that Berth and Docker Compose both get.
func writeCompose(dir string, n int) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a folder: %w", err)
	}
	var text strings.Builder
	text.WriteString("name: bench\nservices:\n")
	for i := range n {
		fmt.Fprintf(&text, "  s%02d:\n    image: %s\n    pull_policy: never\n", i, image)
	}
	file := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		return "", fmt.Errorf("write the Compose file: %w", err)
	}
	return file, nil
}

func (b *berthCLI) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := b.client.Info(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the agent does not answer: %w", err)
		case <-tick.C:
		}
	}
}

func (b *berthCLI) name() string { return "berth" }

func (b *berthCLI) up(ctx context.Context) error { return b.berth(ctx, "-f", b.file, "up", "-d") }

func (b *berthCLI) again(ctx context.Context) error { return b.up(ctx) }

func (b *berthCLI) down(ctx context.Context) error {
	return b.berth(ctx, "-f", b.file, "down")
}

// look measures memory with everything up.
func (b *berthCLI) look(ctx context.Context) error {
	info, err := b.client.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	b.memory, err = measureMemory(info.Pid, b.run)
	return err
}

func (b *berthCLI) berth(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, b.cli, append([]string{"--root", b.root, "--run", b.run}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("berth %s: %w: %s", strings.Join(args, " "), err, out.String())
	}
	return nil
}

// close ends the agent and the dataplane, which would outlive it for a moment.
func (b *berthCLI) close() error {
	b.client.Close()
	if err := b.agent.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the agent: %w", err)
	}
	_ = b.agent.Wait() // ended by a signal
	if pid := b.memory.dataplane; pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the dataplane: %w", err)
		}
	}
	return testbed.RemoveCgroup(b.cgroups)
}
