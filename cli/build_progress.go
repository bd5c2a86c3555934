package cli

import (
	"fmt"
	"strings"
	"time"

	"berth/api"
	"berth/build"
)

// buildLines says what is new of a build: steps as they begin, what they
// print, how long the long ones took.
func buildLines(news api.Progress) []string {
	if b := news.Built; b != nil {
		if b.Digest == "" {
			return nil
		}
		return []string{Escape(b.Service) + ": built " + Escape(strings.Join(b.Names, ", ")) + " " + shortDigest(b.Digest) + " with " + Escape(b.Builder)}
	}
	b := news.Build
	name := Escape(b.Service) + ": "
	step := Escape(b.Step)
	switch {
	case b.Warning != "":
		return []string{"warning: " + name + Escape(b.Warning)}
	case b.Log != "":
		var lines []string
		for line := range strings.Lines(b.Log) {
			line = strings.TrimRight(line, "\r\n")
			lines = append(lines, name+"  | "+Escape(line[strings.LastIndexByte(line, '\r')+1:]))
		}
		return lines
	case b.State == build.StepStarted:
		return []string{name + step}
	case b.State == build.StepCached:
		return []string{name + step + " (cached)"}
	case b.State == build.StepFailed:
		return []string{name + step + " failed"}
	case b.Seconds >= 1:
		return []string{name + step + fmt.Sprintf(" took %s", seconds(time.Duration(b.Seconds*float64(time.Second))))}
	}
	return nil
}
