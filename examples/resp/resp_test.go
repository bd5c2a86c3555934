package resp

import (
	"bufio"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead_EveryKindOfReply(t *testing.T) {
	for _, c := range []struct {
		name, wire string
		want       any
		err        string
	}{
		{"simple", "+PONG\r\n", "PONG", ""},
		{"integer", ":42\r\n", int64(42), ""},
		{"bulk with a newline inside", "$5\r\na\r\nbc\r\n", "a\r\nbc", ""},
		{"nil", "$-1\r\n", nil, "nil reply"},
		{"array with a nil", "*3\r\n$1\r\na\r\n$-1\r\n:2\r\n", []any{"a", nil, int64(2)}, ""},
		{"server error", "-ERR wrong type\r\n", nil, "ERR wrong type"},
		{"cut off", "$5\r\nab", nil, "unexpected EOF"},
		{"not a number", "$x\r\n", nil, `reply "$x"`},
		{"unknown kind", "!3\r\n", nil, "unknown kind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := read(bufio.NewReader(strings.NewReader(c.wire)))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDo_ConnectionBreaks_NextCommandConnectsAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for first := true; ; first = false {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 256)
			if _, err := conn.Read(buf); err == nil && !first {
				_, _ = conn.Write([]byte("+PONG\r\n"))
			}
			conn.Close()
		}
	}()
	c := New(l.Addr().String(), "")
	if _, err := c.Do(t.Context(), "PING"); err == nil {
		t.Fatal("the first command succeeded although the server hung up")
	}
	got, err := c.Do(t.Context(), "PING")
	if err != nil || got != "PONG" {
		t.Fatalf("got %v, %v after the connection broke", got, err)
	}
}

func TestDo_ServerReplysError_KeepsConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, 256)
		for _, answer := range []string{"-WRONGTYPE no list\r\n", "$-1\r\n", ":1\r\n"} {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			_, _ = conn.Write([]byte(answer))
		}
		l.Close() // a second connection would fail
	}()
	c := New(l.Addr().String(), "")
	if _, err := c.Do(t.Context(), "LPUSH", "k", "v"); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Fatalf("got %v", err)
	}
	if _, err := c.Do(t.Context(), "GET", "k"); !errors.Is(err, ErrNil) {
		t.Fatalf("got %v, want ErrNil", err)
	}
	if got, err := c.Do(t.Context(), "INCR", "k"); err != nil || got != int64(1) {
		t.Fatalf("got %v, %v on the same connection", got, err)
	}
}
