package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/api"
	"berth/images"
	"berth/runtime"
	"berth/spec"
)

// serve lets the agent of b work and serve its API on a socket, in real time.
func serve(t *testing.T) (*bench, *api.Client, *http.Client) {
	t.Helper()
	b := newBench(t)
	b.begin()
	dir, err := os.MkdirTemp("", "berth") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := b.server()
	served := make(chan error, 1)
	go func() { served <- server.Serve(&peerListener{UnixListener: l.(*net.UnixListener)}) }()
	client := api.NewClient(socket)
	raw := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	t.Cleanup(func() {
		client.Close()
		raw.CloseIdleConnections()
		server.Close()
		<-served
		b.end()
		os.RemoveAll(dir)
	})
	return b, client, raw
}

func get(t *testing.T, c *http.Client, method, path, body string) (status int, kind, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://berth"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(data)
}

// applied applies a stack over the API and waits for its end.
func applied(t *testing.T, c *api.Client, st spec.Stack) {
	t.Helper()
	for p, err := range c.Apply(t.Context(), api.ApplyRequest{Stack: st, Wait: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if p.Done != nil && p.Done.Outcome != api.OutcomeDone {
			t.Fatalf("%+v", p.Done)
		}
	}
}

func TestServer_EveryRouteOfTheContract_IsInOpenAPI_AndThere(t *testing.T) {
	_, _, c := serve(t)
	doc, err := os.ReadFile("../api/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, _, text := get(t, c, http.MethodGet, "/openapi.json", "")
	var spec struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		t.Fatal(err)
	}
	routes := regexp.MustCompile(`(?m)^//\t(GET|POST|PUT|DELETE) +(/v1/[^ ?\n]+)`).FindAllStringSubmatch(string(doc), -1)
	if len(routes) < 25 {
		t.Fatalf("only %d routes found in the table", len(routes))
	}
	known := map[string]bool{}
	for _, r := range routes {
		method, path := r[1], r[2]
		known[method+" "+path] = true
		if spec.Paths[path][strings.ToLower(method)] == nil {
			t.Errorf("OpenAPI does not list %s %s", method, path)
		}
		path = strings.NewReplacer("{stack}", "nope", "{task}", "nope", "{name}", "nope").Replace(path)
		status, kind, body := get(t, c, method, path, "{}")
		if status == http.StatusMethodNotAllowed || kind == "text/plain; charset=utf-8" && status != http.StatusUpgradeRequired {
			t.Errorf("%s %s is not served: %d %s", method, path, status, body)
		}
	}
	for path, methods := range spec.Paths {
		for method := range methods {
			if !known[strings.ToUpper(method)+" "+path] {
				t.Errorf("%s %s is served and not in the table of api/doc.go", strings.ToUpper(method), path)
			}
		}
	}
}

func TestServer_WhatItRefuses_IsAProblem(t *testing.T) {
	_, _, c := serve(t)
	for _, x := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{http.MethodGet, "/v1/stacks/nope", "", 404, api.CodeNotFound},
		{http.MethodGet, "/v1/tasks/nope", "", 404, api.CodeNotFound},
		{http.MethodGet, "/v1/tasks/nope/exec", "", 404, api.CodeNotFound},
		{http.MethodGet, "/v1/images/inspect?ref=nope", "", 404, api.CodeImageNotFound},
		{http.MethodGet, "/v1/images/save?ref=nope", "", 404, api.CodeImageNotFound},
		{http.MethodGet, "/v1/stacks/nope/logs", "", 404, api.CodeNotFound},
		{http.MethodGet, "/v1/events?since=yesterday", "", 422, api.CodeInvalid},
		{http.MethodDelete, "/v1/volumes/nope", "", 404, api.CodeNotFound},
		{http.MethodDelete, "/v1/networks/nope", "", 404, api.CodeNotFound},
		{http.MethodPost, "/v1/networks", `{"name":"x","driver":"macvlan"}`, 422, api.CodeInvalid},
		{http.MethodPost, "/v1/volumes", `{"name":"../x"}`, 422, api.CodeInvalid},
		{http.MethodPost, "/v1/stacks/shop/plan", `{"stack": 7}`, 422, api.CodeInvalid},
		{http.MethodPost, "/v1/stacks/shop/plan", `{"stack"`, 422, api.CodeInvalid},
		{http.MethodPost, "/v1/stacks/shop/plan", `{"actor":"` + strings.Repeat("x", maxBody) + `"}`, 413, api.CodeInvalid},
	} {
		status, kind, text := get(t, c, x.method, x.path, x.body)
		var p api.Error
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Errorf("%s %s: %d %s", x.method, x.path, status, text)
			continue
		}
		if status != x.status || p.Status != x.status || p.Code != x.code || !strings.HasPrefix(kind, "application/problem+json") ||
			p.Detail == "" || x.body != "" && strings.Contains(p.Detail, x.body) {
			t.Errorf("%s %s: %d %s %+v", x.method, x.path, status, kind, p)
		}
	}
}

