package runtime

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSignal is SIGRTMAX on Linux.
const maxSignal = 64

// ParseSignal reads a signal as stop_signal, STOPSIGNAL and kill -s write it:
// a number, a name with or without SIG, or RTMIN+N and RTMAX-N. An empty text
// is SIGTERM.
func ParseSignal(s string) (Signal, error) {
	if s == "" {
		return unix.SIGTERM, nil
	}
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > maxSignal {
			return 0, invalid("signal %d is not between 1 and %d", n, maxSignal)
		}
		return Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return n, nil
	}
	// RTMIN is 34 for programs: glibc and musl keep 32 and 33 to themselves.
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		if n, err := offset(rest, '+'); err == nil && 34+n <= maxSignal {
			return Signal(34 + n), nil
		}
	}
	if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		if n, err := offset(rest, '-'); err == nil && maxSignal-n >= 34 {
			return Signal(maxSignal - n), nil
		}
	}
	return 0, invalid("unknown signal %q; write a name such as SIGTERM or a number", s)
}

func offset(s string, sign byte) (int, error) {
	if s == "" {
		return 0, nil
	}
	if s[0] != sign {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(s[1:], 10, 6)
	return int(n), err
}
