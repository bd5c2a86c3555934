package spec

import (
	"strings"
	"sync"

	"github.com/sirupsen/logrus"
)

// The reference loader warns through the global logger of logrus, without a
// place. Each warning it has is found here as well, with one, so its lines
// are dropped; other users of logrus in the process are left alone. A
// formatter does it because it needs no lock around Load and loses nothing
// that is logged meanwhile.
var filterLoaderWarnings = sync.OnceFunc(func() {
	std := logrus.StandardLogger()
	std.SetFormatter(quietFormatter{std.Formatter})
})

var loaderWarnings = []string{
	"variable is not set. Defaulting to a blank string.",
	"the attribute `version` is obsolete",
	"external.name is deprecated.",
	"for boolean is not supported by YAML 1.2",
}

type quietFormatter struct{ next logrus.Formatter }

func (f quietFormatter) Format(e *logrus.Entry) ([]byte, error) {
	for _, w := range loaderWarnings {
		if strings.Contains(e.Message, w) {
			return nil, nil
		}
	}
	return f.next.Format(e) //nolint:wrapcheck // a formatter is transparent
}
