// Package resp speaks as much of the Redis protocol as the examples need: one
// command, one reply, over one connection that is made again when it breaks.
package resp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrNil is the error for a reply that says there is nothing.
var ErrNil = errors.New("nil reply")

// Client talks to one server. It may be used by several goroutines.
type Client struct {
	addr, password string

	mu   sync.Mutex
	conn net.Conn
	r    *bufio.Reader
}

// New returns a client for addr (HOST:PORT). It connects with the first
// command. An empty password sends none.
func New(addr, password string) *Client { return &Client{addr: addr, password: password} }

// Do sends a command and returns its reply: a string, an int64 or a []any of
// these. An error reply of the server is an error.
func (c *Client) Do(ctx context.Context, args ...string) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.connect(ctx); err != nil {
		return nil, fmt.Errorf("redis %s: %w", c.addr, err)
	}
	reply, err := c.exchange(ctx, args)
	var remote serverError
	if err != nil && !errors.Is(err, ErrNil) && !errors.As(err, &remote) {
		c.conn.Close()
		c.conn = nil // the next command connects again
	}
	if err != nil {
		return nil, fmt.Errorf("redis %s: %w", args[0], err)
	}
	return reply, nil
}

// serverError is an error that the server replied.
type serverError string

func (e serverError) Error() string { return string(e) }

func (c *Client) connect(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return err
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	if c.password == "" {
		return nil
	}
	if _, err := c.exchange(ctx, []string{"AUTH", c.password}); err != nil {
		conn.Close()
		c.conn = nil
		return err
	}
	return nil
}

func (c *Client) exchange(ctx context.Context, args []string) (any, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c.conn, b.String()); err != nil {
		return nil, err
	}
	return read(c.r)
}

// read reads one reply (RESP2, https://redis.io/docs/reference/protocol-spec).
func read(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, errors.New("empty reply")
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return nil, serverError(rest)
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("reply %q: %w", line, err)
	}
	switch {
	case kind == ':':
		return n, nil
	case n < 0:
		return nil, ErrNil
	case kind == '$':
		buf := make([]byte, n+2)
		if _, err := io.ReadFull(r, buf); err != nil {
			return nil, err
		}
		return string(buf[:n]), nil
	case kind == '*':
		list := make([]any, n)
		for i := range list {
			if list[i], err = read(r); err != nil && !errors.Is(err, ErrNil) {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("reply of unknown kind %q", line)
}
