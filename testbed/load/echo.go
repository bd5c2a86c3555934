package load

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"
)

// stream is one TCP session after another.
func (l *Load) stream(ctx context.Context, t *Target, session time.Duration) {
	for pause(ctx, 0, 200*time.Millisecond) {
		begin := time.Now()
		if err := l.session(ctx, t, begin.Add(between(session/2, session))); err != nil {
			l.failure(Streams, t, begin, err)
		}
	}
}

// session sends a line every 50 ms. All of them are answered by one process:
// another version's answer would be another connection's.
func (l *Load) session(ctx context.Context, t *Target, end time.Time) error {
	dialing, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerLimit)
	defer cancel()
	c, err := t.From.DialContext(dialing, "tcp", t.TCP)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	first := ""
	for i := 0; time.Now().Before(end); i++ {
		begin := time.Now()
		c.SetDeadline(begin.Add(answerLimit))
		message := fmt.Sprintf("line %d", i)
		if _, err := fmt.Fprintln(c, message); err != nil {
			return fmt.Errorf("send line %d: %w", i, err)
		}
		answer, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read line %d: %w", i, err)
		}
		version, err := t.check(answer, message)
		if err != nil {
			return err
		}
		if i == 0 {
			first = version
		}
		if version != first {
			return fmt.Errorf("a session with %s is answered by %s", first, version)
		}
		l.ok(Streams, t, version, begin)
		if !pause(ctx, 50*time.Millisecond, 50*time.Millisecond) {
			return nil
		}
	}
	return nil
}

// datagrams asks ten times a second, from one socket or from a new one each.
func (l *Load) datagrams(ctx context.Context, t *Target, one bool) {
	var c net.Conn
	for i := 0; pause(ctx, 80*time.Millisecond, 120*time.Millisecond); i++ {
		begin := time.Now()
		if c == nil {
			var err error
			if c, err = t.From.DialContext(context.WithoutCancel(ctx), "udp", t.UDP); err != nil {
				l.failure(Datagrams, t, begin, err)
				continue
			}
		}
		version, err := t.datagram(c, fmt.Sprintf("datagram %d", i))
		if err != nil {
			// A late answer must not be taken for the next one's: begin anew.
			l.failure(Datagrams, t, begin, fmt.Errorf("%w (from %s, one socket: %t)", err, c.LocalAddr(), one))
		} else {
			l.ok(Datagrams, t, version, begin)
		}
		if err != nil || !one {
			c.Close()
			c = nil
		}
	}
	if c != nil {
		c.Close()
	}
}

// datagram asks once and does not ask again.
func (t *Target) datagram(c net.Conn, message string) (version string, err error) {
	c.SetDeadline(time.Now().Add(datagramLimit))
	if _, err := c.Write([]byte(message)); err != nil {
		return "", err
	}
	b := make([]byte, 1500)
	n, err := c.Read(b)
	if err != nil {
		return "", err
	}
	return t.check(string(b[:n]), message)
}
