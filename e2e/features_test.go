package e2e_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/testbed"
)

// inside is a stack of many small services, each of which shows some features
// to whoever looks from within.
const inside = `
x-idle: &idle
  image: busybox
  command: sleep 1000
  stop_signal: KILL
services:
  process:
    <<: *idle
    environment: {SET: "a b", EMPTY: "", FROM: "${NOWHERE:-default}"}
    env_file: [more.env]
    user: "1234:5678"
    group_add: ["4321"]
    working_dir: /tmp
    hostname: box
    domainname: example.test
    labels: {a.label: "its value"}
    extra_hosts: ["there:192.0.2.7", "gate:host-gateway"]
    dns_search: [corp.test]
  storage:
    <<: *idle
    read_only: true
    tmpfs: ["/scratch:size=1m,mode=0700"]
    shm_size: 16m
    volumes:
      - {type: tmpfs, target: /small, tmpfs: {size: 2097152}}
      - ./file.txt:/bound.txt:ro
      - {type: volume, source: data, target: /data}
      - {type: volume, source: data, target: /part, volume: {subpath: sub}}
    configs:
      - {source: page, target: /etc/page, uid: "33", gid: "34", mode: 0440}
      - page
    secrets:
      - {source: word, uid: "1234", mode: 0400}
    depends_on: {filler: {condition: service_completed_successfully}}
  filler:
    image: busybox
    command: sh -c 'mkdir /data/sub; echo deep > /data/sub/file'
    volumes: ["data:/data"]
  seeded:
    image: redis:alpine
    command: sleep 1000
    entrypoint: []
    stop_signal: KILL
    volumes: ["seed:/etc/redis", "owned:/data"]
  limits:
    <<: *idle
    cpus: 0.5
    mem_limit: 48m
    pids_limit: 20
    ulimits: {nofile: {soft: 100, hard: 200}, nproc: 50}
    sysctls: {net.core.somaxconn: "77"}
    oom_score_adj: 300
  bare:
    <<: *idle
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE, CHOWN]
    security_opt: ["no-new-privileges:true"]
  initial:
    <<: *idle
    init: true
  stubborn:
    image: busybox
    command: sh -c 'trap "echo not now" TERM; while true; do sleep 0.1; done'
    stop_grace_period: 1s
  polite:
    image: busybox
    command: sh -c 'trap "echo bye; exit 7" USR1; while true; do sleep 0.1; done'
    stop_signal: USR1
  sick:
    <<: *idle
    healthcheck: {test: ["CMD-SHELL", "echo too ill; exit 1"], interval: 100ms, retries: 2}
secrets:
  word: {file: word.txt}
configs:
  page: {content: "it is ${NOWHERE:-a page}"}
volumes:
  data: {}
  seed: {}
  owned: {}
`

