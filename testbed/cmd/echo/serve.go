package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// connections counts those that are open.
type connections struct{ n atomic.Int64 }

func (c *connections) count() int64 { return c.n.Load() }

// wait returns when none is open, or after limit.
func (c *connections) wait(limit time.Duration) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); c.count() > 0 && time.Now().Before(end); {
		<-tick.C
	}
}

// down says that somebody asks this container not to be ready.
func down() bool {
	folder := os.Getenv("DOWN")
	name, err := os.Hostname()
	if folder == "" || err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(folder, name))
	return err == nil
}

// newServer answers HTTP requests. Once stop is done every answer is the last
// one of its connection: a client that hears so does not send its next request
// into a connection that is being closed.
func newServer(stop context.Context, version string, bad *badness, open *connections) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if bad.unready() || down() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if bad.failing() {
			http.Error(w, version+" is bad", http.StatusInternalServerError)
			return
		}
		if stop.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		fmt.Fprintf(w, "%s %s %s\n", version, r.RemoteAddr, r.URL.Path[1:])
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: time.Minute,
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				open.n.Add(1)
			case http.StateClosed, http.StateHijacked:
				open.n.Add(-1)
			case http.StateActive, http.StateIdle:
			}
		},
	}
}

func answerLines(l net.Listener, version string, open *connections) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		open.n.Add(1)
		go func() {
			defer open.n.Add(-1)
			defer c.Close()
			lines := bufio.NewScanner(c)
			for lines.Scan() {
				if _, err := fmt.Fprintf(c, "%s %s %s\n", version, c.RemoteAddr(), lines.Text()); err != nil {
					return
				}
			}
		}()
	}
}

func answerDatagrams(c net.PacketConn, version string) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(fmt.Appendf(nil, "%s %s %s", version, from, b[:n]), from) // who gets none asks again
	}
}
