package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNoAgent says that nobody listens on the socket: no agent runs with this
// RUN folder. A caller decides on it whether to start one.
var ErrNoAgent = errors.New("no agent is running")

// ErrForbidden says that an agent may listen, but this user may not talk to
// it.
var ErrForbidden = errors.New("not allowed to talk to the agent")

// SocketName is the name of the agent's socket in its RUN folder.
const SocketName = "api.sock"

// Socket is the path of the agent's socket for a RUN folder.
func Socket(run string) string { return filepath.Join(run, SocketName) }

// dialTimeout bounds the connection only: a unix socket answers at once or
// its backlog is full. Requests are bounded by their context.
const dialTimeout = 5 * time.Second

// Client talks to one agent over its unix socket. It holds no state but idle
// connections and is safe for concurrent use.
//
// Every method ends when its context does and then returns the context's
// error. A request that the agent refused is an *Error.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client for the agent that listens on socket. It does
// not connect.
func NewClient(socket string) *Client {
	dialer := net.Dialer{Timeout: dialTimeout}
	return &Client{
		socket: socket,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
			DisableCompression: true,
			MaxIdleConns:       4,
			IdleConnTimeout:    time.Minute,
		}},
	}
}

// Socket is where the client's agent listens.
func (c *Client) Socket() string { return c.socket }

// Close drops idle connections; streams that are being read go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info describes the agent. It is also the cheapest way to learn whether one
// listens. An agent that ends while it is asked is asked again: then nobody
// listens, or the next one.
func (c *Client) Info(ctx context.Context) (Info, error) {
	r := request{method: http.MethodGet, path: "/v1/info"}
	info, err := call[Info](ctx, c, r)
	var answer *Error
	if err == nil || errors.As(err, &answer) || errors.Is(err, ErrNoAgent) || errors.Is(err, ErrForbidden) || ctx.Err() != nil {
		return info, err
	}
	return call[Info](ctx, c, r)
}

// host stands in URLs where a network client would have a host; the agent
// does not look at it.
const host = "berth"

// request is one request before it is sent. Body, unless it is an io.Reader,
// is sent as JSON.
type request struct {
	method string
	path   string // escaped
	query  url.Values
	body   any
}

// do sends r and returns the answer with a 2xx status; the caller closes its
// body.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	body, contentType, err := r.payload()
	if err != nil {
		return nil, err
	}
	target := "http://" + host + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, problem(resp)
	}
	return resp, nil
}

func (r request) payload() (body io.Reader, contentType string, err error) {
	switch b := r.body.(type) {
	case nil:
		return nil, "", nil
	case io.Reader:
		return b, "application/x-tar", nil
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return nil, "", fmt.Errorf("encode the request to %s: %w", r.path, err)
		}
		return bytes.NewReader(data), "application/json", nil
	}
}

// transportError turns what net/http says about a failed connection into
// what a caller can act on.
func (c *Client) transportError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nobody listens on %s)", ErrNoAgent, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w on %s", ErrForbidden, c.socket)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the URL is made up and tells the user nothing
	}
	return fmt.Errorf("talk to the agent on %s: %w", c.socket, err)
}

// call sends r and decodes the whole answer as a T.
func call[T any](ctx context.Context, c *Client, r request) (T, error) {
	var answer T
	resp, err := c.do(ctx, r)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		if ctx.Err() != nil {
			return answer, context.Cause(ctx)
		}
		return answer, fmt.Errorf("read the agent's answer to %s %s: %w", r.method, r.path, err)
	}
	return answer, nil
}

// send is call for requests whose answer holds nothing.
func (c *Client) send(ctx context.Context, r request) error {
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
