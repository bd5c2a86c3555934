package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// TestExamples brings every example up as a user does, with the programs that
// this repository builds, and uses it.
func TestExamples(t *testing.T) {
	testbed.NeedKernel(t)
	if testing.Short() {
		t.Skip("SKIPPED: -short: each example is brought up for real")
	}
	bin := build(t)
	for _, example := range []struct {
		name string
		use  func(t *testing.T, b berth)
	}{
		{"hello", useHello},
		{"voting", useVoting},
		{"static", useStatic},
		{"cache", useCache},
		{"migrate", useMigrate},
	} {
		t.Run(example.name, func(t *testing.T) {
			testbed.CheckLeaks(t)
			b := start(t, bin, example.name)
			b.run(t, "up", "-d")
			example.use(t, b)
			b.run(t, "down", "--volumes")
		})
	}
}

func useHello(t *testing.T, b berth) {
	replicas := map[string]bool{}
	for range 12 {
		body := get(t, "http://127.0.0.1:8080/")
		if !strings.HasPrefix(body, "Hello from ") {
			t.Fatalf("got %q", body)
		}
		replicas[strings.Fields(body)[2]] = true
	}
	if len(replicas) != 3 {
		t.Errorf("12 requests were answered by %d replicas, want 3: %v", len(replicas), replicas)
	}
	if second := b.run(t, "up", "-d"); strings.Contains(second, "created") {
		t.Errorf("a second up changed something: %s", second)
	}
	if ps := b.run(t, "ps"); strings.Count(ps, "hello-web-") != 3 {
		t.Errorf("ps does not show three web tasks:\n%s", ps)
	}
}

func useVoting(t *testing.T, _ berth) {
	for _, choice := range []string{"a", "b", "a"} {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		voter := &http.Client{Jar: jar, Timeout: 5 * time.Second}
		resp, err := voter.PostForm("http://127.0.0.1:5000/", url.Values{"vote": {choice}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("voting for %s: %s", choice, resp.Status)
		}
	}
	// The API has no health test: it may still wait for its database.
	eventually(t, func() error {
		body, err := fetch("http://127.0.0.1:5001/")
		if err != nil {
			return err
		}
		var result map[string]int
		if err := json.Unmarshal([]byte(body), &result); err != nil {
			return err
		}
		if result["a"] != 2 || result["b"] != 1 {
			return fmt.Errorf("the result is %v", result)
		}
		return nil
	})
}

func useStatic(t *testing.T, _ berth) {
	resp, err := http.Get("http://127.0.0.1:8081/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a password: %s", resp.Status)
	}
	if body := get(t, "http://demo:berth@127.0.0.1:8081/"); !strings.Contains(body, "Only for those") {
		t.Errorf("got %q", body)
	}
}

func useCache(t *testing.T, b berth) {
	if pong := redis(t, "PING"); pong != "+PONG" {
		t.Fatalf("PING: %q", pong)
	}
	if ok := redis(t, "SET greeting hello"); ok != "+OK" {
		t.Fatalf("SET: %q", ok)
	}
	b.run(t, "up", "-d", "--force-recreate")
	if text := redis(t, "GET greeting"); text != "hello" {
		t.Errorf("after a replacement the volume has %q", text)
	}
	if _, err := net.DialTimeout("tcp", net.JoinHostPort(secondAddress(t), "6379"), time.Second); err == nil {
		t.Error("a port published on 127.0.0.1 answers on another address")
	}
}

func useMigrate(t *testing.T, b berth) {
	if body := strings.TrimSpace(get(t, "http://127.0.0.1:8082/")); body != `{"a":1,"b":0}` {
		t.Errorf("got %s", body)
	}
	if logs := b.run(t, "logs", "migrate"); strings.Count(logs, "CREATE TABLE") != 1 {
		t.Errorf("the migration did not run once:\n%s", logs)
	}
	b.run(t, "up", "-d")
	if logs := b.run(t, "logs", "migrate"); strings.Count(logs, "CREATE TABLE") != 1 {
		t.Errorf("an up without a change ran the migration again:\n%s", logs)
	}
}

// berth is an agent of this test's own, and the command line that talks to it.
type berth struct {
	bin, root, runDir, config, file string
}

// start prepares an agent whose registry serves the fixture images. The first
// command starts it, as it does for a user.
func start(t *testing.T, bin, example string) berth {
	t.Helper()
	dir := t.TempDir()
	file, err := filepath.Abs(filepath.Join(example, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	b := berth{bin, filepath.Join(dir, "root"), filepath.Join(dir, "run"), filepath.Join(dir, "config.yaml"), file}
	config := fmt.Sprintf("registries:\n  docker.io:\n    mirrors: [\"http://%s\"]\ncgroup_parent: %s\n",
		testbed.Registry(t), testbed.CgroupParent(t))
	if err := os.WriteFile(b.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(b.root, "agent.log"))
			t.Logf("the agent's log:\n%s", log)
		}
		// A test that failed half way may have left the stack up.
		_, _ = b.try(context.Background(), "down", "--volumes")
		if out, err := exec.Command(filepath.Join(b.bin, "berthd"), "stop", "--root", b.root, "--run", b.runDir).CombinedOutput(); err != nil {
			t.Errorf("berthd stop: %v: %s", err, out)
		}
	})
	return b
}

func (b berth) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.try(t.Context(), args...)
	if err != nil {
		t.Fatalf("berth %s: %v:\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (b berth) try(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	global := []string{"--root", b.root, "--run", b.runDir, "--config", b.config, "-f", b.file}
	out, err := exec.CommandContext(ctx, filepath.Join(b.bin, "berth"), append(global, args...)...).CombinedOutput()
	return string(out), err
}

// build builds both programs.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir, "../cmd/berth", "../cmd/berthd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build berth and berthd: %v: %s", err, out)
	}
	return dir
}

func get(t *testing.T, target string) string {
	t.Helper()
	body, err := fetch(target)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// fetch makes a connection of its own: another one may lead elsewhere.
func fetch(target string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(target)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", target, resp.Status, body)
	}
	return string(body), nil
}

// redis sends an inline command and returns the last line of the reply.
func redis(t *testing.T, command string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", "127.0.0.1:6379", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "%s\r\nQUIT\r\n", command); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(bytes.TrimSuffix(reply, []byte("+OK\r\n"))), []byte("\r\n"))
	return string(lines[len(lines)-1])
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

// secondAddress gives the host an address beside 127.0.0.1.
func secondAddress(t *testing.T) string {
	t.Helper()
	const addr = "192.0.2.77"
	if out, err := exec.Command("ip", "address", "add", addr+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("add an address: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "address", "del", addr+"/32", "dev", "lo").CombinedOutput(); err != nil {
			t.Errorf("remove the address: %v: %s", err, out)
		}
	})
	return addr
}
