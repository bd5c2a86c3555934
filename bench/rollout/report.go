package rollout

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"berth/testbed/load"
)

// window is a time in which something was done to the services.
type window struct {
	name       string
	begin, end time.Time
}

// inside says whether a sample was under way in one of the windows.
func inside(ws []window, s load.Sample) bool {
	return slices.ContainsFunc(ws, func(w window) bool {
		return s.At.Before(w.end) && s.At.Add(s.Took).After(w.begin)
	})
}

// place says where a moment lies relative to the nearest window.
func place(ws []window, at time.Time) string {
	best, distance := "nothing was done yet", time.Duration(-1)
	for _, w := range ws {
		text, d := "", time.Duration(0)
		switch {
		case at.Before(w.begin):
			d = w.begin.Sub(at)
			text = fmt.Sprintf("%.3f s before %s", d.Seconds(), w.name)
		case at.After(w.end):
			d = at.Sub(w.end)
			text = fmt.Sprintf("%.3f s after %s", d.Seconds(), w.name)
		default:
			text = fmt.Sprintf("%.3f s into %s (of %.3f s)", at.Sub(w.begin).Seconds(), w.name, w.end.Sub(w.begin).Seconds())
		}
		if distance < 0 || d < distance {
			best, distance = text, d
		}
	}
	return best
}

// spread is what is told of many times.
type spread struct{ p50, p99, max time.Duration }

func spreadOf(d []time.Duration) spread {
	if len(d) == 0 {
		return spread{}
	}
	slices.Sort(d)
	at := func(p float64) time.Duration { return d[int(math.Ceil(p*float64(len(d))))-1] }
	return spread{at(0.50), at(0.99), d[len(d)-1]}
}

func (s spread) String() string {
	return fmt.Sprintf("%8s %8s %8s", ms(s.p50), ms(s.p99), ms(s.max))
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000)
}

// shownFailures is how many failures of a kind are printed.
const shownFailures = 10

// split are the times of a kind of clients, out of windows and in them.
func split(r *load.Result, ws []window, k load.Kind) (steady, busy []time.Duration) {
	for _, s := range r.Samples[k] {
		if inside(ws, s) {
			busy = append(busy, s.Took)
		} else {
			steady = append(steady, s.Took)
		}
	}
	return steady, busy
}

// reportLoad prints what the clients saw, out of windows and in them, and
// returns what failed: nothing may.
func reportLoad(w io.Writer, r *load.Result, ws []window, what string) (wrong []string) {
	fmt.Fprintf(w, "\n%-10s %9s %7s   %-26s   %-26s\n", "", "", "failed", "steady: p50, p99, max ms", what+": p50, p99, max ms")
	for _, k := range load.Kinds {
		steady, busy := split(r, ws, k)
		failed := r.FailedOf(k)
		all := len(steady) + len(busy) + failed
		if all == 0 {
			continue
		}
		fmt.Fprintf(w, "%-10s %9d %7d   %s   %s\n", k, all, failed, spreadOf(steady), spreadOf(busy))
		if failed > 0 {
			wrong = append(wrong, fmt.Sprintf("%d of %s failed, want 0", failed, k))
		}
	}
	fmt.Fprintf(w, "kept connections opened again between two requests: %d\n", r.Reopens)
	reportFailures(w, r, ws)
	return wrong
}

// slower tells of HTTP requests that take longer in windows than they may.
func slower(r *load.Result, ws []window) (wrong []string) {
	for _, k := range []load.Kind{load.Requests, load.Kept} {
		steady, busy := split(r, ws, k)
		s, b := spreadOf(steady), spreadOf(busy)
		if limit := 2*s.p99 + 20*time.Millisecond; b.p99 > limit {
			wrong = append(wrong, fmt.Sprintf("p99 of %s during deploys is %s ms, want at most %s ms", k, ms(b.p99), ms(limit)))
		}
	}
	return wrong
}

func reportFailures(w io.Writer, r *load.Result, ws []window) {
	shown := map[load.Kind]int{}
	for _, f := range r.Failed {
		if shown[f.Kind]++; shown[f.Kind] <= shownFailures {
			fmt.Fprintf(w, "  failed: %s (%s)\n", f, place(ws, f.At))
		}
	}
}
