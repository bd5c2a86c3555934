package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// contender brings the same set of containers up and down. up returns when
// all run, down when nothing is left. again is an up that has nothing to do.
type contender interface {
	name() string
	up(ctx context.Context) error
	again(ctx context.Context) error
	down(ctx context.Context) error
}

// looker wants to look around while everything is up, outside of any time.
type looker interface {
	look(ctx context.Context) error
}

// times are one contender's, a value for each round.
type times struct {
	name            string
	up, again, down []time.Duration
}

// measure lets the contenders take turns, so that a slow minute of the
// machine hits all of them.
func measure(ctx context.Context, contenders []contender, rounds int) ([]times, error) {
	out := make([]times, len(contenders))
	for range rounds {
		for i, c := range contenders {
			if err := out[i].round(ctx, c); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name(), err)
			}
		}
	}
	return out, nil
}

func (t *times) round(ctx context.Context, c contender) error {
	t.name = c.name()
	timed := func(step string, do func(context.Context) error, into *[]time.Duration) error {
		start := time.Now()
		if err := do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		*into = append(*into, time.Since(start))
		return nil
	}
	if err := timed("up", c.up, &t.up); err != nil {
		return err
	}
	if err := timed("up again", c.again, &t.again); err != nil {
		return err
	}
	if l, ok := c.(looker); ok {
		if err := l.look(ctx); err != nil {
			return err
		}
	}
	return timed("down", c.down, &t.down)
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// report prints medians, the spread of up, and the ratio to the floor, which
// is the first result.
func report(w io.Writer, o options, f *floor, results []times) {
	fmt.Fprintf(w, "%d services of one image, %d CPUs, %s; medians of %d rounds\n\n",
		o.n, runtime.NumCPU(), f.runtimeVersion(), o.rounds)
	fmt.Fprintf(w, "%-8s %9s %17s %9s %9s %9s %9s\n", "", "up", "(min … max)", "× floor", "up again", "down", "× floor")
	base := results[0]
	for _, r := range results {
		spread := fmt.Sprintf("(%.2f … %.2f)", slices.Min(r.up).Seconds(), slices.Max(r.up).Seconds())
		again := "–" // the floor has no such thing
		if d := median(r.again); d > time.Millisecond {
			again = fmt.Sprintf("%.3f s", d.Seconds())
		}
		fmt.Fprintf(w, "%-8s %7.2f s %17s %9.2f %9s %7.2f s %9.2f\n",
			r.name, median(r.up).Seconds(), spread, ratio(r.up, base.up),
			again, median(r.down).Seconds(), ratio(r.down, base.down))
	}
}

func ratio(d, base []time.Duration) float64 {
	return median(d).Seconds() / median(base).Seconds()
}
