package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// ErrCut says that a stream of Progress ended before the agent said that the
// work is done or has failed: the agent stopped or was killed. What was asked
// for may still come to pass.
var ErrCut = errors.New("the agent went away before it was done")

// line is one line of a stream; a line may carry the failure that ended it.
type line interface{ failure() *Error }

func (p Progress) failure() *Error  { return p.Error }
func (e LogEntry) failure() *Error  { return e.Error }
func (s TaskStats) failure() *Error { return s.Error }

// eventLine is an Event as it stands in a stream.
type eventLine struct {
	Event
	Error *Error `json:"error,omitempty"`
}

func (e eventLine) failure() *Error { return e.Error }

// stream sends r and yields the lines of the answer as they come. The last
// pair holds the error, if there is one: the request's, the one the agent
// wrote into the stream, or the context's. Breaking out of the loop closes
// the connection, which the agent takes as the end of interest.
func stream[T line](ctx context.Context, c *Client, r request) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		resp, err := c.do(ctx, r)
		if err != nil {
			yield(zero, err)
			return
		}
		defer resp.Body.Close()
		lines := json.NewDecoder(resp.Body)
		for {
			var l T
			switch err := lines.Decode(&l); {
			case errors.Is(err, io.EOF):
				return
			case ctx.Err() != nil:
				yield(zero, context.Cause(ctx))
				return
			case errors.Is(err, io.ErrUnexpectedEOF):
				yield(zero, ErrCut)
				return
			case err != nil:
				yield(zero, fmt.Errorf("read the agent's stream of %s: %w", r.path, err))
				return
			}
			if e := l.failure(); e != nil {
				yield(zero, e)
				return
			}
			if !yield(l, nil) {
				return
			}
		}
	}
}

// progress is stream for work that ends with Done: a stream that ends without
// it yields ErrCut.
func progress(ctx context.Context, c *Client, r request) iter.Seq2[Progress, error] {
	return func(yield func(Progress, error) bool) {
		for p, err := range stream[Progress](ctx, c, r) {
			if !yield(p, err) || err != nil || p.Done != nil {
				return
			}
		}
		yield(Progress{}, ErrCut)
	}
}
