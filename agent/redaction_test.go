package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"berth/api"
	"berth/redact"
	"berth/runtime"
	"berth/spec"
	"berth/store"
)

// canary is a value that looks different wherever it is written.
const canary = "canary \"1\"\n<of & two lines>"

// redacting lets the agent of b know what it must not say.
func (b *bench) redacting() *redact.Set {
	set := &redact.Set{}
	b.cfg.Redact, b.w.redact = set, set
	return set
}

// leaks wants the canary nowhere in text.
func leaks(t *testing.T, what, text string) {
	t.Helper()
	quoted, _ := json.Marshal(canary)
	for _, form := range []string{canary, strings.Trim(string(quoted), `"`), fmt.Sprintf("%q", canary), base64.StdEncoding.EncodeToString([]byte(canary))} {
		if strings.Contains(text, form) {
			t.Errorf("%s tells the secret:\n%s", what, text)
			return
		}
	}
}

func TestRedaction_NoAnswerTellsASecret_ButTheLogsOfTheContainer(t *testing.T) {
	b, c, raw := serve(t)
	set := b.redacting()
	b.learnNames(&spec.Stack{})
	st := stackOf("shop", service("web", "web:1", func(s *spec.Service) {
		s.Environment = map[string]string{"PASSWORD": canary, "URL": "http://me:" + canary + "@db"}
		s.Command = &[]string{"serve", canary}
		s.Healthcheck = &spec.Healthcheck{Test: []string{"CMD", "ask", canary}}
		s.Restart.Condition = "none"
	}))
	st.Secrets = map[string]spec.File{"key": {Key: "key", Content: []byte(canary + "\n")}}
	// The contents are learned before the plan can show them.
	answers := map[string]string{}
	ask := func(method, path, body string) string {
		t.Helper()
		_, _, text := get(t, raw, method, path, body)
		answers[method+" "+path] = text
		return text
	}
	body := string(encoded(api.ApplyRequest{Stack: st, NoStart: false}))
	ask("POST", "/v1/stacks/shop/plan", body)
	ask("POST", "/v1/stacks/shop/apply", body)
	applied(t, c, st)
	id := b.id("web/1.1")
	b.events.task(b.w.task(id), "warning", canary)
	ask("GET", "/v1/tasks/"+id+"/inspect", "")
	b.containers.write(id, runtime.LogLine{Text: canary})
	b.containers.exit(id, 3)
	for b.w.task(id).State != store.StateExited {
		b.loop.settle(t.Context())
	}
	for _, path := range []string{
		"/v1/stacks", "/v1/stacks/shop", "/v1/stacks/shop/services/web/explain", "/v1/stacks/shop/revisions", "/v1/stacks/shop/rollout",
		"/v1/events?since=1h", "/v1/contents/secret", "/v1/tasks/shop-web-1",
	} {
		ask("GET", path, "")
	}
	ask("POST", "/v1/stacks/shop/action", `{"action":`+string(encoded(canary))+`}`)
	for what, text := range answers {
		leaks(t, what, text)
	}
	inspected := answers["GET /v1/tasks/"+id+"/inspect"]
	var in api.TaskInspect
	if err := json.Unmarshal([]byte(inspected), &in); err != nil || in.Service.Environment["PASSWORD"] != redact.Mark || in.Service.Environment["URL"] != "http://me:"+redact.Mark+"@db" {
		t.Errorf("inspect: %v: %s", err, inspected)
	}
	if events := answers["GET /v1/events?since=1h"]; !strings.Contains(events, redact.Mark) {
		t.Errorf("the events are\n%s", events)
	}
	if logs := ask("GET", "/v1/stacks/shop/logs?tail=10", ""); !strings.Contains(logs, `canary \"1\"`) {
		t.Errorf("the container's own log is changed: %s", logs)
	}
	if task := b.w.task(id); task.LastLine != redact.Mark || task.Spec.Environment["PASSWORD"] != canary {
		t.Errorf("the record says %q, and the next task would get %q", task.LastLine, task.Spec.Environment["PASSWORD"])
	}
	if set.Len() != 1 {
		t.Errorf("%d values are known", set.Len())
	}
}

