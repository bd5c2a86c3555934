package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newStop(o *agentOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "End the agent of this root; its containers go on",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return stopAgent(abs(o.root)) },
	}
}

// stopWait is how long an agent has to end after SIGTERM.
const stopWait = 15 * time.Second

// stopAgent ends the agent that holds root's lock. Without one it is done.
func stopAgent(root string) error {
	lock := flock.New(filepath.Join(root, "agent.lock"))
	defer lock.Close()
	free := func() (bool, error) {
		ok, err := lock.TryLock()
		if errors.Is(err, os.ErrNotExist) {
			return true, nil
		}
		return ok, err
	}
	if ok, err := free(); ok || err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(root, "agent.pid"))
	if err != nil {
		return fmt.Errorf("find the agent: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("find the agent: %w", err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end the agent (pid %d): %w", pid, err)
	}
	for deadline := time.Now().Add(stopWait); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok, err := free(); ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("the agent (pid %d) did not end within %s", pid, stopWait)
}
