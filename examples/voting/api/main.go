// Command api shows the result of the vote as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"berth/examples/voting/ballot"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	if err := run(ctx); err != nil && ctx.Err() == nil {
		stop()
		log.Fatal("api: ", err)
	}
	stop()
}

func run(ctx context.Context) error {
	table, err := ballot.Open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer table.Close()
	srv := &http.Server{Addr: ":80", Handler: routes(table), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			log.Print("api: shut down: ", err)
		}
	})
	log.Print("api: listening on ", srv.Addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func routes(table *ballot.Table) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		result, err := table.Result(r.Context())
		if err != nil {
			log.Print("api: ", err)
			http.Error(w, "the database does not answer", http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(result); err != nil {
			log.Print("api: write the result: ", err)
		}
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := table.Ping(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}
