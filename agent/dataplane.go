package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/gofrs/flock"
)

// needed says whether anybody needs the dataplane now.
func (t *traffic) needed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.snapshot.Networks) > 0 || len(t.snapshot.Loopback) > 0
}

func (a *Agent) dataplaneLock() string { return filepath.Join(a.cfg.Run, "dataplane.lock") }

// ensureDataplane starts the dataplane when it is needed and does not run. It
// lives in its own session and outlives the agent. With nothing left to serve
// it ends by itself, as its snapshot is empty.
func (a *Agent) ensureDataplane(needed bool) error {
	if !needed {
		return nil
	}
	a.dataplaneMu.Lock()
	defer a.dataplaneMu.Unlock()
	if a.dataplaneStarting {
		return nil // it serves, or will soon: it may not hold its lock yet
	}
	// The dataplane holds this lock for as long as it serves.
	l := flock.New(a.dataplaneLock())
	free, err := l.TryLock()
	if err != nil {
		return fmt.Errorf("look for the dataplane: %w", err)
	}
	if !free {
		return nil
	}
	if err := l.Unlock(); err != nil {
		return fmt.Errorf("look for the dataplane: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(a.cfg.Root, "dataplane.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start the dataplane: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(a.cfg.Executable, "dataplane", "--run", a.cfg.Run)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the dataplane: %w", err)
	}
	a.dataplaneStarting = true
	go func() {
		err := cmd.Wait()
		a.dataplaneMu.Lock()
		a.dataplaneStarting = false
		a.dataplaneMu.Unlock()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			a.log.Warn("wait for the dataplane", "err", err)
		}
	}()
	return nil
}
