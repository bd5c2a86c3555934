package images

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PullBuild is what Compose writes for services with build:; the build itself
// is the caller's, to the store it means PullMissing.
const PullBuild Policy = "build"

// Validate says what is wrong with a policy, with the words to write instead.
func (p Policy) Validate() error {
	_, _, err := p.parse()
	return err
}

// parse gives the plain policy and, for the timed ones, the age after which an
// image is pulled again (Compose spec, "pull_policy").
func (p Policy) parse() (Policy, time.Duration, error) {
	switch p {
	case "", PullMissing, "if_not_present", PullBuild:
		return PullMissing, 0, nil
	case PullAlways, PullNever:
		return p, 0, nil
	case "daily":
		return PullAlways, 24 * time.Hour, nil
	case "weekly":
		return PullAlways, 7 * 24 * time.Hour, nil
	}
	if s, ok := strings.CutPrefix(string(p), "every_"); ok {
		d, err := parseAge(s)
		if err == nil {
			return PullAlways, d, nil
		}
	}
	return "", 0, fmt.Errorf("unknown pull policy %q: write always, missing, never, build, daily, weekly or every_<duration> such as every_12h", string(p))
}

var ageUnits = map[byte]time.Duration{
	'w': 7 * 24 * time.Hour, 'd': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second,
}

// parseAge reads "1w2d3h": time.ParseDuration knows neither weeks nor days.
func parseAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, fmt.Errorf("empty duration")
	}
	var total time.Duration
	for s != "" {
		i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		if i <= 0 {
			return 0, fmt.Errorf("bad duration %q", s)
		}
		n, err := strconv.ParseInt(s[:i], 10, 32)
		unit, known := ageUnits[s[i]]
		if err != nil || !known {
			return 0, fmt.Errorf("bad duration %q", s)
		}
		d := time.Duration(n) * unit
		if n != 0 && d/unit != time.Duration(n) || total+d < total {
			return 0, fmt.Errorf("duration %q is too long", s)
		}
		total += d
		s = s[i+1:]
	}
	if total == 0 {
		return 0, fmt.Errorf("duration is zero")
	}
	return total, nil
}
