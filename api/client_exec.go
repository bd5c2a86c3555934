package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/coder/websocket"
)

// WindowSize is the size of a terminal in characters.
type WindowSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Streams join a process in a task to the caller. Nil fields are not joined;
// a nil Stdin is an empty one. With a TTY everything arrives on Stdout.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan WindowSize
	Signals        <-chan string // names such as INT, for a process without a TTY
}

// channelExit is the payload of ChannelExit.
type channelExit struct {
	ExitCode int `json:"exit_code"`
}

// channelSignal is the payload of ChannelSignaled.
type channelSignal struct {
	Signal string `json:"signal"`
}

// Exec runs a process in a task and returns its exit code once it has exited
// and all its output is written to s. With req.Detach it returns once the
// process runs.
//
// When it returns, a Read of s.Stdin may still be blocked, as nothing can
// interrupt it; no more is read from s.Stdin after that one.
func (c *Client) Exec(ctx context.Context, task string, req ExecRequest, s Streams) (exitCode int, err error) {
	first, err := json.Marshal(req)
	if err != nil {
		return 0, fmt.Errorf("encode the exec request: %w", err)
	}
	return c.interact(ctx, taskPath(task, "/exec"), first, s)
}

// Attach joins s to the main process of a task, from now on, and returns its
// exit code.
func (c *Client) Attach(ctx context.Context, task string, s Streams) (exitCode int, err error) {
	return c.interact(ctx, taskPath(task, "/attach"), nil, s)
}

func (c *Client) interact(ctx context.Context, path string, first []byte, s Streams) (int, error) {
	conn, resp, err := websocket.Dial(ctx, "ws://"+host+path, &websocket.DialOptions{HTTPClient: c.http})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return 0, problem(resp)
		}
		return 0, c.transportError(ctx, err)
	}
	defer func() { _ = conn.CloseNow() }() // it is over, one way or the other
	conn.SetReadLimit(-1)                  // the agent is trusted, and a message is no larger than its read buffer

	if first != nil {
		if err := conn.Write(ctx, websocket.MessageText, first); err != nil {
			return 0, cut(ctx)
		}
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	go sendInput(sending, conn, s.Stdin)
	go sendControl(sending, conn, s)
	return receive(ctx, conn, s)
}

// receive writes output where it belongs until the agent says how the process
// ended.
func receive(ctx context.Context, conn *websocket.Conn, s Streams) (int, error) {
	for {
		_, message, err := conn.Read(ctx)
		if err != nil {
			return 0, cut(ctx)
		}
		if len(message) == 0 {
			continue
		}
		channel, data := message[0], message[1:]
		switch channel {
		case ChannelStdout:
			err = writeTo(s.Stdout, data)
		case ChannelStderr:
			err = writeTo(s.Stderr, data)
		case ChannelExit:
			var exit channelExit
			if err := json.Unmarshal(data, &exit); err != nil {
				return 0, fmt.Errorf("read the exit code: %w", err)
			}
			return exit.ExitCode, nil
		case ChannelError:
			failed := &Error{}
			if err := json.Unmarshal(data, failed); err != nil {
				return 0, fmt.Errorf("read the agent's error: %w", err)
			}
			return 0, failed
		}
		if err != nil {
			return 0, err
		}
	}
}

// cut is why an open connection ended: the caller's doing, or the agent's. On
// a local socket there is no third party.
func cut(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return ErrCut
}

func writeTo(w io.Writer, data []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(data)
	return err
}

// stdinChunk is how much input one message carries; the library refuses to
// read messages of more than 32 KiB unless told otherwise.
const stdinChunk = 16 << 10

// sendInput sends stdin until its end, then the empty message that says so. A
// failed write is not reported: receive learns of the same broken connection.
func sendInput(ctx context.Context, conn *websocket.Conn, stdin io.Reader) {
	buf := make([]byte, 1+stdinChunk)
	buf[0] = ChannelStdin
	for stdin != nil {
		n, err := stdin.Read(buf[1:])
		if n > 0 && conn.Write(ctx, websocket.MessageBinary, buf[:1+n]) != nil {
			return
		}
		if err != nil {
			break
		}
	}
	_ = conn.Write(ctx, websocket.MessageBinary, buf[:1])
}

// sendControl sends window sizes and signals until ctx ends.
func sendControl(ctx context.Context, conn *websocket.Conn, s Streams) {
	for {
		var channel byte
		var payload any
		select {
		case <-ctx.Done():
			return
		case size, ok := <-s.Resize:
			if !ok {
				s.Resize = nil
				continue
			}
			channel, payload = ChannelResize, size
		case name, ok := <-s.Signals:
			if !ok {
				s.Signals = nil
				continue
			}
			channel, payload = ChannelSignaled, channelSignal{Signal: name}
		}
		data, err := json.Marshal(payload)
		if err != nil || conn.Write(ctx, websocket.MessageBinary, append([]byte{channel}, data...)) != nil {
			return
		}
	}
}
