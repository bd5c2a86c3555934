package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/build"
	"berth/spec"
)

// listen serves h on a unix socket and returns a client for it.
func listen(t *testing.T, h http.Handler) *Client {
	t.Helper()
	socket := Socket(t.TempDir())
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	c := NewClient(socket)
	t.Cleanup(c.Close)
	return c
}

// answer serves one text, whatever is asked.
func answer(t *testing.T, status int, text string) *Client {
	t.Helper()
	return listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}))
}

func TestClient_NobodyListens_IsErrNoAgent(t *testing.T) {
	missing := NewClient(filepath.Join(t.TempDir(), "api.sock"))
	if _, err := missing.Info(t.Context()); !errors.Is(err, ErrNoAgent) {
		t.Errorf("no socket: %v", err)
	}
	stale := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(stale).Info(t.Context()); !errors.Is(err, ErrNoAgent) {
		t.Errorf("stale socket: %v", err)
	}
}

// A killed agent's socket takes connections until the kernel has closed it.
func TestClient_TheAgentEndsWhileItIsAsked_IsErrNoAgent(t *testing.T) {
	socket := Socket(t.TempDir())
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		l.Close()
		conn.Close() // with what the client has sent, or will
	}()
	c := NewClient(socket)
	defer c.Close()
	if _, err := c.Info(t.Context()); !errors.Is(err, ErrNoAgent) {
		t.Errorf("got %v", err)
	}
}

func TestClient_Refused_IsAnErrorWithItsParts(t *testing.T) {
	want := Error{
		Status: 409, Detail: "port 80 is taken", Code: CodePortInUse, Hint: "stop nginx",
		Position: &spec.Position{File: "compose.yaml", Line: 5, Col: 7},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	_, err = answer(t, 409, string(text)).Plan(t.Context(), ApplyRequest{Stack: spec.Stack{Name: "shop"}})
	var got *Error
	if !errors.As(err, &got) || got.Hint != want.Hint || *got.Position != *want.Position {
		t.Fatalf("got %+v", err)
	}
	if !HasCode(fmt.Errorf("plan: %w", err), CodePortInUse) || HasCode(err, CodeConflict) || HasCode(nil, "") {
		t.Error("HasCode does not tell the codes apart")
	}
	if got.Error() != "compose.yaml:5:7: port 80 is taken" {
		t.Errorf("text: %q", got.Error())
	}
}

func TestClient_RefusedInAnotherWay_StillSaysWhy(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"404 page not found\n", "404 page not found"},
		{"", "the agent answered 404 Not Found"},
		{`{"title":"Not Found"}`, "Not Found"},
		{`{"detail":"validation failed","errors":[{"message":"expected a number","location":"query.index"}]}`, "validation failed; query.index: expected a number"},
	} {
		_, err := answer(t, 404, c.text).Stacks(t.Context())
		if err == nil || err.Error() != c.want {
			t.Errorf("%q: got %v, want %s", c.text, err, c.want)
		}
	}
}

// read collects a stream of progress.
func read(stream func(func(Progress, error) bool)) (news []Progress, err error) {
	for p, e := range stream {
		if e != nil {
			return news, e
		}
		news = append(news, p)
	}
	return news, nil
}

func TestApply_ToTheEnd_YieldsEveryLineAndNoError(t *testing.T) {
	c := answer(t, 200, `{"applied":{"stack":"shop","revision":8,"changed":true}}
{"message":"created"}
{"done":{"outcome":"done"}}
{"message":"nobody reads on after done"}
`)
	news, err := read(c.Apply(t.Context(), ApplyRequest{}))
	if err != nil || len(news) != 3 || news[0].Applied.Revision != 8 || news[2].Done.Outcome != OutcomeDone {
		t.Errorf("got %+v, %v", news, err)
	}
}

