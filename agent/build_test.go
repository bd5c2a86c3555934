package agent

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"berth/api"
)

func TestOfferSSH_QuestionsOfABuilder_ReachTheClientsAgent(t *testing.T) {
	run := t.TempDir()
	if err := os.Mkdir(filepath.Join(run, "build"), 0o700); err != nil {
		t.Fatal(err)
	}
	a := &Agent{cfg: Config{Run: run}, log: slog.New(slog.DiscardHandler)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/build/ssh", a.offerSSH)
	server := httptest.NewUnstartedServer(mux)
	server.Listener.Close()
	server.Listener = listenUnix(t, Socket(run))
	server.Start()
	t.Cleanup(server.Close)

	keys := filepath.Join(t.TempDir(), "keys.sock")
	go answerSSH(listenUnix(t, keys))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	name, err := api.NewClient(Socket(run)).OfferSSH(ctx, keys)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := a.sshSocket(name)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // builders come and go
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		for _, question := range []string{"who are you", "sign this"} {
			if err := api.WriteSSH(conn, []byte(question)); err != nil {
				t.Fatal(err)
			}
			if answer, err := api.ReadSSH(conn); err != nil || string(answer) != "re: "+question {
				t.Fatalf("answer %q, %v", answer, err)
			}
		}
		conn.Close()
	}
	for _, bad := range []string{"", "../../x", name + "x"} {
		if _, err := a.sshSocket(bad); err == nil {
			t.Errorf("there is a socket %q", bad)
		}
	}
}

func listenUnix(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// answerSSH is an SSH agent that repeats what it is asked.
func answerSSH(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		question, err := api.ReadSSH(conn)
		if err == nil {
			_ = api.WriteSSH(conn, append([]byte("re: "), question...)) // the test fails without it
		}
		conn.Close()
	}
}
