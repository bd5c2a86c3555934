package spec

import (
	"regexp"
	"sync"
)

// lazy is a regular expression that is compiled when it is first asked for:
// there are sixty of them, and a file that is right needs five.
func lazy(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}
