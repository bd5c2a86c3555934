package api

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"

	"github.com/coder/websocket"

	"berth/build"
)

// BuildSSH is the first message of an SSH channel: the name by which a build
// request means it.
type BuildSSH struct {
	Socket string `json:"socket"`
}

// maxSSHMessage bounds a message of the SSH agent protocol; OpenSSH has the
// same bound.
const maxSSHMessage = 256 << 10

// Build sends what a build needs and yields its progress, at the end what was
// built. Breaking out of the loop ends the build.
func (c *Client) Build(ctx context.Context, p *build.Packing) iter.Seq2[Progress, error] {
	return func(yield func(Progress, error) bool) {
		r, w := io.Pipe()
		packed := make(chan error, 1)
		go func() {
			err := p.Write(w)
			w.CloseWithError(err)
			packed <- err
		}()
		defer r.Close()
		for news, err := range progress(ctx, c, request{method: http.MethodPost, path: "/v1/build", body: io.NopCloser(r)}) {
			if err != nil && ctx.Err() == nil {
				r.CloseWithError(io.ErrClosedPipe)
				// What went wrong here says more than that the agent got no more.
				if mine := <-packed; mine != nil && !errors.Is(mine, io.ErrClosedPipe) {
					err = mine
				}
			}
			if !yield(news, err) || err != nil {
				return
			}
		}
	}
}

// OfferSSH offers the SSH agent that listens on socket to builds, until ctx
// ends or the connection does. It returns the name for requests.
func (c *Client) OfferSSH(ctx context.Context, socket string) (name string, err error) {
	conn, resp, err := websocket.Dial(ctx, "ws://"+host+"/v1/build/ssh", &websocket.DialOptions{HTTPClient: c.http})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return "", problem(resp)
		}
		return "", c.transportError(ctx, err)
	}
	conn.SetReadLimit(maxSSHMessage)
	_, first, err := conn.Read(ctx)
	if err != nil {
		return "", cut(ctx)
	}
	var hello BuildSSH
	if err := json.Unmarshal(first, &hello); err != nil {
		return "", fmt.Errorf("offer the SSH agent: %w", err)
	}
	go func() {
		defer func() { _ = conn.CloseNow() }() // it is over, one way or the other
		for {
			_, question, err := conn.Read(ctx)
			if err != nil {
				return
			}
			answer, err := askSSH(ctx, socket, question)
			if err != nil {
				answer = []byte{5} // SSH_AGENT_FAILURE
			}
			if conn.Write(ctx, websocket.MessageBinary, answer) != nil {
				return
			}
		}
	}()
	return hello.Socket, nil
}

// askSSH asks the agent that listens on socket one question.
func askSSH(ctx context.Context, socket string, question []byte) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := WriteSSH(conn, question); err != nil {
		return nil, err
	}
	return ReadSSH(conn)
}

// ReadSSH reads one message of the SSH agent protocol
// (draft-miller-ssh-agent, section 3): its length in four bytes, big endian,
// and its content.
func ReadSSH(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n == 0 || n > maxSSHMessage {
		return nil, fmt.Errorf("a message of %d bytes is none of an SSH agent", n)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(r, message)
	return message, err
}

// WriteSSH is the counterpart of ReadSSH.
func WriteSSH(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
	return err
}
