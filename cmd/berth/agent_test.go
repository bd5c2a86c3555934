package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"berth/api"
)

// scriptedAgent answers on a unix socket with files: the answer to
// the n-th "GET /v1/stacks/shop" is the file GET/v1/stacks/shop.n below dir
// or, if there is none, the one with the next lower number. A line that begins
// with @ is a direction:
//
//	@status 409       the status, before anything else
//	@until PATH       wait until that request was seen, such as
//	                  "POST /v1/stacks/shop/action"
//	@hang             keep the answer open until the client goes away
//	@cut              break the connection
//
// exec and attach run a process of their own kind: see process.
type scriptedAgent struct {
	dir string

	mu    sync.Mutex
	seen  []string       // "METHOD PATH?QUERY BODY"
	count map[string]int // by "METHOD PATH"
	news  chan struct{}  // closed and replaced with each request
}

// startAgent serves the files below dir on run/api.sock until stop is called.
func startAgent(dir, run string) (agent *scriptedAgent, stop func(), err error) {
	a := &scriptedAgent{dir: dir, count: map[string]int{}, news: make(chan struct{})}
	if err := os.MkdirAll(run, 0o755); err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("unix", api.Socket(run))
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{Handler: a, ReadHeaderTimeout: time.Minute}
	go server.Serve(l) // it ends with Close
	return a, func() { server.Close() }, nil
}

func (a *scriptedAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	path := a.note(r, body)
	if strings.HasSuffix(r.URL.Path, "/exec") {
		process(w, r, func(command string) { a.add(r.Method + " " + r.URL.Path + " " + command) })
		return
	}
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		a.play(w, r, text)
	case r.URL.Path == "/v1/info":
		fmt.Fprint(w, `{"version":"v1.2.3","api":1,"pid":4711,"runtime":"crun","root":"/r","run":"/s"}`)
	default:
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"status":404,"code":"not_found","detail":"no such thing: %s %s"}`, r.Method, r.URL.Path)
	}
}

// note records the request and gives the file that answers it.
func (a *scriptedAgent) note(r *http.Request, body []byte) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := r.Method + " " + r.URL.Path
	a.count[key]++
	line := key
	if r.URL.RawQuery != "" {
		query, _ := url.QueryUnescape(r.URL.RawQuery)
		line += "?" + query
	}
	if r.URL.Path != "/v1/info" {
		a.seen = append(a.seen, strings.TrimSpace(line+" "+string(body)))
		a.tell()
	}

	file := filepath.Join(a.dir, r.Method, filepath.FromSlash(r.URL.Path))
	for n := a.count[key]; n > 0; n-- {
		if numbered := file + "." + strconv.Itoa(n); exists(numbered) {
			return numbered
		}
	}
	return ""
}

// add records something that happened as if it had been a request.
func (a *scriptedAgent) add(line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, line)
	a.tell()
}

// tell wakes whoever awaits a request; a.mu is held.
func (a *scriptedAgent) tell() {
	close(a.news)
	a.news = make(chan struct{})
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// requests are those seen so far that contain text.
func (a *scriptedAgent) requests(text string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []string
	for _, line := range a.seen {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// await returns when a request that contains text was seen.
func (a *scriptedAgent) await(ctx context.Context, text string) error {
	for {
		a.mu.Lock()
		news := a.news
		a.mu.Unlock()
		if len(a.requests(text)) > 0 {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("no request %q: %w", text, context.Cause(ctx))
		}
	}
}

// play answers with the lines of a file.
func (a *scriptedAgent) play(w http.ResponseWriter, r *http.Request, text []byte) {
	flush := http.NewResponseController(w)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		direction, argument, _ := strings.Cut(lines.Text(), " ")
		switch direction {
		case "@status":
			status, _ := strconv.Atoi(argument)
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
		case "@until":
			if a.await(r.Context(), argument) != nil {
				return
			}
		case "@hang":
			<-r.Context().Done()
			return
		case "@cut":
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprintln(w, lines.Text())
		}
		if err := flush.Flush(); err != nil {
			return
		}
	}
}

// process is what exec runs: it prints its request on stderr, repeats its
// stdin on stdout, and exits with the number that is its last argument. The
// argument "sleep" makes it wait for a signal and exit 128 + 15. On a terminal
// it tells each size that it gets and ends when a q is typed.
func process(w http.ResponseWriter, r *http.Request, began func(command string)) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow() // a test's end
	ctx := r.Context()
	_, first, err := conn.Read(ctx)
	if err != nil {
		return
	}
	send := func(channel byte, data []byte) {
		_ = conn.Write(ctx, websocket.MessageBinary, append([]byte{channel}, data...))
	}
	var req api.ExecRequest
	if err := json.Unmarshal(first, &req); err != nil {
		send(api.ChannelError, []byte(`{"detail":"bad request"}`))
		return
	}
	if req.Args[0] == "missing" {
		send(api.ChannelError, []byte(`{"status":400,"detail":"exec: \"missing\": executable file not found in $PATH","hint":"berth exec web sh"}`))
		return
	}
	send(api.ChannelStderr, append(first, '\n'))
	began(req.Args[0])
	code := 0
	if n, err := strconv.Atoi(req.Args[len(req.Args)-1]); err == nil {
		code = n
	}
	for !req.Detach {
		_, message, err := conn.Read(ctx)
		if err != nil {
			return
		}
		switch {
		case message[0] == api.ChannelResize:
			send(api.ChannelStdout, append(message[1:], '\n'))
			continue
		case message[0] == api.ChannelStdin && req.TTY && bytes.Contains(message, []byte("q")):
		case message[0] == api.ChannelStdin && len(message) > 1:
			send(api.ChannelStdout, message[1:])
			continue
		case message[0] == api.ChannelStdin && req.Args[0] == "sleep":
			continue
		case message[0] == api.ChannelSignaled:
			send(api.ChannelStdout, append(message[1:], '\n'))
			code = 143
		}
		break
	}
	send(api.ChannelExit, fmt.Appendf(nil, `{"exit_code":%d}`, code))
	_ = conn.Close(websocket.StatusNormalClosure, "")
}