func TestServer_AFailureInAStream_IsItsLastLine(t *testing.T) {
	_, client, c := serve(t)
	st, err := json.Marshal(api.ApplyRequest{Stack: stackOf("shop", service("web", "nope:1"))})
	if err != nil {
		t.Fatal(err)
	}
	status, kind, text := get(t, c, http.MethodPost, "/v1/stacks/shop/apply", string(st))
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var last struct{ Error *api.Error }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Error == nil {
		t.Fatalf("%s, %v", text, err)
	}
	if status != 200 || kind != ndjson || last.Error.Code != api.CodeImageNotFound || last.Error.Position.Line != 11 {
		t.Errorf("%d %s %+v", status, kind, last.Error)
	}
	for _, err := range client.Apply(t.Context(), api.ApplyRequest{Stack: stackOf("shop", service("web", "nope:1"))}) {
		var p *api.Error
		if err != nil && !errors.As(err, &p) {
			t.Errorf("the client says %v", err)
		}
	}
}

func TestServer_AWholeLife_OverTheClient(t *testing.T) {
	b, c, _ := serve(t)
	ctx := t.Context()
	st := stackOf("shop", service("web", "web:1", published(tcp(8080, 80))))
	st.Secrets = map[string]spec.File{"key": {Key: "key", Content: []byte("s3cret")}}
	applied(t, c, st)
	list, err := c.Stacks(ctx)
	if err != nil || len(list) != 1 || list[0].States[api.TaskRunning] != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	status, err := c.Stack(ctx, "shop")
	if err != nil || len(status.Tasks) != 1 || !status.Tasks[0].Ready || status.Services[0].Phase != api.PhaseReady {
		t.Errorf("%+v, %v", status, err)
	}
	if text := fmt.Sprintf("%+v", status); strings.Contains(text, "s3cret") {
		t.Error("the status tells a secret")
	}
	in, err := c.InspectTask(ctx, "shop-web-1")
	if err != nil || in.Pid != nobodysPid || in.Ports[0].Published != 8080 || in.LogPath == "" {
		t.Errorf("%+v, %v", in, err)
	}
	if task, err := c.Task(ctx, in.ID[:6]); err != nil || task.ID != in.ID {
		t.Errorf("by a prefix of its id: %+v, %v", task, err)
	}
	if info, err := c.Info(ctx); err != nil || info.API != 1 || info.Version != "test" || info.RSS == 0 {
		t.Errorf("%+v, %v", info, err)
	}
	nets, err := c.Networks(ctx, "shop")
	if err != nil || len(nets) != 1 || len(nets[0].Endpoints["shop-web-1"]) != 1 || len(nets[0].VIPs["shop/web"]) != 1 {
		t.Errorf("%+v, %v", nets, err)
	}
	var p *api.Error
	if err := c.RemoveNetwork(ctx, "shop_default"); !errors.As(err, &p) || p.Code != api.CodeInUse {
		t.Errorf("a network in use: %v", err)
	}
	for _, err := range c.Down(ctx, "shop", api.DownRequest{}) {
		if err != nil {
			t.Error(err)
		}
	}
	if list, err := c.Stacks(ctx); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if got := b.host.list(); len(got) != 0 {
		t.Errorf("held %v", got)
	}
}

