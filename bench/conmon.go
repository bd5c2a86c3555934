package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// start creates the container below a conmon and starts it.
func (f *floor) start(ctx context.Context, b bundle) error {
	if err := b.writeSpec(f.cgroups + "/" + b.id); err != nil {
		return err
	}
	syncRead, syncWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer syncRead.Close()
	startRead, startWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	cmd := exec.CommandContext(ctx, f.conmon, "--api-version", "1",
		"-c", b.id, "-u", b.id, "-n", b.id, "-r", f.runtime, "-b", b.dir,
		"-p", filepath.Join(b.dir, "pidfile"), "-P", filepath.Join(b.dir, "conmon.pid"),
		"--exit-dir", filepath.Join(f.dir, "exits"), "--full-attach",
		"-l", "k8s-file:"+filepath.Join(b.dir, "log"), "--log-level", "error",
		"--runtime-arg", "--root="+filepath.Join(f.dir, "state"))
	cmd.Env = append(os.Environ(), "_OCI_SYNCPIPE=3", "_OCI_STARTPIPE=4")
	cmd.ExtraFiles = []*os.File{syncWrite, startRead}
	err = cmd.Start()
	syncWrite.Close()
	startRead.Close()
	startWrite.Close() // its end lets conmon go on
	if err != nil {
		return fmt.Errorf("start conmon: %w", err)
	}
	if err := cmd.Wait(); err != nil { // it forks and goes on as a daemon
		return fmt.Errorf("start conmon: %w", err)
	}
	var answer struct {
		Data    int    `json:"data"`
		Message string `json:"message"`
	}
	if err := json.NewDecoder(syncRead).Decode(&answer); err != nil {
		return fmt.Errorf("create the container: %w", err)
	}
	if answer.Data <= 0 {
		return fmt.Errorf("create the container: %s", answer.Message)
	}
	return f.call(ctx, "start", b.id)
}

// stop ends the container as a user's `down` does and deletes it.
func (f *floor) stop(ctx context.Context, b bundle) error {
	if err := f.call(ctx, "kill", b.id, "TERM"); err != nil {
		return err
	}
	exit := filepath.Join(f.dir, "exits", b.id)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(exit); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return errors.New("the container does not end")
		case <-tick.C:
		}
	}
	if err := os.Remove(exit); err != nil {
		return fmt.Errorf("remove the exit file: %w", err)
	}
	return f.call(ctx, "delete", b.id)
}

func (f *floor) call(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, f.runtime, append([]string{"--root=" + filepath.Join(f.dir, "state")}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(f.runtime), args[0], err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
