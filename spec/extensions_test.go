package spec_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/spec"
)

// loadText loads one file and fails on errors in it.
func loadText(t *testing.T, dir, text string) *spec.Stack {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{"PORT=7000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Diagnostics.Err(); err != nil {
		t.Fatal(err)
	}
	return r.Stack
}

func TestLoad_Probes_EveryForm(t *testing.T) {
	const rest = `"interval":10000000000,"timeout":5000000000,"failures":3,"successes":1}`
	const http = `{"kind":"http","port":8080,"path":"/healthz","scheme":"http",` + rest
	for _, c := range []struct{ name, yaml, want string }{
		{"http: port and path", `{http: ":8080/healthz"}`, http},
		{"http: no colon", `{http: 8080/healthz}`, http},
		{"http: only a path", `{http: /healthz}`, strings.Replace(http, "8080", "80", 1)},
		{"http: only a port", `{http: 8080}`, strings.Replace(http, "/healthz", "/", 1)},
		{"http: nothing", `{http: }`, strings.Replace(strings.Replace(http, "8080", "80", 1), "/healthz", "/", 1)},
		{"http: TLS", `{http: "https://:8443/"}`, `{"kind":"http","port":8443,"path":"/","scheme":"https",` + rest},
		{"http: a variable", `{http: ":${PORT}/"}`, `{"kind":"http","port":7000,"path":"/","scheme":"http",` + rest},
		{
			"http: all keys", `{http: {path: "/a?b=c", port: "8080", scheme: https, host: shop.example, headers: {X-A: 1}, status: 204}}`,
			`{"kind":"http","port":8080,"path":"/a?b=c","scheme":"https","host":"shop.example","headers":{"X-A":"1"},"status":204,` + rest,
		},
		{"tcp", `{tcp: 5432}`, `{"kind":"tcp","port":5432,` + rest},
		{"tcp: the only port", `{tcp: {}}`, `{"kind":"tcp","port":80,` + rest},
		{"grpc", `{grpc: 9000}`, `{"kind":"grpc","port":9000,` + rest},
		{"grpc: a service", `{grpc: {service: shop.Cart}}`, `{"kind":"grpc","port":80,"grpc_service":"shop.Cart",` + rest},
		{"exec: arguments", `{exec: [/check, -v, 1]}`, `{"kind":"exec","exec":["/check","-v","1"],` + rest},
		{"exec: a text", `{exec: test -e /ready}`, `{"kind":"exec","exec":["/bin/sh","-c","test -e /ready"],` + rest},
		{
			"times", `{tcp: 1, interval: 500ms, timeout: 1s, initial_delay: 1m30s, failures: 1, successes: "2"}`,
			`{"kind":"tcp","port":1,"interval":500000000,"timeout":1000000000,"initial_delay":90000000000,"failures":1,"successes":2}`,
		},
		{"none", `~`, `null`},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := loadText(t, t.TempDir(), "services: {web: {image: nginx, ports: ['8080:80', '53:53/udp'], x-readiness: "+c.yaml+", x-liveness: "+c.yaml+"}}")
			for key, p := range map[string]*spec.Probe{"readiness": st.Services["web"].Readiness, "liveness": st.Services["web"].Liveness} {
				got, err := json.Marshal(p)
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != c.want {
					t.Errorf("%s:\n got %s\nwant %s", key, got, c.want)
				}
			}
		})
	}
}

func TestLoad_Extensions_ThroughAnchorsExtendsAndLaterFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("base.yaml", "services: {base: {x-min-ready: 5s, x-readiness: {http: ':80/', interval: 2s}}}")
	write("compose.yaml", `
x-alive: &alive {x-liveness: {tcp: 80}}
services:
  web: {image: nginx, extends: {file: base.yaml, service: base}, <<: *alive, x-drain: 0s}
`)
	write("compose.override.yaml", "services: {web: {x-readiness: {timeout: 1s}, x-progress-deadline: 3m}}")
	r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Diagnostics.Err(); err != nil {
		t.Fatal(err)
	}
	s := r.Stack.Services["web"]
	if s.Readiness.Interval != 2*time.Second || s.Readiness.Timeout != time.Second || s.Liveness.Port != 80 {
		t.Errorf("readiness %+v, liveness %+v", s.Readiness, s.Liveness)
	}
	if s.MinReady != 5*time.Second || s.Drain == nil || *s.Drain != 0 || s.ProgressDeadline != 3*time.Minute {
		t.Errorf("min ready %s, drain %v, deadline %s", s.MinReady, s.Drain, s.ProgressDeadline)
	}
	out, err := r.Config("yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"x-readiness:", "x-liveness:", "x-min-ready: 5s", "x-drain: 0s"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("config has no %s:\n%s", want, out)
		}
	}
}

