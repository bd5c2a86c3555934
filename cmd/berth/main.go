// Command berth runs Compose stacks. It loads the Compose file where the user
// stands, sends the resolved stack to the agent (berthd), and shows what
// happens. It starts an agent if none listens.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// A command lives for some milliseconds: collecting garbage below
// firstCollection costs it more time than it frees memory. Printing 50 services
// allocates 17 MB, and a collection begins well before it is due. Above,
// collecting more often keeps the process below 40 MB, of which its own code is
// 12. The percentage is of the runtime's least heap, 4 MiB.
const (
	firstCollection = 26 << 20
	memoryLimit     = 30 << 20
)

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(run()) }

// run is main with its exit code. The first interrupt or SIGTERM ends the
// context; the second one ends the process.
func run() int {
	debug.SetGCPercent(100 * firstCollection / (4 << 20))
	debug.SetMemoryLimit(memoryLimit)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	cmd := newRoot(a)
	cmd.SetArgs(os.Args[1:])
	return a.report(ctx, cmd.ExecuteContext(ctx))
}