func TestRedaction_WhatIsKept_IsKnownToTheNextAgent(t *testing.T) {
	simulate(t, func(b *bench) {
		for _, set := range []api.ContentSet{
			{Name: "key", Content: []byte("the first value")},
			{Name: "key", Content: []byte("the second value")},
			{Stack: "shop", Name: "swordfish-key", Content: []byte("swordfish")},
		} {
			if _, _, err := b.setContent(api.KindSecret, &set); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := b.setContent(api.KindConfig, &api.ContentSet{Name: "page", Content: []byte("a config's text")}); err != nil {
			t.Fatal(err)
		}
		st := stackOf("shop", service("web", "web:1"))
		st.Secrets = map[string]spec.File{"key": {Key: "key", Content: []byte("of the stack")}}
		b.up(st)

		set := b.redacting()
		if err := b.learnStored(); err != nil {
			t.Fatal(err)
		}
		m := redact.Mark
		if got, want := set.Text("the first value, the second value, of the stack, a config's text, swordfish"), m+", "+m+", "+m+", a config's text, swordfish"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}

		for i := range maxRedacted {
			set.Add(fmt.Appendf(nil, "value %d of yesterday", i))
		}
		if err := b.forgetValues(); err != nil {
			t.Fatal(err)
		}
		if got, want := set.Text("the first value, value 7 of yesterday"), m+", value 7 of yesterday"; got != want || set.Len() != 4 {
			t.Errorf("%d values, got %s, want %s", set.Len(), got, want)
		}
	})
}

// Reasons are kept in the records: they are redacted before they are.
func TestRedaction_Records(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.redacting().Add([]byte(canary))
		b.w.note(b.id("web/1.1"), func(t *store.Task) { t.HookFailed = "it says " + canary })
		err := b.w.commit(func(c *change) error {
			s, r := *b.w.stacks["shop"], b.w.revisions["shop"]
			rollout := *s.Rollout
			rollout.Reason = canary
			s.Rollout = &rollout
			c.putStack(s)
			c.annotate("shop", r.Number, api.RolloutPaused, canary)
			if rollout.Reason != canary {
				t.Error("another's record is changed")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.w.flush(); err != nil {
			t.Fatal(err)
		}
		n := 0
		err = b.db.View(func(tx store.Tx) error {
			for _, bucket := range []string{store.Stacks, store.Revisions, store.Tasks} {
				err := tx.Each(bucket, "", func(key string, value []byte) error {
					leaks(t, key, string(value))
					n += strings.Count(string(value), `\u003credacted\u003e`)
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || n != 3 {
			t.Errorf("%d reasons are redacted, want 3: %v", n, err)
		}
	})
}

func TestRedacting_LinesInPieces_AndWhatIsNoText(t *testing.T) {
	a := &Agent{cfg: Config{Redact: &redact.Set{}}}
	a.cfg.Redact.Add([]byte("swordfish"))
	for _, c := range []struct {
		kind   string
		pieces []string
		want   string
	}{
		{"application/json", []string{`{"a":"swordfish"}` + "\n"}, `{"a":"<redacted>"}` + "\n"},
		{"application/problem+json", []string{`{"a":"sword`, `fish"}`}, `{"a":"<redacted>"}`},
		{ndjson, []string{`{"a":"sword`, "fish\"}\n{\"b\":\"sw", "", "ordfish\"}\n"}, `{"a":"<redacted>"}` + "\n" + `{"b":"<redacted>"}` + "\n"},
		{"text/plain", []string{"sword", "fish"}, "<redacted>"},
		{"", []string{"swordfish"}, "<redacted>"},
		{"application/x-tar", []string{"swordfish"}, "swordfish"},
	} {
		w := httptest.NewRecorder()
		a.redacting(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			for _, p := range c.pieces {
				if n, err := io.WriteString(w, p); n != len(p) || err != nil {
					t.Errorf("%d bytes of %d, %v", n, len(p), err)
				}
				w.(http.Flusher).Flush()
			}
		})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if got := w.Body.String(); got != c.want {
			t.Errorf("%s %q became %q, want %q", c.kind, c.pieces, got, c.want)
		}
	}
}

// A user who gives a value for the name of a config, or of a secret, gets it not
// back in the refusal.
func TestRedacting_AFailureOfAVerbatimRoute_IsRedacted(t *testing.T) {
	a := &Agent{cfg: Config{Redact: &redact.Set{}}}
	a.cfg.Redact.Add([]byte("swordfish"))
	for kind, want := range map[string]string{"application/json": `"swordfish"`, problemType: `"<redacted>"`} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil)
		r.Pattern = "POST /v1/contents/{kind}"
		a.redacting(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			io.WriteString(w, `"swordfish"`)
		})).ServeHTTP(w, r)
		if got := w.Body.String(); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
}

// A panic in a handler is logged by net/http, with what the panic says.
func TestServer_APanicOfAHandler_IsLoggedWithoutTheSecret(t *testing.T) {
	b := newBench(t)
	set := b.redacting()
	set.Add([]byte(canary))
	var log bytes.Buffer
	b.log = slog.New(slog.NewTextHandler(set.Writer(&log), nil))
	server := b.server()
	server.ErrorLog.Print("http: panic serving: ", errors.New(canary))
	leaks(t, "the log", log.String())
	if !strings.Contains(log.String(), redact.Mark) {
		t.Error(log.String())
	}
	var out strings.Builder
	working(func(_ context.Context, _ func(api.Progress)) (*api.Done, error) { panic(canary) }).stream().write(t.Context(), &out)
	leaks(t, "the answer", string(set.JSON([]byte(out.String()))))
}