func TestLoad_OnChange_TheReferenceWinsOverTheContent(t *testing.T) {
	st := loadText(t, t.TempDir(), `
services:
  web:
    image: nginx
    configs: [plain, hup, {source: hup, target: /own, x-on-change: replace}, {source: plain, target: /ignored, x-on-change: ignore}]
    secrets: [{source: token, x-on-change: signal:usr1}]
configs:
  plain: {content: a}
  hup: {content: b, x-on-change: "signal:HUP"}
secrets:
  token: {environment: PORT}
`)
	s := st.Services["web"]
	var got []string
	for _, m := range append(s.Configs, s.Secrets...) {
		got = append(got, m.Target+"="+m.OnChange+"="+m.Signal())
	}
	want := "/plain== /hup=signal:SIGHUP=SIGHUP /own== /ignored=ignore= /run/secrets/token=signal:SIGUSR1=SIGUSR1"
	if strings.Join(got, " ") != want {
		t.Errorf("got %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestHash_ContentThatIsChangedInPlace_IsNotInIt(t *testing.T) {
	s := &spec.Service{
		Name: "web", Configs: []spec.FileMount{{Source: "app", Target: "/app", OnChange: "signal:SIGHUP"}},
		Secrets: []spec.FileMount{
			{Source: "token", Target: "/a", OnChange: spec.OnChangeIgnore},
			{Source: "both", Target: "/b", OnChange: spec.OnChangeIgnore},
			{Source: "both", Target: "/c"},
		},
	}
	id := spec.Identity{Configs: map[string]string{"app": "1"}, Secrets: map[string]string{"token": "2", "both": "3"}}
	now := spec.Identity{Configs: map[string]string{"app": "x"}, Secrets: map[string]string{"token": "y", "both": "3"}}
	if spec.Hash(s, id) != spec.Hash(s, now) {
		t.Error("the hash follows content that is changed in place")
	}
	var got []string
	for _, c := range spec.Diff(s, s, id, now) {
		got = append(got, c.String()+" "+c.Class.String())
	}
	if text := strings.Join(got, ", "); text != "configs.app.content: changed inplace, secrets.token.content: changed inplace" {
		t.Errorf("differences: %s", text)
	}
	in := spec.InPlaceIdentity(s, now)
	if len(in) != 2 || in["configs.app"] != "x" || in["secrets.token"] != "y" {
		t.Errorf("in place: %v", in)
	}
	now.Secrets["both"] = "z"
	if spec.Hash(s, id) == spec.Hash(s, now) {
		t.Error("one mount of it asks for a replacement")
	}
}

func TestLoad_UpdateAndRollbackConfig_AndReservedMemory(t *testing.T) {
	st := loadText(t, t.TempDir(), `
services:
  web:
    image: nginx
    deploy:
      resources: {reservations: {memory: 64m}}
      update_config: {failure_action: pause, max_failure_ratio: 0.1, monitor: 0s}
      rollback_config: {failure_action: continue, parallelism: 0, delay: 2s}
`)
	s := st.Services["web"]
	if s.Resources.MemoryReservation != 64<<20 {
		t.Errorf("reserved %d", s.Resources.MemoryReservation)
	}
	if u := s.Update; u.FailureAction != "pause" || u.MaxFailureRatio != 0.1 || u.Monitor == nil || *u.Monitor != 0 || u.Delay != nil {
		t.Errorf("update %+v", u)
	}
	if u := s.Rollback; u.FailureAction != "continue" || u.Parallelism == nil || *u.Parallelism != 0 || *u.Delay != 2*time.Second {
		t.Errorf("rollback %+v", u)
	}
}
