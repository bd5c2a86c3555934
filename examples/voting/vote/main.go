// Command vote is the front of the voting example: a page with two buttons.
// A vote goes into a Redis list and is counted by the worker.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"berth/examples/resp"
	"berth/examples/voting/ballot"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	queue := resp.New(cmp.Or(os.Getenv("REDIS"), "redis:6379"), "")
	srv := &http.Server{Addr: ":80", Handler: routes(queue), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			log.Print("vote: shut down: ", err)
		}
	})
	log.Print("vote: listening on ", srv.Addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Print("vote: ", err)
	}
}

func routes(queue *resp.Client) http.Handler {
	host, _ := os.Hostname()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		show(w, host, "")
	})
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		choice := r.PostFormValue("vote")
		if _, ok := ballot.Choices[choice]; !ok {
			http.Error(w, fmt.Sprintf("vote %q is none of the choices", choice), http.StatusBadRequest)
			return
		}
		if err := cast(r.Context(), queue, ballot.Vote{Voter: voter(w, r), Choice: choice}); err != nil {
			log.Print("vote: ", err)
			http.Error(w, "the vote could not be taken", http.StatusBadGateway)
			return
		}
		show(w, host, choice)
	})
	return mux
}

func cast(ctx context.Context, queue *resp.Client, v ballot.Vote) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a vote: %w", err)
	}
	_, err = queue.Do(ctx, "RPUSH", ballot.Queue, string(b))
	return err
}

// voter knows a browser again by a cookie.
func voter(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie("voter_id"); err == nil && len(c.Value) <= 64 {
		return c.Value
	}
	id := rand.Text()
	http.SetCookie(w, &http.Cookie{Name: "voter_id", Value: id, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return id
}

func show(w http.ResponseWriter, host, voted string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	err := page.Execute(w, map[string]any{"Choices": ballot.Choices, "Host": host, "Voted": voted})
	if err != nil {
		log.Print("vote: write the page: ", err)
	}
}
