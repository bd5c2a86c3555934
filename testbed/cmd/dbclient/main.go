// Command dbclient is a service that needs a database: each HTTP request
// (:8080) asks it something, and is answered with
//
//	USER CLIENT-ADDRESS MESSAGE
//
// where USER is whom the database took it for. The file LOGIN (an environment
// variable) has its login, a URL of postgres. It is read at the start and on
// SIGHUP. Connections to the database live for half a second, so the login is
// used all the time.
//
//	dbclient            serve
//	dbclient -check     be the health test of a container that has no shell
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	_ "github.com/lib/pq" // the driver of database.open
)

func main() {
	check := flag.Bool("check", false, "ask the running service whether it is well")
	flag.Parse()
	run := serve
	if *check {
		run = healthy
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dbclient:", err)
		os.Exit(1)
	}
}

// database is the connections with the login that was read last.
type database struct {
	file string

	mu sync.RWMutex // held by those who ask
	db *sql.DB
}

// open reads the login and asks with it from now on. Whoever asks already ends
// with the former one.
func (d *database) open() error {
	login, err := os.ReadFile(d.file)
	if err != nil {
		return err
	}
	next, err := sql.Open("postgres", strings.TrimSpace(string(login)))
	if err != nil {
		return errors.New("the login is no URL of postgres") // the error may quote it
	}
	next.SetConnMaxLifetime(500 * time.Millisecond)
	next.SetMaxOpenConns(4)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db != nil {
		_ = d.db.Close() // nobody uses it any more
	}
	d.db = next
	return nil
}

func (d *database) user(ctx context.Context) (user string, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return user, d.db.QueryRowContext(ctx, "SELECT current_user").Scan(&user)
}

func serve() error {
	d := &database{file: os.Getenv("LOGIN")}
	if err := d.open(); err != nil {
		return err
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	srv := &http.Server{Addr: ":8080", Handler: routes(d), ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- srv.ListenAndServe() }()
	for {
		select {
		case <-again:
			if err := d.open(); err != nil {
				fmt.Println("dbclient: the former login stays:", err)
				continue
			}
			fmt.Println("dbclient: has read the login again")
		case err := <-ended:
			return err
		case <-stop.Done():
			ctx, end := context.WithTimeout(context.Background(), 3*time.Second)
			defer end()
			return srv.Shutdown(ctx)
		}
	}
}

func routes(d *database) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 4*time.Second)
		defer cancel()
		user, err := d.user(ctx)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "%s %s %s\n", user, r.RemoteAddr, r.URL.Path[1:])
	})
	return mux
}

// healthy is the container's health test: it is well if the database answers.
func healthy() error {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://127.0.0.1:8080/health")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}