func TestServer_ResourcesMadeByHand(t *testing.T) {
	b, c, _ := serve(t)
	ctx := t.Context()
	n, err := c.CreateNetwork(ctx, api.NetworkCreate{Name: "proxy", Subnets: []string{"10.77.0.0/24"}, Gateway: "10.77.0.7", Internal: true})
	if err != nil || !slices.Equal(n.Subnets, []string{"10.77.0.0/24"}) || !slices.Equal(n.Gateways, []string{"10.77.0.7"}) || !n.Internal {
		t.Errorf("%+v, %v", n, err)
	}
	var p *api.Error
	if _, err := c.CreateNetwork(ctx, api.NetworkCreate{Name: "proxy"}); !errors.As(err, &p) || p.Code != api.CodeConflict {
		t.Errorf("twice: %v", err)
	}
	if _, err := c.CreateVolume(ctx, api.VolumeCreate{Name: "data"}); err != nil {
		t.Error(err)
	}
	st := stackOf("shop", service("web", "web:1", func(s *spec.Service) {
		s.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "data", Target: "/data"}}
	}))
	st.Networks["default"] = spec.Network{Key: "default", Name: "proxy", External: true}
	st.Volumes = map[string]spec.Volume{"data": {Key: "data", Name: "data", External: true}}
	applied(t, c, st)
	if err := c.RemoveVolume(ctx, "data", false); !errors.As(err, &p) || p.Code != api.CodeInUse {
		t.Errorf("a volume in use: %v", err)
	}
	if r, err := c.PruneNetworks(ctx); err != nil || len(r.Names) != 0 {
		t.Errorf("pruned %+v, %v", r, err)
	}
	for _, err := range c.Down(ctx, "shop", api.DownRequest{Volumes: true}) {
		if err != nil {
			t.Error(err)
		}
	}
	if !b.volumeExists("data") || b.w.view().networks["proxy"] == nil {
		t.Error("down took what is external")
	}
	if r, err := c.PruneNetworks(ctx); err != nil || !slices.Equal(r.Names, []string{"proxy"}) {
		t.Errorf("pruned %+v, %v", r, err)
	}
	if err := c.RemoveVolume(ctx, "data", false); err != nil {
		t.Error(err)
	}
	if err := c.RemoveVolume(ctx, "data", true); err != nil {
		t.Errorf("with force, of nothing: %v", err)
	}
}

