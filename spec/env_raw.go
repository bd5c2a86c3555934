package spec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
)

func init() { dotenv.RegisterFormat("raw", rawEnv) }

// maxEnvLine of an env_file of format raw, in bytes.
const maxEnvLine = 1 << 20

// rawEnv reads an env_file of format raw, as `docker run --env-file` does: a
// line is KEY=VALUE, and nothing in VALUE means anything. A KEY alone takes
// the value that it has where the user stands. Empty lines, and those that
// begin with #, are skipped.
func rawEnv(r io.Reader, filename string, vars map[string]string, lookup func(string) (string, bool)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEnvLine)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimPrefix(strings.TrimSuffix(lines.Text(), "\r"), "\ufeff")
		key, value, has := strings.Cut(strings.TrimLeft(line, " \t"), "=")
		switch {
		case strings.TrimSpace(key) == "" && !has, strings.HasPrefix(key, "#"):
			continue
		case key == "" || strings.ContainsAny(key, " \t\x00"):
			return fmt.Errorf("%s: line %d: %q is not KEY=VALUE", filename, n, clipped(line))
		case has:
			vars[key] = value
		default:
			if value, ok := lookup(key); ok {
				vars[key] = value
			}
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%s: a line is too long", filename)
	}
	return lines.Err()
}

// clipped keeps a hostile line from filling a message.
func clipped(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
