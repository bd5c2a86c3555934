package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"berth/api"
)

// statsRow is a sample as `docker compose stats --format json` prints it.
type statsRow struct {
	BlockIO   string
	CPUPerc   string
	Container string
	ID        string
	MemPerc   string
	MemUsage  string
	Name      string
	NetIO     string
	PIDs      string
}

func newStatsRow(s api.TaskStats) statsRow {
	percent := 0.0
	if s.MemLimit > 0 {
		percent = float64(s.Memory) / float64(s.MemLimit) * 100
	}
	return statsRow{
		BlockIO:   humanSize(s.BlockRead) + " / " + humanSize(s.BlockWrite),
		CPUPerc:   fmt.Sprintf("%.2f%%", s.CPUPercent),
		Container: s.Task,
		ID:        s.Task,
		MemPerc:   fmt.Sprintf("%.2f%%", percent),
		MemUsage:  units.BytesSize(float64(s.Memory)) + " / " + units.BytesSize(float64(s.MemLimit)),
		Name:      s.Name,
		NetIO:     humanSize(s.NetRx) + " / " + humanSize(s.NetTx),
		PIDs:      strconv.FormatUint(s.Pids, 10),
	}
}

func humanSize(n uint64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// WriteStats writes samples as a table in Docker's columns, by name.
func WriteStats(w io.Writer, samples []api.TaskStats) error {
	samples = slices.Clone(samples)
	slices.SortFunc(samples, func(a, b api.TaskStats) int { return strings.Compare(a.Name, b.Name) })
	t := Table{Head: []string{"NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"}}
	for _, s := range samples {
		r := newStatsRow(s)
		if s.MemLimit == 0 {
			r.MemUsage, r.MemPerc = units.BytesSize(float64(s.Memory))+" / -", "-" // no limit
		}
		t.Add(r.Name, r.CPUPerc, r.MemUsage, r.MemPerc, r.NetIO, r.BlockIO, r.PIDs)
	}
	return t.Write(w)
}

// WriteStatsJSON writes one sample as a line of NDJSON.
func WriteStatsJSON(w io.Writer, s api.TaskStats) error { return WriteJSONLine(w, newStatsRow(s)) }

// LiveStats draws a table of the latest samples over itself.
type LiveStats struct {
	screen Screen
	latest map[string]api.TaskStats
	drawn  int
}

// NewLiveStats draws on s.
func NewLiveStats(s Screen) *LiveStats {
	return &LiveStats{screen: s, latest: map[string]api.TaskStats{}}
}

// Add takes a sample in. It draws when a task is sampled again, which is the
// beginning of a new round: so each round is drawn once, whole. Tasks that
// the last round did not see are gone.
func (l *LiveStats) Add(s api.TaskStats) error {
	if _, seen := l.latest[s.Task]; seen {
		if err := l.Draw(); err != nil {
			return err
		}
		clear(l.latest)
	}
	l.latest[s.Task] = s
	return nil
}

// Draw draws the latest samples.
func (l *LiveStats) Draw() error {
	samples := make([]api.TaskStats, 0, len(l.latest))
	for _, s := range l.latest {
		samples = append(samples, s)
	}
	var b strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", l.drawn)
	}
	head := b.Len()
	if err := WriteStats(&b, samples); err != nil {
		return err
	}
	l.drawn = strings.Count(b.String()[head:], "\n")
	_, err := io.WriteString(l.screen, b.String())
	return err
}
