package dataplane

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
)

// lockRetry is how often a dataplane that serves already looks whether the
// older one has ended.
const lockRetry = 50 * time.Millisecond

// claims tells apart several dataplanes of one process, which tests have.
var claims atomic.Uint64

// claim is one dataplane's part in taking over; Run tells how that goes.
type claim struct {
	pidFile string
	id      string // first word: the process id
	lock    *flock.Flock
	held    bool
}

func newClaim(dir string) *claim {
	return &claim{
		pidFile: filepath.Join(dir, "dataplane.pid"),
		id:      strconv.Itoa(os.Getpid()) + " " + strconv.FormatUint(claims.Add(1), 10) + "\n",
		lock:    flock.New(filepath.Join(dir, "dataplane.lock")),
	}
}

// announce makes this the dataplane that is to stay.
func (c *claim) announce() error {
	// In place: the folder is not the dataplane's. A reader that finds the file
	// empty looks again.
	if err := os.WriteFile(c.pidFile, []byte(c.id), 0o600); err != nil {
		return fmt.Errorf("announce the dataplane: %w", err)
	}
	return nil
}

// try takes the lock if nobody has it.
func (c *claim) try() error {
	if c.held {
		return nil
	}
	held, err := c.lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock the dataplane: %w", err)
	}
	c.held = held
	return nil
}

// waiting delivers when it is time to try again; never if the lock is held.
func (c *claim) waiting() <-chan time.Time {
	if c.held {
		return nil
	}
	return time.After(lockRetry)
}

// superseded says whether a newer dataplane has announced itself. A pid file
// that cannot be read is no announcement.
func (c *claim) superseded() bool {
	b, err := os.ReadFile(c.pidFile)
	return err == nil && len(b) > 0 && string(b) != c.id
}

func (c *claim) release() {
	c.held = false
	c.lock.Unlock() // fails only if it is not held
}
