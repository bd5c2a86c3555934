package spec_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/tools/txtar"

	"berth/spec"
)

// write lays out the files of a txtar in a folder named shop.
func write(t testing.TB, archive string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range txtar.Parse([]byte(archive)).Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load loads and fails the test on any error in the files.
func load(t testing.TB, o spec.Options) *spec.Result {
	t.Helper()
	if o.Environ == nil {
		o.Environ = []string{}
	}
	r, err := spec.Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Diagnostics.Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

func images(r *spec.Result) map[string]string {
	out := map[string]string{}
	for name, s := range r.Stack.Services {
		out[name] = s.Image
	}
	return out
}

const two = `
-- compose.yaml --
services:
  web: {image: "nginx:${TAG:-1}", depends_on: [db]}
  db: {image: postgres}
  tool: {image: busybox, profiles: [tools]}
-- compose.override.yaml --
services:
  db: {image: "postgres:16"}
-- prod.yaml --
services:
  web: {image: "nginx:prod"}
-- sub/deep/x --
-- prod.env --
TAG=from-file
`

func TestLoad_FindsFilesAsComposeDoes(t *testing.T) {
	dir := write(t, two)
	for _, c := range []struct {
		name string
		o    spec.Options
		want map[string]string
	}{
		{"found, with the override", spec.Options{Dir: dir}, map[string]string{"web": "nginx:1", "db": "postgres:16"}},
		{"found upward", spec.Options{Dir: filepath.Join(dir, "sub", "deep")}, map[string]string{"web": "nginx:1", "db": "postgres:16"}},
		{"-f takes no override", spec.Options{Dir: dir, Files: []string{"compose.yaml"}}, map[string]string{"web": "nginx:1", "db": "postgres"}},
		{"several -f", spec.Options{Dir: dir, Files: []string{"compose.yaml", "prod.yaml"}}, map[string]string{"web": "nginx:prod", "db": "postgres"}},
		{"COMPOSE_FILE", spec.Options{Dir: dir, Environ: []string{"COMPOSE_FILE=compose.yaml:prod.yaml"}}, map[string]string{"web": "nginx:prod", "db": "postgres"}},
		{
			"COMPOSE_PATH_SEPARATOR",
			spec.Options{Dir: dir, Environ: []string{"COMPOSE_FILE=compose.yaml,prod.yaml", "COMPOSE_PATH_SEPARATOR=,"}},
			map[string]string{"web": "nginx:prod", "db": "postgres"},
		},
		{"--env-file", spec.Options{Dir: dir, EnvFiles: []string{"prod.env"}}, map[string]string{"web": "nginx:from-file", "db": "postgres:16"}},
		{"COMPOSE_ENV_FILES", spec.Options{Dir: dir, Environ: []string{"COMPOSE_ENV_FILES=prod.env"}}, map[string]string{"web": "nginx:from-file", "db": "postgres:16"}},
		{"the environment wins", spec.Options{Dir: dir, EnvFiles: []string{"prod.env"}, Environ: []string{"TAG=env"}}, map[string]string{"web": "nginx:env", "db": "postgres:16"}},
		{
			"profile",
			spec.Options{Dir: dir, Profiles: []string{"tools"}},
			map[string]string{"web": "nginx:1", "db": "postgres:16", "tool": "busybox"},
		},
		{
			"COMPOSE_PROFILES",
			spec.Options{Dir: dir, Environ: []string{"COMPOSE_PROFILES=a, tools"}},
			map[string]string{"web": "nginx:1", "db": "postgres:16", "tool": "busybox"},
		},
		{"a service brings its dependencies", spec.Options{Dir: dir, Services: []string{"web"}}, map[string]string{"web": "nginx:1", "db": "postgres:16"}},
		{"--no-deps", spec.Options{Dir: dir, Services: []string{"web"}, NoDeps: true}, map[string]string{"web": "nginx:1"}},
		{"a named service enables its profile", spec.Options{Dir: dir, Services: []string{"tool"}}, map[string]string{"tool": "busybox"}},
		{
			"stdin",
			spec.Options{Dir: dir, Files: []string{"-"}, Stdin: []byte("services: {a: {image: b}}")},
			map[string]string{"a": "b"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, images(load(t, c.o))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoad_NamePrecedence(t *testing.T) {
	plain := write(t, "-- compose.yaml --\nservices: {a: {image: b}}\n")
	named := write(t, "-- compose.yaml --\nname: ${N:-filed}\nservices: {a: {image: b}}\n")
	env := []string{"COMPOSE_PROJECT_NAME=fromenv"}
	for _, c := range []struct {
		name string
		o    spec.Options
		want string
	}{
		{"folder", spec.Options{Dir: plain}, "shop"},
		{"--project-directory", spec.Options{Dir: plain, Files: []string{"compose.yaml"}, ProjectDir: "/srv/My.App"}, "myapp"},
		{"name in the file", spec.Options{Dir: named}, "filed"},
		{"name with a variable", spec.Options{Dir: named, Environ: []string{"N=var"}}, "var"},
		{"COMPOSE_PROJECT_NAME", spec.Options{Dir: named, Environ: env}, "fromenv"},
		{"-p", spec.Options{Dir: named, Environ: env, ProjectName: "flag"}, "flag"},
	} {
		if got := load(t, c.o).Stack.Name; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	r, err := spec.Load(t.Context(), spec.Options{Dir: plain, ProjectName: "Not Good"})
	if err != nil || !r.Diagnostics.Errors() {
		t.Errorf("a bad -p was taken: %v, %v", r.Diagnostics, err)
	}
}

func TestLoad_DotEnv_OfProjectFolder(t *testing.T) {
	dir := write(t, `
-- .env --
COMPOSE_FILE=app/compose.yaml
A=outer
-- app/compose.yaml --
services: {a: {image: "x:v${A}-${B}"}}
-- app/.env --
A=inner
B=inner
`)
	r := load(t, spec.Options{Dir: dir})
	if got := r.Stack.Services["a"].Image; got != "x:vouter-inner" {
		t.Errorf("image %s: what is read first wins, what is missing is added", got)
	}
	want := []string{filepath.Join(dir, ".env"), filepath.Join(dir, "app", ".env")}
	if !slices.Equal(r.Stack.EnvFiles, want) {
		t.Errorf("env files %v, want %v", r.Stack.EnvFiles, want)
	}
	off := load(t, spec.Options{Dir: dir, Files: []string{"app/compose.yaml"}, Environ: []string{"COMPOSE_DISABLE_ENV_FILE=1", "B=b"}})
	if got := off.Stack.Services["a"].Image; got != "x:v-b" {
		t.Errorf("image %s although .env is disabled", got)
	}
}

func TestLoad_NoFile_SaysWhatToDo(t *testing.T) {
	r, err := spec.Load(t.Context(), spec.Options{Dir: "/proc/self/task", Environ: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Diagnostics) != 1 || !strings.HasPrefix(r.Diagnostics[0].Message, "no Compose file in ") || r.Diagnostics[0].Hint == "" {
		t.Errorf("got %+v", r.Diagnostics)
	}
	r, err = spec.Load(t.Context(), spec.Options{Dir: t.TempDir(), Files: []string{"nope.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Diagnostics[0].Error(); got != "nope.yaml: does not exist" {
		t.Errorf("got %q", got)
	}
}

func TestLoad_UnreadableFolder_IsAnError(t *testing.T) {
	if _, err := spec.Load(t.Context(), spec.Options{Dir: "/nonexistent"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestLoad_CancelledContext_IsAnError(t *testing.T) {
	dir := write(t, two)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := spec.Load(ctx, spec.Options{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLoad_UnknownService_SuggestsOne(t *testing.T) {
	r, err := spec.Load(t.Context(), spec.Options{Dir: write(t, two), Services: []string{"wbe"}, Environ: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Diagnostics.Filter(spec.Error); len(d) != 1 || d[0].Hint != `did you mean "web"?` {
		t.Errorf("got %+v", d)
	}
}

const rich = `
-- compose.yaml --
name: shop
services:
  web:
    image: nginx:1.27
    entrypoint: []
    command: run --fast "a b"
    env_file: web.env
    environment:
      OWN: "2"
      FROM_HOST:
      NOT_THERE:
      EMPTY: ""
    user: "33"
    ports:
      - "8080-8081:80-81"
      - "127.0.0.1:9000-9010:9000/udp"
      - target: 443
        published: "443"
        name: tls
        mode: host
    volumes:
      - data:/data/
      - ./conf:/conf:ro
      - type: tmpfs
        target: /cache
        tmpfs: {size: 64m, mode: 0o700}
      - /anonymous
    tmpfs: ["/run:size=1m,mode=0755,noexec,ro"]
    configs:
      - app
      - {source: inline, target: /etc/inline, uid: "5", mode: 0o440}
    secrets: [token]
    networks:
      front: {aliases: [www], ipv4_address: 10.1.0.9, priority: 7}
      back:
    links: ["db:database"]
    depends_on:
      migrate: {condition: service_completed_successfully}
    cpus: 0.1
    mem_limit: 64m
    mem_swappiness: 0
    pids_limit: 100
    ulimits: {nproc: 10, nofile: {soft: 1, hard: 2}}
    extra_hosts: ["b:10.0.0.2", "a=::1"]
    stop_grace_period: 1m30s
    restart: on-failure:3
    healthcheck: {test: curl localhost, interval: 5s, retries: 2}
    logging: {driver: local, options: {max-size: 5m}}
    deploy:
      replicas: 3
      endpoint_mode: dnsrr
      update_config: {parallelism: 0, delay: 0s, order: stop-first}
  db:
    image: postgres
    network_mode: none
    healthcheck: {disable: true}
    deploy: {restart_policy: {condition: any, delay: 2s, max_attempts: 4}}
  migrate:
    image: app
    init: true
    network_mode: service:db
    build: {context: ., target: prod}
networks:
  front: {internal: true, ipam: {config: [{subnet: 10.1.0.0/16}]}}
  back: {name: shared, external: true}
  unused: {}
volumes:
  data: {name: shop-data, labels: [a=b]}
configs:
  app: {file: ./app.conf}
  inline: {content: "hello $WHO"}
secrets:
  token: {environment: TOKEN}
-- web.env --
OWN=1
FILED="x y"
-- app.conf --
conf
`

func TestLoad_Rich_BecomesThisStack(t *testing.T) {
	dir := write(t, rich)
	st := load(t, spec.Options{Dir: dir, Environ: []string{"FROM_HOST=h", "TOKEN=t0p", "WHO=you"}}).Stack
	grace, zero, parallel, swap := 90*time.Second, time.Duration(0), 0, int64(0)
	want := spec.Service{
		Name: "web", Image: "nginx:1.27", Entrypoint: &[]string{}, Command: &[]string{"run", "--fast", "a b"},
		Environment: map[string]string{"OWN": "2", "FROM_HOST": "h", "EMPTY": "", "FILED": "x y"},
		User:        "33",
		Ports: []spec.Port{
			{Published: 8080, Target: 80, Protocol: "tcp"},
			{Published: 8081, Target: 81, Protocol: "tcp"},
			{HostIP: "127.0.0.1", Published: 9000, PublishedEnd: 9010, Target: 9000, Protocol: "udp"},
			{Published: 443, Target: 443, Protocol: "tcp", Name: "tls", Mode: "host"},
		},
		Mounts: []spec.Mount{
			{Type: "volume", Source: "data", Target: "/data"},
			{Type: "bind", Source: filepath.Join(dir, "conf"), Target: "/conf", ReadOnly: true, CreateHostPath: true},
			{Type: "tmpfs", Target: "/cache", TmpfsSize: 64 << 20, TmpfsMode: 0o700},
			{Type: "volume", Target: "/anonymous"},
			{Type: "tmpfs", Target: "/run", TmpfsSize: 1 << 20, TmpfsMode: 0o755, ReadOnly: true, TmpfsOptions: []string{"noexec"}},
		},
		Configs: []spec.FileMount{
			{Source: "app", Target: "/app", Mode: 0o444},
			{Source: "inline", Target: "/etc/inline", UID: "5", Mode: 0o440},
		},
		Secrets: []spec.FileMount{{Source: "token", Target: "/run/secrets/token", Mode: 0o444}},
		Networks: []spec.Attachment{
			{Network: "back"},
			{Network: "front", Aliases: []string{"www"}, IPv4: "10.1.0.9", Priority: 7},
		},
		Links: []string{"db:database"},
		DependsOn: []spec.Dependency{
			{Service: "db", Condition: spec.DependsStarted, Required: true, Restart: true},
			{Service: "migrate", Condition: spec.DependsCompleted, Required: true},
		},
		Resources:       spec.Resources{NanoCPUs: 1e8, Memory: 64 << 20, MemorySwappiness: &swap, Pids: 100},
		Ulimits:         []spec.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}, {Name: "nproc", Soft: 10, Hard: 10}},
		ExtraHosts:      []string{"a=::1", "b=10.0.0.2"},
		StopGracePeriod: &grace,
		Restart:         spec.RestartPolicy{Condition: spec.RestartOnFailure, MaxAttempts: 3},
		Healthcheck:     &spec.Healthcheck{Test: []string{"CMD-SHELL", "curl localhost"}, Interval: 5 * time.Second, Retries: 2},
		Logging:         spec.Logging{Driver: "local", Options: map[string]string{"max-size": "5m"}},
		Replicas:        3, EndpointMode: "dnsrr",
		Update: &spec.UpdateConfig{Parallelism: &parallel, Delay: &zero, Order: "stop-first"},
	}
	if diff := cmp.Diff(want, st.Services["web"]); diff != "" {
		t.Error(diff)
	}
	db := st.Services["db"]
	if db.NetworkMode != "none" || !db.Healthcheck.Disable || db.Restart != (spec.RestartPolicy{Condition: spec.RestartAlways, Delay: 2 * time.Second, MaxAttempts: 4}) {
		t.Errorf("db: %+v", db)
	}
	migrate := st.Services["migrate"]
	if !migrate.OneShot || !migrate.Init || migrate.Build == nil || migrate.Build.Target != "prod" || db.OneShot {
		t.Errorf("migrate: %+v", migrate)
	}
	if len(migrate.DependsOn) != 1 || !migrate.DependsOn[0].Restart {
		t.Errorf("network_mode: service:db implies %+v", migrate.DependsOn)
	}
	networks := map[string]spec.Network{
		"front": {Key: "front", Name: "shop_front", Internal: true, IPAM: []spec.IPAMPool{{Subnet: "10.1.0.0/16"}}},
		"back":  {Key: "back", Name: "shared", External: true},
	}
	if diff := cmp.Diff(networks, st.Networks); diff != "" {
		t.Error(diff)
	}
	volumes := map[string]spec.Volume{"data": {Key: "data", Name: "shop-data", Labels: map[string]string{"a": "b"}}}
	if diff := cmp.Diff(volumes, st.Volumes); diff != "" {
		t.Error(diff)
	}
	for got, want := range map[string]string{
		string(st.Configs["app"].Content): "conf\n", string(st.Configs["inline"].Content): "hello you",
		string(st.Secrets["token"].Content): "t0p", st.Secrets["token"].Name: "shop_token",
	} {
		if got != want {
			t.Errorf("content %q, want %q", got, want)
		}
	}
	for path, want := range map[string]spec.Position{
		"services.web.ports.1":         {File: "compose.yaml", Line: 16, Col: 9},
		"services.web.environment.OWN": {File: "compose.yaml", Line: 9, Col: 7},
		"volumes.data":                 {File: "compose.yaml", Line: 68, Col: 3},
	} {
		if got := st.Positions[path]; got != want {
			t.Errorf("%s is at %v, want %v", path, got, want)
		}
	}
}

// TestLoad_Stack_SurvivesJSON: it is sent to the agent and stored.
func TestLoad_Stack_SurvivesJSON(t *testing.T) {
	st := load(t, spec.Options{Dir: write(t, rich), Environ: []string{"TOKEN=t", "WHO=w"}}).Stack
	b, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	var back spec.Stack
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*st, back); diff != "" {
		t.Error(diff)
	}
	for name, s := range st.Services {
		other := back.Services[name]
		if a, b := spec.Hash(&s, spec.Identity{}), spec.Hash(&other, spec.Identity{}); a != b {
			t.Errorf("%s: the hash changes on the way: %s, %s", name, a, b)
		}
	}
}

func TestLoad_Twice_GivesEqualStacks(t *testing.T) {
	dir := write(t, rich)
	o := spec.Options{Dir: dir, Environ: []string{"TOKEN=t", "WHO=w"}}
	first := load(t, o)
	for range 5 {
		if again := load(t, o); !reflect.DeepEqual(first.Stack, again.Stack) || !reflect.DeepEqual(first.Diagnostics, again.Diagnostics) {
			t.Fatal(cmp.Diff(first.Stack, again.Stack), cmp.Diff(first.Diagnostics, again.Diagnostics))
		}
	}
}

func TestLoad_Inspect_WarnsOfMissingContent(t *testing.T) {
	dir := write(t, "-- compose.yaml --\nservices: {a: {image: b, secrets: [s]}}\nsecrets: {s: {file: ./none}}\n")
	r := load(t, spec.Options{Dir: dir, Inspect: true})
	if len(r.Diagnostics.Filter(spec.Warning)) != 1 {
		t.Errorf("got %v", r.Diagnostics)
	}
}

// TestConfig_LoadsAgain: the printed form leaves zeros out, so two of them
// are given another value.
func TestConfig_LoadsAgain(t *testing.T) {
	dir := write(t, strings.NewReplacer("mem_swappiness: 0", "mem_swappiness: 9", "delay: 0s", "delay: 9s").Replace(rich))
	env := []string{"TOKEN=t", "WHO=w$HOME"}
	r := load(t, spec.Options{Dir: dir, Environ: env})
	for _, format := range []string{"yaml", "json"} {
		out, err := r.Config(format, nil)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte("t0p")) {
			t.Errorf("%s shows a secret", format)
		}
		again := load(t, spec.Options{Dir: dir, Files: []string{"-"}, Stdin: out, Environ: env})
		ignorePositions := cmp.FilterPath(func(p cmp.Path) bool {
			return p.String() == "Positions" || p.String() == "Files"
		}, cmp.Ignore())
		if diff := cmp.Diff(r.Stack, again.Stack, ignorePositions); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
	}
	if _, err := r.Config("toml", nil); err == nil {
		t.Error("format toml was taken")
	}
}

func TestConfig_NoInterpolate_KeepsVariables(t *testing.T) {
	r, err := spec.Load(t.Context(), spec.Options{Dir: write(t, two), NoInterpolate: true, Environ: []string{}})
	if err != nil || r.Diagnostics.Errors() {
		t.Fatal(err, r.Diagnostics)
	}
	out, err := r.Config("yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("nginx:${TAG:-1}")) {
		t.Errorf("got %s", out)
	}
	if v := r.Variables(); len(v) != 1 || v[0].Name != "TAG" || v[0].Default != "1" {
		t.Errorf("variables %+v", v)
	}
}

func TestResult_Lists(t *testing.T) {
	r := load(t, spec.Options{Dir: write(t, rich), Environ: []string{"TOKEN=t", "WHO=w"}})
	for name, c := range map[string]struct{ got, want []string }{
		"services":    {r.Services(), []string{"db", "migrate", "web"}},
		"images":      {r.Images(), []string{"app", "nginx:1.27", "postgres"}},
		"volumes":     {r.Volumes(), []string{"data"}},
		"networks":    {r.Networks(), []string{"back", "front"}},
		"hashes":      {slices.Sorted(maps.Keys(r.Hashes())), []string{"db", "migrate", "web"}},
		"environment": {r.Environment(), []string{"TOKEN=t", "WHO=w"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %q, want %q", name, c.got, c.want)
		}
	}
	tools := load(t, spec.Options{Dir: write(t, two)})
	if got := tools.Profiles(); !slices.Equal(got, []string{"tools"}) {
		t.Errorf("profiles %q", got)
	}
}

// TestLoad_ListsOfTwoFiles_KeepTheirPlaces: the override appends to the list,
// so item 1 stands in the second file.
func TestLoad_ListsOfTwoFiles_KeepTheirPlaces(t *testing.T) {
	dir := write(t, `
-- compose.yaml --
services:
  a:
    image: x
    ports: ["80:80"]
    command: [a]
-- compose.override.yaml --
services:
  a:
    ports: ["443:443"]
    command: [b]
`)
	st := load(t, spec.Options{Dir: dir}).Stack
	for path, want := range map[string]string{
		"services.a.ports.0":   "compose.yaml:4:13",
		"services.a.ports.1":   "compose.override.yaml:3:13",
		"services.a.command.0": "compose.override.yaml:4:15",
	} {
		if got := st.Positions[path].String(); got != want {
			t.Errorf("%s is at %s, want %s", path, got, want)
		}
	}
	if got := st.Services["a"].Ports; len(got) != 2 || got[0].Target != 80 || got[1].Target != 443 {
		t.Errorf("ports %v", got)
	}
}

// TestLoad_Concurrent_DoesNotMix: Load is called by the agent for several
// repositories at once.
func TestLoad_Concurrent_DoesNotMix(t *testing.T) {
	var g errgroup.Group
	for i := range 16 {
		name := fmt.Sprintf("s%d", i)
		dir := write(t, "-- compose.yaml --\nservices: {"+name+": {image: \"x$UNSET_"+name+"\"}}\n")
		g.Go(func() error {
			r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}})
			if err != nil {
				return err
			}
			if len(r.Diagnostics) != 1 || !strings.Contains(r.Diagnostics[0].Message, "UNSET_"+name+" ") || !slices.Equal(r.Services(), []string{name}) {
				return fmt.Errorf("%s: %v, %v", name, r.Services(), r.Diagnostics)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestLoad_NameLeftEmpty_IsTheDefault(t *testing.T) {
	r := load(t, spec.Options{Dir: write(t, `
-- compose.yaml --
name: shop
services: {a: {image: i, volumes: ["data:/data"], networks: [net]}}
volumes: {data: {name: "${UNSET}"}}
networks: {net: {name: "${UNSET}"}}
`)})
	if v, n := r.Stack.Volumes["data"].Name, r.Stack.Networks["net"].Name; v != "shop_data" || n != "shop_net" {
		t.Errorf("volume %q, network %q", v, n)
	}
}

func TestLoad_ExposeWithAPortOfTheHost_IsTheContainers(t *testing.T) {
	r := load(t, spec.Options{Dir: write(t, `
-- compose.yaml --
services: {a: {image: i, expose: ["9000:8000", "53/udp"]}}
`)})
	if got := r.Stack.Services["a"].Expose; !slices.Equal(got, []string{"8000", "53/udp"}) {
		t.Errorf("exposes %q", got)
	}
	found := r.Diagnostics.Filter(spec.Ignored)
	if len(found) != 1 || found[0].Line != 1 || found[0].Hint != `write "8000", or publish it below ports` {
		t.Errorf("%v", found)
	}
}