func TestServer_Images(t *testing.T) {
	b, c, _ := serve(t)
	ctx := t.Context()
	for _, err := range c.PullImage(ctx, api.ImagePullRequest{Reference: "web:1"}) {
		if err != nil {
			t.Error(err)
		}
	}
	if list, err := c.Images(ctx); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	b.calls.fail("pull db:1", images.ErrUnreachable)
	var failed error
	for _, err := range c.PullImage(ctx, api.ImagePullRequest{Reference: "db:1"}) {
		failed = err
	}
	var p *api.Error
	if !errors.As(failed, &p) || p.Code != api.CodeRegistry || p.Hint == "" {
		t.Errorf("%v", failed)
	}
	var said []string
	for p, err := range c.LoadImages(ctx, strings.NewReader("a tar")) {
		if err != nil {
			t.Error(err)
		}
		said = append(said, p.Message)
	}
	if !slices.Contains(said, "loaded loaded:1") {
		t.Errorf("said %q", said)
	}
	var out bytes.Buffer
	if err := c.SaveImages(ctx, &out, []string{"web:1"}); err != nil || out.String() != "an archive" {
		t.Errorf("%q, %v", out.String(), err)
	}
	b.calls.fail("save", errDisk)
	if err := c.SaveImages(ctx, &out, []string{"web:1"}); err == nil {
		t.Error("a cut archive looks whole")
	}
	if r, err := c.RemoveImage(ctx, "web:1", false); err != nil || len(r.Deleted) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestServer_Exec_CarriesInputOutputAndTheExitCode(t *testing.T) {
	b, c, _ := serve(t)
	applied(t, c, stackOf("shop", service("web", "web:1")))
	b.containers.answer(func(_ context.Context, _ string, e runtime.Exec) (int, error) {
		in, err := io.ReadAll(e.Stdin)
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(e.Stdout, "%s %s %s", e.Args[0], e.User, in)
		fmt.Fprint(e.Stderr, "and an error")
		return 42, nil
	})
	var stdout, stderr bytes.Buffer
	code, err := c.Exec(t.Context(), "shop-web-1", api.ExecRequest{Args: []string{"cat"}, User: "bin", Stdin: true},
		api.Streams{Stdin: strings.NewReader(strings.Repeat("x", 100_000)), Stdout: &stdout, Stderr: &stderr})
	if err != nil || code != 42 || stdout.Len() != 100_000+len("cat bin ") || stderr.String() != "and an error" {
		t.Errorf("exit code %d, %v, %d bytes, %q", code, err, stdout.Len(), stderr.String())
	}
}

func TestServer_Exec_TellsTheSizeOfTheTerminal(t *testing.T) {
	b, c, _ := serve(t)
	applied(t, c, stackOf("shop", service("web", "web:1")))
	b.containers.answer(func(ctx context.Context, _ string, e runtime.Exec) (int, error) {
		for {
			select {
			case s := <-e.Resize:
				if s.Rows == 99 {
					return int(s.Cols), nil
				}
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	})
	sizes := make(chan api.WindowSize, 100)
	for i := range 99 { // more than anybody reads
		sizes <- api.WindowSize{Rows: uint16(i), Cols: 1}
	}
	sizes <- api.WindowSize{Rows: 99, Cols: 7}
	code, err := c.Exec(t.Context(), "shop-web-1", api.ExecRequest{Args: []string{"sh"}, TTY: true, Rows: 24, Cols: 80}, api.Streams{Resize: sizes})
	if err != nil || code != 7 {
		t.Errorf("%d, %v", code, err)
	}
}

func TestServer_Exec_ASignalEndsIt_EvenBehindInputThatNobodyReads(t *testing.T) {
	b, c, _ := serve(t)
	applied(t, c, stackOf("shop", service("web", "web:1")))
	running := make(chan struct{})
	b.containers.answer(func(ctx context.Context, _ string, _ runtime.Exec) (int, error) {
		close(running)
		<-ctx.Done()
		return 130, nil
	})
	signals := make(chan string)
	go func() {
		<-running
		signals <- "INT"
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	code, err := c.Exec(ctx, "shop-web-1", api.ExecRequest{Args: []string{"sleep"}},
		api.Streams{Signals: signals, Stdin: strings.NewReader(strings.Repeat("x", 1<<20))})
	if err != nil || code != 130 {
		t.Errorf("%d, %v", code, err)
	}
}

func TestServer_Exec_AClientThatLeaves_EndsTheProcess(t *testing.T) {
	b, c, _ := serve(t)
	applied(t, c, stackOf("shop", service("web", "web:1")))
	running, ended := make(chan struct{}), make(chan struct{})
	b.containers.answer(func(ctx context.Context, _ string, _ runtime.Exec) (int, error) {
		close(running)
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-running
		cancel()
	}()
	_, err := c.Exec(ctx, "shop-web-1", api.ExecRequest{Args: []string{"sleep"}, Stdin: true}, api.Streams{})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the process goes on without anybody")
	}
}

func TestServer_Exec_OfWhatDoesNotRun_IsRefused(t *testing.T) {
	b, c, _ := serve(t)
	applied(t, c, stackOf("shop", service("web", "web:1")))
	b.containers.answer(func(context.Context, string, runtime.Exec) (int, error) {
		return 0, &runtime.StartError{Reason: runtime.ReasonNotFound, Command: "/nope"}
	})
	var p *api.Error
	_, err := c.Exec(t.Context(), "shop-web-1", api.ExecRequest{Args: []string{"/nope"}}, api.Streams{})
	if !errors.As(err, &p) || p.Code != api.CodeStart || p.ExitCode != 127 || !strings.Contains(p.Detail, "not found in the image") {
		t.Errorf("%v", err)
	}
	if _, err = c.Exec(t.Context(), "shop-web-1", api.ExecRequest{}, api.Streams{}); !errors.As(err, &p) || p.Code != api.CodeInvalid {
		t.Errorf("without a command: %v", err)
	}
	for _, err := range c.Action(t.Context(), "shop", api.ActionRequest{Action: api.ActionStop}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err = c.Exec(t.Context(), "shop-web-1", api.ExecRequest{Args: []string{"sh"}}, api.Streams{}); !errors.As(err, &p) || p.Code != api.CodeConflict {
		t.Errorf("stopped: %v", err)
	}
}

func TestServer_Attach_GivesTheExitCode_ThoughItsNewsComesLater(t *testing.T) {
	b, c, _ := serve(t)
	b.containers.attach = func(_ context.Context, id string, _ io.Reader, stdout io.Writer) error {
		_, err := io.WriteString(stdout, "bye")
		time.AfterFunc(100*time.Millisecond, func() { b.containers.exit(id, 9) })
		return err
	}
	applied(t, c, stackOf("shop", service("web", "web:1", func(s *spec.Service) { s.Restart.Condition = spec.RestartNo })))
	var out bytes.Buffer
	code, err := c.Attach(t.Context(), "shop-web-1", api.Streams{Stdout: &out})
	if err != nil || code != 9 || out.String() != "bye" {
		t.Errorf("%d, %v, %q", code, err, out.String())
	}
}

func TestServer_LogsStatsAndEvents_AreStreams(t *testing.T) {
	b, c, _ := serve(t)
	applied(t, c, stackOf("shop", service("web", "web:1")))
	b.containers.write(b.id("web/1.1"), runtime.LogLine{Text: "hello"})
	n := 0
	for l, err := range c.Logs(t.Context(), "shop", api.LogQuery{Tail: -1}) {
		if n++; err != nil || l.Text != "hello" || l.Name != "shop-web-1" {
			t.Errorf("%+v, %v", l, err)
		}
	}
	for s, err := range c.Stats(t.Context(), "shop", nil, false) {
		if n++; err != nil || s.Memory != 1<<20 {
			t.Errorf("%+v, %v", s, err)
		}
	}
	for e, err := range c.Events(t.Context(), api.EventQuery{Stack: "shop", Services: []string{"web"}, Since: "1h"}) {
		if n++; err != nil || e.Service != "web" {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if n < 5 {
		t.Errorf("%d lines in all", n)
	}
}

func TestPeer_OnlyRootTheAgentsUserAndItsGroupMayUseTheAPI(t *testing.T) {
	own := uint32(os.Geteuid())
	for _, c := range []struct {
		gid  uint32
		cred unix.Ucred
		want bool
	}{
		{0, unix.Ucred{Uid: 0, Gid: 0}, true},
		{0, unix.Ucred{Uid: own, Gid: 4242}, true},
		{0, unix.Ucred{Uid: 65533, Gid: 65533}, false},
		{0, unix.Ucred{Uid: 65533, Gid: 0}, false}, // root's group is no grant
		{4242, unix.Ucred{Uid: 65533, Gid: 4242}, true},
		{4242, unix.Ucred{Uid: 65533, Gid: 65533}, false},
	} {
		if got := (&peerListener{gid: c.gid}).allowed(&c.cred); got != c.want {
			t.Errorf("group %d, peer %+v: %t", c.gid, c.cred, got)
		}
	}
}

func TestPeer_OfAConnection_IsWhoConnected(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	pl := &peerListener{UnixListener: l.(*net.UnixListener)}
	defer pl.Close()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := pl.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if cred := got.(*peerConn).cred; int(cred.Pid) != os.Getpid() || int(cred.Uid) != os.Geteuid() {
		t.Errorf("%+v", cred)
	}
	go fmt.Fprintln(conn, "hi")
	if line, err := bufio.NewReader(got).ReadString('\n'); err != nil || line != "hi\n" {
		t.Errorf("%q, %v", line, err)
	}
}
