package agent

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"berth/api"
)

// readRoutes are logs, events and stats.
func (a *Agent) readRoutes(h huma.API) {
	huma.Register(h, op(http.MethodGet, "/v1/stacks/{stack}/logs", "Read logs, merged by time"),
		func(_ context.Context, in *struct {
			StackPath
			Services string `query:"services"`
			Index    int    `query:"index"`
			Follow   bool   `query:"follow"`
			Since    string `query:"since"`
			Until    string `query:"until"`
			Tail     string `query:"tail"`
			Revision uint64 `query:"revision"`
		},
		) (*huma.StreamResponse, error) {
			q := api.LogQuery{
				Services: list(in.Services), Index: in.Index, Follow: in.Follow, Since: in.Since, Until: in.Until,
				Revision: in.Revision, Tail: -1,
			}
			if in.Tail != "" {
				n, err := parseTail(in.Tail)
				if err != nil {
					return nil, fail(err)
				}
				q.Tail = n
			}
			if s, _ := a.w.stack(in.Stack); s == nil {
				return nil, fail(notFound("no stack %s", in.Stack))
			}
			return streamed(func(ctx context.Context, send func(any) error) error {
				return a.logs(ctx, in.Stack, q, func(e api.LogEntry) error { return send(e) })
			}), nil
		})
	huma.Register(h, op(http.MethodGet, "/v1/stacks/{stack}/stats", "Measure what tasks use"),
		func(_ context.Context, in *struct {
			StackPath
			Stream   bool   `query:"stream"`
			Services string `query:"services"`
		},
		) (*huma.StreamResponse, error) {
			if s, _ := a.w.stack(in.Stack); s == nil {
				return nil, fail(notFound("no stack %s", in.Stack))
			}
			return streamed(func(ctx context.Context, send func(any) error) error {
				return a.stats(ctx, in.Stack, list(in.Services), in.Stream, func(s api.TaskStats) error { return send(s) })
			}), nil
		})
	huma.Register(h, op(http.MethodGet, "/v1/events", "What happens, and happened"),
		func(_ context.Context, in *struct {
			Stack    string `query:"stack"`
			Services string `query:"services"`
			Since    string `query:"since"`
			Until    string `query:"until"`
			Follow   bool   `query:"follow"`
		},
		) (*huma.StreamResponse, error) {
			since, err := parseTime(in.Since)
			if err != nil {
				return nil, fail(err)
			}
			until, err := parseTime(in.Until)
			if err != nil {
				return nil, fail(err)
			}
			services := list(in.Services)
			wanted := func(e api.Event) bool {
				return (in.Stack == "" || e.Stack == in.Stack) && (len(services) == 0 || slices.Contains(services, e.Service))
			}
			return streamed(func(ctx context.Context, send func(any) error) error {
				return a.streamEvents(ctx, since, until, in.Follow, wanted, send)
			}), nil
		})
}

func (a *Agent) streamEvents(ctx context.Context, since, until time.Time, follow bool, wanted func(api.Event) bool, send func(any) error) error {
	var end <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		end = t.C
	}
	events := a.events.read(since)
	for {
		list, lost, more := events.take()
		if lost > 0 {
			err := send(api.Event{Time: time.Now(), Type: "events", Action: "lost", Message: fmt.Sprintf("%d events were lost: they came faster than they were read", lost)})
			if err != nil {
				return err
			}
		}
		for _, e := range list {
			if !wanted(e) || !until.IsZero() && !e.Time.Before(until) {
				continue
			}
			if err := send(e); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-more:
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// parseTime reads RFC 3339, a Unix time, or a duration before now. "" is zero.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if strings.Trim(s, "0123456789.") == "" {
		if sec, err := time.ParseDuration(s + "s"); err == nil {
			return time.Unix(0, int64(sec)), nil
		}
	}
	if d, err := time.ParseDuration(strings.TrimPrefix(s, "-")); err == nil {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid("time %q: write 2026-01-31T12:00:00Z, a Unix time, or a duration such as 10m", s)
}

func parseTail(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n := 0
	for _, r := range s {
		if r < '0' || r > '9' || n > 1<<24 {
			return 0, invalid("tail %q: write a number or all", s)
		}
		n = n*10 + int(r-'0')
	}
	return n, nil
}
