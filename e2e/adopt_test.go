package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/testbed"
	"berth/testbed/fixture"
)

// engine is a Docker that has one project: db with a volume, web that needs
// it. Nothing runs in it; it notes what it is asked to do.
type engine struct {
	containers []map[string]any
	volume     string // where shop_data lies
	archive    string // what every image is

	mu   sync.Mutex
	seen []string
}

func (e *engine) note(text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, text)
}

func (e *engine) asked() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.seen, " ")
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/containers/json" && strings.Contains(r.URL.Query().Get("filters"), "project=shop"):
		_ = json.NewEncoder(w).Encode(e.containers) // the test sees a short answer
	case r.URL.Path == "/containers/json":
		fmt.Fprint(w, "[]")
	case r.URL.Path == "/volumes":
		fmt.Fprintf(w, `{"Volumes":[{"Name":"shop_data","Driver":"local","Mountpoint":%q}]}`, e.volume)
	case strings.HasPrefix(r.URL.Path, "/images/"):
		e.note("save")
		http.ServeFile(w, r, e.archive)
	case r.Method == http.MethodPost:
		parts := strings.Split(r.URL.Path, "/")
		e.note(parts[3] + ":" + parts[2])
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

// newEngine serves a project whose web runs command.
func newEngine(t *testing.T, command string) (e *engine, host string) {
	t.Helper()
	dir := t.TempDir()
	cache, err := fixture.Open()
	if err != nil {
		t.Fatal(err)
	}
	archive, err := cache.Archive(t.Context(), "busybox")
	if err != nil {
		t.Fatal(err)
	}
	e = &engine{volume: filepath.Join(dir, "volumes", "shop_data", "_data"), archive: archive}
	if err := os.MkdirAll(e.volume, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.volume, "kept"), []byte("of Docker's time"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "compose.yaml")
	text := `services:
  db: {image: "busybox", command: "sleep 1000", stop_signal: KILL, volumes: ["data:/data"], deploy: {update_config: {monitor: 200ms}}}
  web:
    image: busybox
    command: ` + command + `
    stop_signal: KILL
    depends_on: [db]
    deploy: {restart_policy: {condition: none}, update_config: {monitor: 200ms}}
volumes: {data: {}}
`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"web", "db"} {
		e.containers = append(e.containers, map[string]any{
			"Id": service + "0123", "Names": []string{"/shop-" + service + "-1"}, "Image": "busybox", "State": "running",
			"Labels": map[string]string{
				"com.docker.compose.project": "shop", "com.docker.compose.service": service, "com.docker.compose.oneoff": "False",
				"com.docker.compose.project.config_files": file, "com.docker.compose.project.working_dir": dir,
			},
		})
	}
	socket := filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
	go server.Serve(l) // it ends with Close
	t.Cleanup(func() { server.Close() })
	return e, "unix://" + socket
}

func TestAdopt_OneServiceAfterTheOther_DataStaysWhereItIs(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	e, host := newEngine(t, "sleep 1000")
	t.Setenv("DOCKER_HOST", host)

	if out := m.must(t, "--dry-run", "adopt", "shop"); !strings.Contains(out, "shop_data") || e.asked() != "" {
		t.Fatalf("a dry run asked for %q and printed\n%s", e.asked(), out)
	}
	m.must(t, "adopt", "-y", "shop")
	if want := "save stop:db0123 update:db0123 stop:web0123 update:web0123"; e.asked() != want {
		t.Errorf("asked %q, want %q", e.asked(), want)
	}
	if out := m.must(t, "-p", "shop", "exec", "-T", "db", "sh", "-c", "cat /data/kept; echo more > /data/new"); out != "of Docker's time" {
		t.Errorf("the volume holds %q", out)
	}
	// The same file, by hand, changes nothing; down never deletes Docker's data.
	file := e.containers[0]["Labels"].(map[string]string)["com.docker.compose.project.config_files"]
	if out := m.must(t, "-f", file, "-p", "shop", "plan"); !strings.Contains(out, "unchanged") {
		t.Errorf("plan after adopt: %s", out)
	}
	m.must(t, "-p", "shop", "down", "--volumes", "-t", "0")
	m.berth(t, "volume", "rm", "shop_data")
	for _, name := range []string{"kept", "new"} {
		if _, err := os.Stat(filepath.Join(e.volume, name)); err != nil {
			t.Errorf("after down: %v", err)
		}
	}
}

func TestAdopt_ServiceThatDoesNotStart_GoesBackToDocker(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	e, host := newEngine(t, "/bin/false")
	t.Setenv("DOCKER_HOST", host)
	r := m.berth(t, "adopt", "-y", "shop")
	if r.code != 1 || !strings.Contains(r.err, "1 of 2 services are taken over") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if want := "start:web0123"; !strings.HasSuffix(e.asked(), want) {
		t.Errorf("asked %q, want %q at the end", e.asked(), want)
	}
	if out := m.must(t, "-p", "shop", "ps", "--services"); strings.TrimSpace(out) != "db" {
		t.Errorf("under Berth: %q", out)
	}
	m.must(t, "-p", "shop", "down", "-t", "0")
	m.must(t, "volume", "rm", "shop_data")
	if r := m.berth(t, "adopt", "nosuch"); r.code != 1 || !strings.Contains(r.err, "no container of a Compose project nosuch in Docker") {
		t.Errorf("a project that is not there: %d %s", r.code, r.err)
	}
}
