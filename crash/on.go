//go:build crashpoints

package crash

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// wanted is the point to die at, left how many arrivals are still to come.
var (
	wanted string
	left   atomic.Int64
)

func init() {
	name, count, _ := strings.Cut(os.Getenv("BERTH_CRASH"), ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		n = 1
	}
	wanted = name
	left.Store(n)
}

// At ends the process at once if BERTH_CRASH names this arrival at the point.
func At(name string) {
	if name != wanted || left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the other threads end with this one, but not at the same instant
}
