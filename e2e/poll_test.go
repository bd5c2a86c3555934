package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// eventually tries check until it succeeds, at most for limit, and returns
// how long that took.
func eventually(t *testing.T, limit time.Duration, check func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		took := time.Since(begin)
		switch {
		case err == nil:
			return took
		case took > limit:
			t.Fatalf("not so within %s: %v", limit, err)
		}
		<-tick.C
	}
}

// fetch makes a connection of its own: another one may lead elsewhere.
func fetch(target string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(target)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", target, resp.Status, body)
	}
	return string(body), nil
}

// load is a steady stream of requests, each on a connection of its own.
type load struct {
	stop   chan struct{}
	done   sync.WaitGroup
	mu     sync.Mutex
	served map[string]int // by answer
	failed []string
}

// pound starts a load of 400 requests a second on target. It goes on until end.
func pound(t *testing.T, target string) *load {
	t.Helper()
	return begin(t, target, 4, 10*time.Millisecond)
}

// trickle is a load that leaves the machine to the agents: 50 requests a second.
func trickle(t *testing.T, target string) *load {
	t.Helper()
	return begin(t, target, 1, 20*time.Millisecond)
}

// begin starts a load in which each of the workers asks at most once in every.
func begin(t *testing.T, target string, workers int, every time.Duration) *load {
	t.Helper()
	l := &load{stop: make(chan struct{}), served: map[string]int{}}
	for range workers {
		l.done.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-l.stop:
					return
				case <-tick.C:
				}
				l.ask(target)
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// ask makes one request and notes how it went.
func (l *load) ask(target string) {
	begin := time.Now()
	body, err := fetch(target)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = append(l.failed, fmt.Sprintf("%s: after %s: %v", begin.Format("15:04:05.000"), time.Since(begin), err))
		return
	}
	l.served[body]++
}

func (l *load) end() {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	l.done.Wait()
}

// answers gives how often each answer came.
func (l *load) answers() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int{}
	for k, n := range l.served {
		out[k] = n
	}
	return out
}

// failures gives what went wrong.
func (l *load) failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// growing is output that is read while it is written.
type growing struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (g *growing) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(b)
}

func (g *growing) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.String()
}
