package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// process serves f as what every exec and attach runs.
func process(t *testing.T, f func(ctx context.Context, conn *websocket.Conn)) *Client {
	t.Helper()
	return listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow() // closed by now
		f(r.Context(), conn)
	}))
}

// say sends text on a channel.
func say(ctx context.Context, conn *websocket.Conn, channel byte, text string) {
	_ = conn.Write(ctx, websocket.MessageBinary, append([]byte{channel}, text...))
}

// hear gives the next message and its channel.
func hear(ctx context.Context, t *testing.T, conn *websocket.Conn) (channel byte, text string) {
	_, message, err := conn.Read(ctx)
	if err != nil || len(message) == 0 {
		t.Errorf("read: %q, %v", message, err)
		return 255, ""
	}
	return message[0], string(message[1:])
}

func TestExec_RequestInputOutputAndExitCode(t *testing.T) {
	c := process(t, func(ctx context.Context, conn *websocket.Conn) {
		kind, first, err := conn.Read(ctx)
		var req ExecRequest
		if err != nil || kind != websocket.MessageText || json.Unmarshal(first, &req) != nil || req.Args[0] != "cat" {
			t.Errorf("first message: %v %s %v", kind, first, err)
		}
		for {
			channel, text := hear(ctx, t, conn)
			if channel != ChannelStdin || text == "" {
				break
			}
			say(ctx, conn, ChannelStdout, text)
		}
		say(ctx, conn, ChannelStderr, "no more")
		say(ctx, conn, ChannelExit, `{"exit_code":7}`)
	})
	input := strings.Repeat("0123456789", 10_000) // several messages
	var stdout, stderr strings.Builder
	code, err := c.Exec(t.Context(), "t1", ExecRequest{Args: []string{"cat"}, Stdin: true}, Streams{
		Stdin: strings.NewReader(input), Stdout: &stdout, Stderr: &stderr,
	})
	if err != nil || code != 7 || stdout.String() != input || stderr.String() != "no more" {
		t.Errorf("exit %d, %v, %d bytes of %d, stderr %q", code, err, stdout.Len(), len(input), stderr.String())
	}
}

func TestExec_ResizeAndSignals_ReachTheProcess(t *testing.T) {
	got := make(chan string, 2)
	c := process(t, func(ctx context.Context, conn *websocket.Conn) {
		_, _, _ = conn.Read(ctx)
		for range 3 { // the end of stdin, a size, a signal; in any order
			if channel, text := hear(ctx, t, conn); channel != ChannelStdin {
				got <- string('0'+rune(channel)) + text
			}
		}
		say(ctx, conn, ChannelExit, `{"exit_code":0}`)
	})
	resize, signals := make(chan WindowSize, 1), make(chan string, 1)
	resize <- WindowSize{Rows: 24, Cols: 80}
	signals <- "INT"
	close(resize)
	close(signals)
	if _, err := c.Exec(t.Context(), "t1", ExecRequest{}, Streams{Resize: resize, Signals: signals}); err != nil {
		t.Fatal(err)
	}
	all := <-got + " " + <-got
	if !strings.Contains(all, `3{"rows":24,"cols":80}`) || !strings.Contains(all, `6{"signal":"INT"}`) {
		t.Errorf("got %s", all)
	}
}

func TestExec_Fails_WithTheAgentsError(t *testing.T) {
	c := process(t, func(ctx context.Context, conn *websocket.Conn) {
		_, _, _ = conn.Read(ctx)
		say(ctx, conn, ChannelError, `{"status":400,"code":"invalid","detail":"no such user: bob"}`)
	})
	if _, err := c.Exec(t.Context(), "t1", ExecRequest{}, Streams{}); !HasCode(err, CodeInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestExec_Refused_BeforeTheWebSocket(t *testing.T) {
	c := answer(t, http.StatusConflict, `{"status":409,"code":"conflict","detail":"t1 is not running"}`)
	if _, err := c.Exec(t.Context(), "t1", ExecRequest{}, Streams{}); !HasCode(err, CodeConflict) {
		t.Errorf("got %v", err)
	}
}

func TestExec_NobodyListens_IsErrNoAgent(t *testing.T) {
	if _, err := NewClient(Socket(t.TempDir())).Exec(t.Context(), "t1", ExecRequest{}, Streams{}); !errors.Is(err, ErrNoAgent) {
		t.Errorf("got %v", err)
	}
}

func TestExec_ConnectionEnds_IsErrCut(t *testing.T) {
	for name, end := range map[string]func(*websocket.Conn){
		"closed": func(conn *websocket.Conn) { _ = conn.Close(websocket.StatusGoingAway, "") },
		"broken": func(conn *websocket.Conn) { _ = conn.CloseNow() },
	} {
		t.Run(name, func(t *testing.T) {
			c := process(t, func(_ context.Context, conn *websocket.Conn) { end(conn) })
			if _, err := c.Exec(t.Context(), "t1", ExecRequest{}, Streams{}); !errors.Is(err, ErrCut) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestExec_ContextEnds_ReturnsItsCause(t *testing.T) {
	started := make(chan struct{})
	c := process(t, func(ctx context.Context, conn *websocket.Conn) {
		close(started)
		for {
			if _, _, err := conn.Read(ctx); err != nil {
				return
			}
		}
	})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-started; cancel(cause) }()
	if _, err := c.Exec(ctx, "t1", ExecRequest{}, Streams{}); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestAttach_SendsNoRequest(t *testing.T) {
	c := process(t, func(ctx context.Context, conn *websocket.Conn) {
		if channel, text := hear(ctx, t, conn); channel != ChannelStdin || text != "" {
			t.Errorf("first message: %d %q", channel, text)
		}
		say(ctx, conn, ChannelStdout, "hello")
		say(ctx, conn, ChannelExit, `{"exit_code":0}`)
	})
	var stdout strings.Builder
	if code, err := c.Attach(t.Context(), "t1", Streams{Stdout: &stdout}); err != nil || code != 0 || stdout.String() != "hello" {
		t.Errorf("exit %d, %v, %q", code, err, stdout.String())
	}
}