// TestFeatures_SeenFromInside looks at each feature from within a container.
func TestFeatures_SeenFromInside(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "inside", inside)
	s.write(t, "more.env", "MORE=from a file\n# a comment\nSET=overridden\n")
	s.write(t, "file.txt", "bound")
	s.write(t, "word.txt", "secret")
	if r := s.berth(t, "up", "-d", "--wait-timeout", "3"); r.code != 3 || !strings.Contains(r.err, "sick") || !strings.Contains(r.err, "too ill") {
		t.Errorf("up with a service that never becomes healthy: %s", r)
	}

	for _, look := range []struct{ feature, service, script, want string }{
		{"environment", "process", `echo "$SET|$EMPTY|$FROM|$MORE"`, "a b||default|from a file"},
		{"user and group_add", "process", "id -u; id -g; id -G", "1234\n5678\n5678 4321"},
		{"working_dir", "process", "pwd", "/tmp"},
		{"hostname", "process", "hostname; cat /etc/hostname; hostname -f", "box\nbox\nbox.example.test"},
		{"extra_hosts", "process", "grep -w there /etc/hosts | tr '\t' ' '", "192.0.2.7 there"},
		{"host-gateway", "process", "test $(awk '$2==\"gate\"{print $1}' /etc/hosts) = $(ip route | awk '/default/{print $3}') && echo same", "same"},
		{"dns_search", "process", "grep search /etc/resolv.conf", "search corp.test"},
		{"no capabilities for a plain user", "process", "grep CapEff /proc/self/status | tr -d '\t'", "CapEff:0000000000000000"},

		{"read_only", "storage", "touch /file 2>&1 | grep -o 'Read-only file system'", "Read-only file system"},
		{"tmpfs size", "storage", "df -k /scratch | awk 'NR==2{print $2}'", "1024"},
		{"tmpfs mode", "storage", "stat -c %a /scratch", "700"},
		{"tmpfs size, long form", "storage", "df -k /small | awk 'NR==2{print $2}'", "2048"},
		{"shm_size", "storage", "df -k /dev/shm | awk 'NR==2{print $2}'", "16384"},
		{"bind of a file", "storage", "cat /bound.txt; touch /bound.txt 2>/dev/null || echo read-only", "boundread-only"},
		{"volume", "storage", "cat /data/sub/file", "deep"},
		{"volume subpath", "storage", "ls /part; cat /part/file", "file\ndeep"},
		{"config", "storage", "cat /etc/page; stat -c ' %u %g %a' /etc/page", "it is a page 33 34 440"},
		{"config at its default place", "storage", "cat /page", "it is a page"},
		{"secret", "storage", "cat /run/secrets/word; stat -c ' %u %g %a' /run/secrets/word", "secret 1234 0 400"},
		{"secret is not on a disk", "storage", "stat -f -c %T /run/secrets/word", "tmpfs"},

		{"volume filled from the image", "seeded", "test -e /etc/redis/redis.conf && echo there", "there"},
		{"volume has the image's owner", "seeded", "stat -c '%u %g' /data", "999 999"},

		{"ulimits", "limits", "ulimit -Sn; ulimit -Hn", "100\n200"},
		{"sysctls", "limits", "cat /proc/sys/net/core/somaxconn", "77"},
		{"oom_score_adj", "limits", "cat /proc/1/oom_score_adj", "300"},

		{"cap_drop and cap_add", "bare", "grep CapEff /proc/1/status | tr -d '\t'", "CapEff:0000000000000401"},
		{"no-new-privileges", "bare", "grep NoNewPrivs /proc/1/status | tr -d '\t'", "NoNewPrivs:1"},
		{"init", "initial", "tr '\\0' ' ' </proc/1/cmdline; grep -l sleep /proc/[0-9]*/comm | wc -l", "/dev/berth-init sleep 1000 1"},
	} {
		t.Run(look.feature, func(t *testing.T) {
			if got := s.sh(t, look.service, look.script); got != look.want {
				t.Errorf("got %q, want %q", got, look.want)
			}
		})
	}

	t.Run("limits of the cgroup", func(t *testing.T) {
		id := s.only(t, "limits").ID
		for _, test := range [][3]string{
			{"memory", "memory.limit_in_bytes", "50331648"}, {"cpu", "cpu.cfs_quota_us", "50000"}, {"pids", "pids.max", "20"},
		} {
			if got := m.limit(t, id, test[0], test[1]); got != test[2] {
				t.Errorf("%s is %s, want %s", test[1], got, test[2])
			}
		}
		if r := s.berth(t, "exec", "limits", "sh", "-c", "for i in $(seq 40); do sleep 1 & done"); !strings.Contains(r.err, "can't fork") {
			t.Errorf("forty processes fit below a limit of twenty: %s", r)
		}
	})

	t.Run("labels", func(t *testing.T) {
		if got := m.inspect(t, s.only(t, "process").ID).Labels["a.label"]; got != "its value" {
			t.Errorf("the label is %q", got)
		}
	})

	t.Run("health", func(t *testing.T) {
		c := s.awaitOnly(t, "sick", 5*time.Second, func(c container) bool { return c.Health == "unhealthy" })
		if c.Ready || !strings.Contains(c.Status, "unhealthy") {
			t.Errorf("%+v", c)
		}
		probes := m.inspect(t, c.ID).Probes
		if n := len(probes); n == 0 || probes[n-1].ExitCode != 1 || probes[n-1].Output != "too ill\n" {
			t.Errorf("the probes are %+v", probes)
		}
	})

	t.Run("stop signal and grace", func(t *testing.T) {
		begin := time.Now()
		s.must(t, "stop", "stubborn", "polite")
		if took := time.Since(begin); took < time.Second || took > 5*time.Second {
			t.Errorf("stop took %s, with a grace of 1 s", took)
		}
		if c := s.only(t, "stubborn"); c.ExitCode != 137 || c.State != api.TaskExited {
			t.Errorf("stubborn: %+v", c)
		}
		if c := s.only(t, "polite"); c.ExitCode != 7 || c.State != api.TaskExited {
			t.Errorf("polite: %+v", c)
		}
		if logs := s.must(t, "logs", "stubborn", "polite"); !strings.Contains(logs, "not now") || !strings.Contains(logs, "bye") {
			t.Errorf("the last words are lost:\n%s", logs)
		}
	})

	t.Run("out of memory", func(t *testing.T) {
		before := s.only(t, "limits")
		s.berth(t, "exec", "limits", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1")
		if now := s.only(t, "limits"); now.State != api.TaskRunning {
			t.Errorf("what a command in it used up ended the container: %+v, was %+v", now, before)
		}
	})

	t.Run("nothing secret on disk", func(t *testing.T) {
		for _, dir := range []string{filepath.Join(m.root, "tasks"), filepath.Join(m.root, "logs"), filepath.Join(m.root, "secrets")} {
			if out := run(t, "sh", "-c", "grep -rlw secret "+dir+" || true"); regexp.MustCompile(`\S`).MatchString(out) {
				t.Errorf("the secret is in %s", out)
			}
		}
	})
}
