package load

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Kind is a kind of client.
type Kind string

// The kinds of clients, in the order of reports.
const (
	Requests  Kind = "requests"
	Kept      Kind = "kept"
	Streams   Kind = "streams"
	Datagrams Kind = "datagrams"
)

// Kinds are all of them.
var Kinds = []Kind{Requests, Kept, Streams, Datagrams}

// Sample is one answer; of a request in the open loop, Took counts from when
// it was due.
type Sample struct {
	At   time.Time // when it was asked for
	Took time.Duration
}

// Failure is one request without the right answer.
type Failure struct {
	At     time.Time // when it failed
	Took   time.Duration
	Kind   Kind
	Target string
	Err    error
}

func (f Failure) String() string {
	return fmt.Sprintf("%s %s %s after %.3f s: %v", f.At.Format("15:04:05.000"), f.Kind, f.Target, f.Took.Seconds(), f.Err)
}

// Result is what the clients saw until now.
type Result struct {
	Samples map[Kind][]Sample
	Failed  []Failure // in order of time
	// Answers counts by target and version.
	Answers map[string]map[string]int
	// Reopens is how often a kept connection ended between two requests.
	Reopens int
}

// Result is what the clients saw until now. They go on.
func (l *Load) Result() *Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &Result{Samples: map[Kind][]Sample{}, Failed: slices.Clone(l.failed), Answers: map[string]map[string]int{}, Reopens: l.reopens}
	for k, s := range l.samples {
		r.Samples[k] = slices.Clone(s)
	}
	for t, versions := range l.answers {
		r.Answers[t] = maps.Clone(versions)
	}
	return r
}

// Answers counts the answers of a version until now, from all targets.
func (l *Load) Answers(version string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, versions := range l.answers {
		n += versions[version]
	}
	return n
}

// Failures is how many requests failed until now.
func (l *Load) Failures() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.failed)
}

// FailedOf counts the failures of a kind.
func (r *Result) FailedOf(k Kind) int {
	n := 0
	for _, f := range r.Failed {
		if f.Kind == k {
			n++
		}
	}
	return n
}

// ok notes an answer.
func (l *Load) ok(k Kind, t *Target, version string, begin time.Time) {
	took := time.Since(begin)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples[k] = append(l.samples[k], Sample{begin, took})
	if l.answers[t.Name] == nil {
		l.answers[t.Name] = map[string]int{}
	}
	l.answers[t.Name][version]++
}

// failure notes that there was none, or a wrong one.
func (l *Load) failure(k Kind, t *Target, begin time.Time, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, Failure{now, now.Sub(begin), k, t.Name, err})
}

func (l *Load) reopened() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reopens++
}
