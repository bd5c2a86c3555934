// Command web counts visits in Redis and says which replica answered.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"berth/examples/resp"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 && os.Args[1] == "healthcheck" {
		os.Exit(healthcheck())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	if err := run(ctx); err != nil {
		stop()
		log.Fatal("web: ", err)
	}
	stop()
}

func run(ctx context.Context) error {
	password, err := secret("store_password")
	if err != nil {
		return err
	}
	store := resp.New(cmp.Or(os.Getenv("STORE"), "store:6379"), password)
	srv := &http.Server{Addr: ":8080", Handler: routes(store), ReadHeaderTimeout: 5 * time.Second}
	// Requests that are under way when the stop signal comes are finished.
	done := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			log.Print("web: shut down: ", err)
		}
	})
	defer done()
	log.Print("web: listening on ", srv.Addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func routes(store *resp.Client) http.Handler {
	host, _ := os.Hostname()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		visits, err := store.Do(r.Context(), "INCR", "visits")
		if err != nil {
			log.Print("web: ", err)
			http.Error(w, "the store does not answer", http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "Hello from %s. You are visitor %d.\n", host, visits)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if _, err := store.Do(r.Context(), "PING"); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// secret reads a Compose secret; the service has none when it is not there.
func secret(name string) (string, error) {
	b, err := os.ReadFile("/run/secrets/" + name)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read secret %s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// healthcheck is what the container's health test runs: the image has no curl.
func healthcheck() int {
	resp, err := http.Get("http://127.0.0.1:8080/healthz")
	if err != nil {
		log.Print(err)
		return 1
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		log.Print(resp.Status)
		return 1
	}
	return 0
}