func TestApply_ErrorLine_EndsTheStreamWithIt(t *testing.T) {
	c := answer(t, 200, `{"message":"created"}
{"error":{"status":507,"code":"no_space","detail":"disk full"}}
{"done":{"outcome":"done"}}
`)
	news, err := read(c.Apply(t.Context(), ApplyRequest{}))
	if len(news) != 1 || !HasCode(err, CodeNoSpace) {
		t.Errorf("got %+v, %v", news, err)
	}
}

func TestApply_StreamEndsEarly_IsErrCut(t *testing.T) {
	for name, text := range map[string]string{
		"without done":    `{"message":"created"}` + "\n",
		"within a line":   `{"message":"created"}` + "\n" + `{"message":"cre`,
		"before a line":   "",
		"connection gone": "abort",
	} {
		t.Run(name, func(t *testing.T) {
			c := listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if text == "abort" {
					fmt.Fprintln(w, `{"message":"created"}`)
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
				fmt.Fprint(w, text)
			}))
			if _, err := read(c.Apply(t.Context(), ApplyRequest{})); !errors.Is(err, ErrCut) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestApply_Garbage_IsAnErrorThatNamesThePath(t *testing.T) {
	_, err := read(answer(t, 200, "<html>").Apply(t.Context(), ApplyRequest{Stack: spec.Stack{Name: "shop"}}))
	if err == nil || !strings.Contains(err.Error(), "/v1/stacks/shop/apply") {
		t.Errorf("got %v", err)
	}
}

func TestStream_ContextEnds_YieldsItsCause(t *testing.T) {
	sent := make(chan struct{})
	c := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"text":"one"}`)
		_ = http.NewResponseController(w).Flush()
		close(sent)
		<-r.Context().Done()
	}))
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-sent; cancel(cause) }()
	var last error
	for _, err := range c.Logs(ctx, "shop", LogQuery{Follow: true}) {
		last = err
	}
	if !errors.Is(last, cause) {
		t.Errorf("got %v", last)
	}
}

func TestStream_CallerBreaks_TheAgentLearnsIt(t *testing.T) {
	gone := make(chan struct{})
	c := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"type":"task"}`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	for _, err := range c.Events(t.Context(), EventQuery{Follow: true}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	select {
	case <-gone:
	case <-t.Context().Done():
		t.Error("the request went on")
	}
}

func TestEvents_ErrorLine_IsYielded(t *testing.T) {
	var last error
	for _, err := range answer(t, 200, `{"error":{"detail":"the store is closed"}}`).Events(t.Context(), EventQuery{}) {
		last = err
	}
	if last == nil || last.Error() != "the store is closed" {
		t.Errorf("got %v", last)
	}
}

func TestQueries_WhatIsZeroIsLeftOut(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{LogQuery{Tail: -1}.Values().Encode(), ""},
		{LogQuery{}.Values().Encode(), "tail=0"},
		{LogQuery{Services: []string{"a", "b"}, Index: 2, Follow: true, Since: "10m", Until: "1m", Tail: 5, Revision: 7}.Values().Encode(), "follow=true&index=2&revision=7&services=a%2Cb&since=10m&tail=5&until=1m"},
		{EventQuery{}.Values().Encode(), ""},
		{EventQuery{Stack: "shop", Services: []string{"a"}, Follow: true}.Values().Encode(), "follow=true&services=a&stack=shop"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestClient_NameWithASlash_StaysOneSegment(t *testing.T) {
	mux := http.NewServeMux()
	var got string
	mux.HandleFunc("DELETE /v1/volumes/{name}", func(_ http.ResponseWriter, r *http.Request) { got = r.PathValue("name") })
	name := "../a/b?c%d#e"
	if err := listen(t, mux).RemoveVolume(t.Context(), name, true); err != nil || got != name {
		t.Errorf("the agent got %q, %v", got, err)
	}
}

func TestLoadImages_SendsTheArchiveAsItIs(t *testing.T) {
	c := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"message":%q}`+"\n"+`{"done":{"outcome":"done"}}`, r.Header.Get("Content-Type")+" "+string(body))
	}))
	news, err := read(c.LoadImages(t.Context(), strings.NewReader("tar")))
	if err != nil || news[0].Message != "application/x-tar tar" {
		t.Errorf("got %+v, %v", news, err)
	}
}

// TestClient_Routes holds the client against the table in doc.go: each call
// goes to a route that is there, and each route is called.
func TestClient_Routes(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	called := map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		words := strings.Fields(strings.TrimPrefix(line, "//"))
		if len(words) < 2 || !strings.HasPrefix(words[1], "/v1/") {
			continue
		}
		path, _, _ := strings.Cut(words[1], "?")
		route := words[0] + " " + path
		called[route] = false
		mux.HandleFunc(route, func(w http.ResponseWriter, _ *http.Request) {
			called[route] = true
			w.WriteHeader(http.StatusTeapot)
		})
	}
	c := listen(t, mux)
	ctx := t.Context()
	drain := func(stream func(func(Progress, error) bool)) error { _, err := read(stream); return err }
	for name, call := range map[string]func() error{
		"Info":              func() error { _, err := c.Info(ctx); return err },
		"Stacks":            func() error { _, err := c.Stacks(ctx); return err },
		"Stack":             func() error { _, err := c.Stack(ctx, "s"); return err },
		"Plan":              func() error { _, err := c.Plan(ctx, ApplyRequest{Stack: spec.Stack{Name: "s"}}); return err },
		"Apply":             func() error { return drain(c.Apply(ctx, ApplyRequest{Stack: spec.Stack{Name: "s"}})) },
		"Down":              func() error { return drain(c.Down(ctx, "s", DownRequest{})) },
		"Action":            func() error { return drain(c.Action(ctx, "s", ActionRequest{})) },
		"Rollout":           func() error { _, err := c.Rollout(ctx, "s"); return err },
		"ActOnRollout":      func() error { return drain(c.ActOnRollout(ctx, "s", RolloutRequest{})) },
		"History":           func() error { _, err := c.History(ctx, "s"); return err },
		"Rollback":          func() error { return drain(c.Rollback(ctx, "s", RollbackRequest{})) },
		"Scale":             func() error { return drain(c.Scale(ctx, "s", ScaleRequest{})) },
		"Explain":           func() error { _, err := c.Explain(ctx, "s", "web"); return err },
		"Logs":              func() error { return firstError(c.Logs(ctx, "s", LogQuery{})) },
		"Stats":             func() error { return firstError(c.Stats(ctx, "s", nil, false)) },
		"Events":            func() error { return firstError(c.Events(ctx, EventQuery{})) },
		"Task":              func() error { _, err := c.Task(ctx, "t"); return err },
		"InspectTask":       func() error { _, err := c.InspectTask(ctx, "t"); return err },
		"Exec":              func() error { _, err := c.Exec(ctx, "t", ExecRequest{}, Streams{}); return err },
		"Attach":            func() error { _, err := c.Attach(ctx, "t", Streams{}); return err },
		"Run":               func() error { return drain(c.Run(ctx, RunRequest{Stack: spec.Stack{Name: "s"}})) },
		"Start":             func() error { _, err := c.Start(ctx, "t", Streams{}); return err },
		"Wait":              func() error { _, err := c.Wait(ctx, "t"); return err },
		"Top":               func() error { _, err := c.Top(ctx, "t"); return err },
		"StatPath":          func() error { _, err := c.StatPath(ctx, "t", "/", true); return err },
		"ReadPath":          func() error { return c.ReadPath(ctx, "t", "/", true, io.Discard) },
		"WritePath":         func() error { return c.WritePath(ctx, "t", "/", true, strings.NewReader("")) },
		"RemovePath":        func() error { return c.RemovePath(ctx, "t", "/x") },
		"Commit":            func() error { _, err := c.Commit(ctx, "t", CommitRequest{}); return err },
		"Sync":              func() error { return c.Sync(ctx, "t", strings.NewReader("")) },
		"SyncRemoved":       func() error { return c.SyncRemoved(ctx, "t", "/x") },
		"Export":            func() error { return c.Export(ctx, "t", io.Discard) },
		"Build":             func() error { return drain(c.Build(ctx, &build.Packing{})) },
		"OfferSSH":          func() error { _, err := c.OfferSSH(ctx, "/none"); return err },
		"Images":            func() error { _, err := c.Images(ctx); return err },
		"InspectImage":      func() error { _, err := c.InspectImage(ctx, "r"); return err },
		"PullImage":         func() error { return drain(c.PullImage(ctx, ImagePullRequest{})) },
		"LoadImages":        func() error { return drain(c.LoadImages(ctx, strings.NewReader(""))) },
		"SaveImages":        func() error { return c.SaveImages(ctx, io.Discard, []string{"r"}) },
		"RemoveImage":       func() error { _, err := c.RemoveImage(ctx, "r", false); return err },
		"PruneImages":       func() error { _, err := c.PruneImages(ctx, ImagePrune{}); return err },
		"Volumes":           func() error { _, err := c.Volumes(ctx, ""); return err },
		"CreateVolume":      func() error { _, err := c.CreateVolume(ctx, VolumeCreate{}); return err },
		"RemoveVolume":      func() error { return c.RemoveVolume(ctx, "v", false) },
		"PruneVolumes":      func() error { _, err := c.PruneVolumes(ctx, false); return err },
		"Networks":          func() error { _, err := c.Networks(ctx, ""); return err },
		"CreateNetwork":     func() error { _, err := c.CreateNetwork(ctx, NetworkCreate{}); return err },
		"RemoveNetwork":     func() error { return c.RemoveNetwork(ctx, "n") },
		"PruneNetworks":     func() error { _, err := c.PruneNetworks(ctx); return err },
		"Login":             func() error { return c.Login(ctx, LoginRequest{}) },
		"PushImage":         func() error { return drain(c.PushImage(ctx, ImagePushRequest{})) },
		"TagImage":          func() error { return c.TagImage(ctx, "a", "b") },
		"ImageDigests":      func() error { _, err := c.ImageDigests(ctx, ImageDigestsRequest{}); return err },
		"ImageHistory":      func() error { _, err := c.ImageHistory(ctx, "r"); return err },
		"SystemUsage":       func() error { _, err := c.SystemUsage(ctx); return err },
		"Jobs":              func() error { _, err := c.Jobs(ctx, "s"); return err },
		"RunJob":            func() error { return drain(c.RunJob(ctx, "s", "j", JobRunRequest{})) },
		"Contents":          func() error { _, err := c.Contents(ctx, KindSecret, ""); return err },
		"InspectContent":    func() error { _, err := c.InspectContent(ctx, KindSecret, "", "n"); return err },
		"SetContent":        func() error { _, err := c.SetContent(ctx, KindSecret, ContentSet{}); return err },
		"RemoveContent":     func() error { return c.RemoveContent(ctx, KindSecret, "", "n") },
		"RollContent":       func() error { return drain(c.RollContent(ctx, KindSecret, "n", ContentRoll{})) },
		"RekeyContents":     func() error { return c.RekeyContents(ctx) },
		"ContentRecipients": func() error { _, err := c.ContentRecipients(ctx); return err },
		"ExportContents":    func() error { _, err := c.ExportContents(ctx, ContentExport{}); return err },
		"ImportContents":    func() error { _, err := c.ImportContents(ctx, ContentImport{}); return err },
	} {
		var e *Error
		if err := call(); !errors.As(err, &e) || e.Status != http.StatusTeapot {
			t.Errorf("%s is on no route of doc.go: %v", name, err)
		}
	}
	for route, ok := range called {
		if !ok {
			t.Errorf("no method calls %s", route)
		}
	}
}

func firstError[T any](stream func(func(T, error) bool)) error {
	for _, err := range stream {
		return err
	}
	return nil
}
