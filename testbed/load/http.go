package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// requests keeps to its rate whatever becomes of the requests.
func (l *Load) requests(ctx context.Context, targets []Target, rate int) {
	if rate == 0 {
		return
	}
	var under sync.WaitGroup
	defer under.Wait()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	for sent := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for ; ; sent++ {
			due := begin.Add(time.Duration(sent) * time.Second / time.Duration(rate))
			if time.Now().Before(due) {
				break
			}
			t := &targets[sent%len(targets)]
			under.Go(func() {
				version, err := t.request(context.WithoutCancel(ctx), due)
				if err != nil {
					l.failure(Requests, t, due, err)
					return
				}
				l.ok(Requests, t, version, due)
			})
		}
	}
}

// Ask is one HTTP request on a connection of its own; it returns the version
// that answers.
func (t *Target) Ask(ctx context.Context) (version string, err error) {
	return t.request(ctx, time.Now())
}

// request is Ask for a request that was due at some time.
func (t *Target) request(ctx context.Context, due time.Time) (version string, err error) {
	ctx, cancel := context.WithDeadline(ctx, due.Add(answerLimit))
	defer cancel()
	c, err := t.From.DialContext(ctx, "tcp", t.HTTP)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(due.Add(answerLimit))
	version, _, err = t.ask(c, bufio.NewReader(c), false)
	return version, err
}

// ask sends a request and reads its whole answer. last says that the server
// closes the connection.
func (t *Target) ask(c net.Conn, r *bufio.Reader, keep bool) (version string, last bool, err error) {
	message := fmt.Sprintf("%08x", rand.Uint32())
	connection := "close"
	if keep {
		connection = "keep-alive"
	}
	if _, err := fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n\r\n", message, t.HTTP, connection); err != nil {
		return "", false, fmt.Errorf("send the request: %w", err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", false, fmt.Errorf("read the answer: %w", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", false, fmt.Errorf("read the answer's body: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", false, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	version, err = t.check(string(body), message)
	return version, resp.Close, err
}

// keep is a client that keeps its connection as long as it can.
func (l *Load) keep(ctx context.Context, t *Target) {
	for pause(ctx, 0, 500*time.Millisecond) {
		begin := time.Now()
		dialing, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerLimit)
		c, err := t.From.DialContext(dialing, "tcp", t.HTTP)
		cancel()
		if err != nil {
			l.failure(Kept, t, begin, err)
			continue
		}
		l.converse(ctx, t, c)
		c.Close()
	}
}

// converse asks and thinks until the connection or the load ends.
func (l *Load) converse(ctx context.Context, t *Target, c net.Conn) {
	r := bufio.NewReader(c)
	for {
		begin := time.Now()
		c.SetDeadline(begin.Add(answerLimit))
		version, last, err := t.ask(c, r, true)
		if err != nil {
			l.failure(Kept, t, begin, err)
			return
		}
		l.ok(Kept, t, version, begin)
		if last {
			l.reopened()
			return
		}
		open, err := think(ctx, c, r)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.failure(Kept, t, begin, err)
			return
		}
		if !open {
			l.reopened()
			return
		}
	}
}

// think waits a random time, now and then so long that the connection counts
// as idle. It says whether the connection is still open then. When ctx ends it
// returns at once.
func think(ctx context.Context, c net.Conn, r *bufio.Reader) (open bool, err error) {
	until := between(20*time.Millisecond, 600*time.Millisecond)
	if rand.N(12) == 0 {
		until = between(time.Second, 8*time.Second)
	}
	c.SetDeadline(time.Now().Add(until))
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })()
	switch _, err := r.Peek(1); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return true, nil
	case err != nil:
		return false, nil //nolint:nilerr // closed or reset between two requests: nothing was asked
	}
	return false, errors.New("an answer that nobody asked for")
}
