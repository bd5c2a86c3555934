package main

import (
	"fmt"
	"os"
	"time"
)

// badness says how the service misbehaves by now.
type badness struct {
	never bool      // never ready
	after time.Time // from then on unhealthy; zero: never
	deaf  bool      // to SIGTERM
}

// misbehave begins one of:
//
//	crash-now         exit 3 before listening
//	crash-5s          exit 3 after 5 s
//	never-ready       /healthz answers 503 for ever
//	unhealthy-later   after 5 s /healthz answers 503, everything else 500
//	oom               use all the memory there is, from 1 s after the start
//	deaf              go on after SIGTERM
//
// "" is none of them; anything else is a mistake of the test.
func misbehave(kind string) *badness {
	switch kind {
	case "":
	case "crash-now":
		crash()
	case "crash-5s":
		time.AfterFunc(5*time.Second, crash)
	case "never-ready":
		return &badness{never: true}
	case "unhealthy-later":
		return &badness{after: time.Now().Add(5 * time.Second)}
	case "deaf":
		return &badness{deaf: true}
	case "oom":
		time.AfterFunc(time.Second, devour)
	default:
		fmt.Fprintf(os.Stderr, "echo: BAD=%q is unknown\n", kind)
		os.Exit(64)
	}
	return &badness{}
}

func (b *badness) failing() bool { return !b.after.IsZero() && time.Now().After(b.after) }

func (b *badness) unready() bool { return b.never || b.failing() }

func crash() {
	fmt.Fprintln(os.Stderr, "boom: bad version")
	os.Exit(3)
}

// devour takes 8 MiB of memory, 20 times a second, up to 4 GiB: a container
// without a limit must not take the machine down.
func devour() {
	fmt.Fprintln(os.Stderr, "echo: devouring memory")
	tick := time.NewTicker(50 * time.Millisecond)
	var held [][]byte
	for range 512 {
		b := make([]byte, 8<<20)
		for i := range b {
			b[i] = 1
		}
		held = append(held, b)
		<-tick.C
	}
	fmt.Fprintln(os.Stderr, "echo: nobody minds", len(held)*8, "MiB")
	os.Exit(3)
}
