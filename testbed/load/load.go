package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Dialer opens connections somewhere; net.Dialer does so here.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Target is a service as seen from one place.
type Target struct {
	Name string
	From Dialer
	HTTP string // HOST:PORT; the host is an address
	TCP  string
	UDP  string
	// Source is the client's address that the service must see; if it is not
	// valid the service may see any.
	Source netip.Addr
}

// Clients says how many of each kind there are, over all targets.
type Clients struct {
	Requests  int           // a second
	Kept      int           // clients
	Streams   int           // clients, one session after another
	Session   time.Duration // the longest session; the shortest is half of it
	Datagrams int           // clients, some ten requests a second each
}

// Load is clients at work.
type Load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	samples map[Kind][]Sample
	failed  []Failure
	answers map[string]map[string]int
	reopens int
}

// Limits of one answer.
const (
	answerLimit   = 5 * time.Second
	datagramLimit = time.Second
)

// Start lets the clients begin. They are spread evenly over the targets.
func Start(targets []Target, c Clients) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{cancel: cancel, samples: map[Kind][]Sample{}, answers: map[string]map[string]int{}}
	l.done.Go(func() { l.requests(ctx, targets, c.Requests) })
	each := func(n int, client func(*Target, int)) {
		for i := range n {
			t := &targets[i%len(targets)]
			l.done.Go(func() { client(t, i/len(targets)) })
		}
	}
	each(c.Kept, func(t *Target, _ int) { l.keep(ctx, t) })
	each(c.Streams, func(t *Target, _ int) { l.stream(ctx, t, c.Session) })
	each(c.Datagrams, func(t *Target, i int) { l.datagrams(ctx, t, i%2 == 0) })
	return l
}

// Stop lets the clients finish what they began and returns what they saw.
func (l *Load) Stop() *Result {
	l.cancel()
	l.done.Wait()
	return l.Result()
}

// check looks at an answer, VERSION CLIENT-ADDRESS MESSAGE, and returns the
// version.
func (t *Target) check(answer, message string) (string, error) {
	fields := strings.SplitN(strings.TrimSuffix(answer, "\n"), " ", 3)
	if len(fields) != 3 || fields[2] != message {
		return "", fmt.Errorf("the answer to %q is %q", message, answer)
	}
	if !t.Source.IsValid() {
		return fields[0], nil
	}
	seen, err := netip.ParseAddrPort(fields[1])
	if err != nil {
		return "", fmt.Errorf("the answer to %q is %q: %w", message, answer, err)
	}
	if seen.Addr().Unmap() != t.Source {
		return "", fmt.Errorf("the service sees %s as the client, want %s", seen.Addr(), t.Source)
	}
	return fields[0], nil
}

// pause waits for a time between least and most; false: it is over.
func pause(ctx context.Context, least, most time.Duration) bool {
	timer := time.NewTimer(between(least, most))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func between(least, most time.Duration) time.Duration {
	return least + rand.N(most-least+1)
}
