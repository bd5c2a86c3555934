// Tools builds the programs that tests run and Debian lacks, into the user's
// cache. What can't be built is said, and no error: its tests skip.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"berth/testbed"
)

func main() {
	for _, tool := range testbed.Tools() {
		begin := time.Now()
		if _, err := tool.Build(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "tools:", err)
		} else if took := time.Since(begin); took > time.Second {
			fmt.Printf("tools: %s is built (%.0f s)\n", tool.Name, took.Seconds())
		}
	}
}
