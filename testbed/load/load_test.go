package load

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// serve answers as testbed/cmd/echo does. mend, if not nil, sees each HTTP
// request first and says whether it answered.
func serve(t *testing.T, mend func(http.ResponseWriter, *http.Request) bool) Target {
	t.Helper()
	requests, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if mend == nil || !mend(w, r) {
			fmt.Fprintf(w, "v1 %s %s\n", r.RemoteAddr, r.URL.Path[1:])
		}
	})}
	go srv.Serve(requests)
	t.Cleanup(func() { srv.Close() })
	lines, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lines.Close() })
	go func() {
		for {
			c, err := lines.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					fmt.Fprintf(c, "v1 %s %s\n", c.RemoteAddr(), s.Text())
				}
			}()
		}
	}()
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { datagrams.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := datagrams.ReadFrom(b)
			if err != nil {
				return
			}
			datagrams.WriteTo(fmt.Appendf(nil, "v1 %s %s", from, b[:n]), from)
		}
	}()
	return Target{
		Name: "here", From: &net.Dialer{}, Source: netip.MustParseAddr("127.0.0.1"),
		HTTP: requests.Addr().String(), TCP: lines.Addr().String(), UDP: datagrams.LocalAddr().String(),
	}
}

// until works the clients until enough is so.
func until(t *testing.T, target Target, c Clients, enough func(*Result) bool) *Result {
	t.Helper()
	l := Start([]Target{target}, c)
	defer l.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if r := l.Result(); enough(r) {
			return l.Stop()
		}
	}
	t.Fatalf("it never came so far: %+v", l.Result())
	return nil
}

func TestLoad_AllIsWell_EveryKindGetsAnswers(t *testing.T) {
	target := serve(t, nil)
	r := until(t, target, Clients{Requests: 100, Kept: 4, Streams: 2, Session: 200 * time.Millisecond, Datagrams: 2}, func(r *Result) bool {
		return !slices.ContainsFunc(Kinds, func(k Kind) bool { return len(r.Samples[k]) < 10 })
	})
	if len(r.Failed) > 0 {
		t.Errorf("%v", r.Failed)
	}
	n := 0
	for _, samples := range r.Samples {
		n += len(samples)
	}
	if got := r.Answers["here"]["v1"]; got != n {
		t.Errorf("%d answers of v1, want %d", got, n)
	}
}

func TestLoad_WrongAnswers_AreFailuresOfTheirKind(t *testing.T) {
	target := serve(t, nil)
	target.Source = netip.MustParseAddr("192.0.2.7")
	r := until(t, target, Clients{Requests: 50, Kept: 1, Streams: 1, Session: time.Second, Datagrams: 2}, func(r *Result) bool {
		return !slices.ContainsFunc(Kinds, func(k Kind) bool { return r.FailedOf(k) == 0 })
	})
	if want := "the service sees 127.0.0.1 as the client, want 192.0.2.7"; !strings.Contains(r.Failed[0].String(), want) {
		t.Errorf("got %s, want %s", r.Failed[0], want)
	}
	if n := len(r.Samples[Requests]); n > 0 {
		t.Errorf("%d of the answers count as right", n)
	}
}

func TestLoad_StatusOtherThan200_IsAFailure(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "bad", http.StatusInternalServerError)
		return true
	})
	r := until(t, target, Clients{Requests: 50}, func(r *Result) bool { return len(r.Failed) > 0 })
	if got := r.Failed[0].Err.Error(); got != "500 Internal Server Error: bad" {
		t.Errorf("got %q", got)
	}
}

func TestLoad_KeptConnectionCutIntoARequest_IsAFailure(t *testing.T) {
	n := 0
	target := serve(t, func(w http.ResponseWriter, _ *http.Request) bool {
		if n++; n < 2 {
			return false
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return false
		}
		c.Close()
		return true
	})
	r := until(t, target, Clients{Kept: 1}, func(r *Result) bool { return len(r.Failed) > 0 })
	if r.Failed[0].Kind != Kept || len(r.Samples[Kept]) != 1 {
		t.Errorf("got %v and %d answers", r.Failed, len(r.Samples[Kept]))
	}
}

func TestLoad_KeptConnectionClosedWhileIdle_IsOpenedAgain(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		c, b, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return false
		}
		body := fmt.Sprintf("v1 %s %s\n", r.RemoteAddr, r.URL.Path[1:])
		fmt.Fprintf(b, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		b.Flush()
		c.Close()
		return true
	})
	r := until(t, target, Clients{Kept: 2}, func(r *Result) bool { return r.Reopens > 3 })
	if len(r.Failed) > 0 {
		t.Errorf("%v", r.Failed)
	}
}
