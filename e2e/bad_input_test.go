package e2e_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"berth/testbed"
)

// TestBadInput_EachIsOneLine_AndNothingChanges gives one agent, which keeps a
// stack running, what can't work. Each time it says so in one line with its
// place, says what to do, and leaves everything as it was.
func TestBadInput_EachIsOneLine_AndNothingChanges(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	keeps := m.stack(t, "keeps", `
services:
  web:
    image: berth-testbed/tiny
    ports: ["8092:8080"]
`)
	keeps.up(t)
	busy, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "0.0.0.0:8093")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()

	for _, test := range []struct {
		name, text string
		// want is a pattern of the line on stderr that says it; hint, one of
		// what follows.
		want, hint string
	}{
		{
			"wrong type", "services: {web: {image: busybox, ports: 80}}",
			`compose\.yaml:1:\d+: .*ports`, "",
		},
		{
			"unknown key", "services:\n  web:\n    image: busybox\n    prots: [\"80:80\"]\n",
			`compose\.yaml:4:5: .*prots`, `did you mean "ports"`,
		},
		{
			"not YAML", "services:\n  web: [",
			`compose\.yaml:\d+:\d+: `, "",
		},
		{
			"dependency cycle", "services:\n  a: {image: busybox, depends_on: [b]}\n  b: {image: busybox, depends_on: [a]}\n",
			`compose\.yaml:3:36: .*wait for each other.*a → b → a`, "remove one",
		},
		{
			"undefined volume", "services:\n  web:\n    image: busybox\n    volumes: [\"data:/data\"]\n",
			`compose\.yaml:4:\d+: .*data`, "volumes",
		},
		{
			"undefined dependency", "services:\n  web: {image: busybox, depends_on: [nobody]}\n",
			`compose\.yaml:2:\d+: .*nobody`, "",
		},
		{
			"missing variable", "services:\n  web:\n    image: busybox:${VERSION:?say which}\n",
			`compose\.yaml:3:\d+: .*say which`, "",
		},
		{
			"port of a host process", "services:\n  web:\n    image: busybox\n    ports: [\"8093:80\"]\n",
			`compose\.yaml:4:\d+: .*8093.*\(pid ` + strconv.Itoa(os.Getpid()) + `\)`, "port",
		},
		{
			"port of another stack", "services:\n  web:\n    image: busybox\n    ports: [\"8092:80\"]\n",
			`compose\.yaml:4:\d+: .*8092.*stack keeps`, "port",
		},
		{
			"image not found", "services:\n  web:\n    image: " + mirror(t) + "/no/such:1\n",
			`compose\.yaml:3:\d+: .*no/such:1`, "",
		},
		{
			"external network missing", "services: {web: {image: busybox, networks: [out]}}\nnetworks:\n  out: {external: true, name: elsewhere}\n",
			`compose\.yaml:3:\d+: .*elsewhere`, "berth network create elsewhere",
		},
		{
			"external volume missing", "services: {web: {image: busybox, volumes: [\"out:/out\"]}}\nvolumes:\n  out: {external: true, name: elsewhere}\n",
			`compose\.yaml:3:\d+: .*elsewhere`, "berth volume create elsewhere",
		},
		{
			"health of what has no health test", "services:\n  db: {image: busybox}\n  web:\n    image: busybox\n    depends_on: {db: {condition: service_healthy}}\n",
			`compose\.yaml:5:\d+: .*db has no healthcheck`, "",
		},
		{
			"bind source missing", "services:\n  web:\n    image: busybox\n    volumes:\n      - {type: bind, source: /no/where, target: /x, bind: {create_host_path: false}}\n",
			`compose\.yaml:5:\d+: .*/no/where does not exist`, "create it",
		},
		{
			"config file missing", "services: {web: {image: busybox, configs: [c]}}\nconfigs:\n  c: {file: ./nowhere.txt}\n",
			`compose\.yaml:3:\d+: .*nowhere\.txt`, "",
		},
		{
			"env_file missing", "services:\n  web:\n    image: busybox\n    env_file: nowhere.env\n",
			`compose\.yaml:4:\d+: .*nowhere\.env`, "",
		},
		{
			"subnet of the loopback", "services: {web: {image: busybox}}\nnetworks:\n  default: {ipam: {config: [{subnet: 127.0.0.0/8}]}}\n",
			`compose\.yaml:3:\d+: .*127\.0\.0\.0/8`, "private",
		},
		{
			"subnet of another network", "services: {web: {image: busybox}}\nnetworks:\n  default: {ipam: {config: [{subnet: 10.210.0.0/16}]}}\n",
			`compose\.yaml:3:\d+: .*10\.210\.0\.0/16`, "choose another subnet",
		},
		{
			"build without a Dockerfile", "services:\n  web:\n    build: .\n",
			`error: .*compose\.yaml:3:5: service web: there is no Dockerfile /`, "build.dockerfile",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := m.inventory(t)
			dir := filepath.Join(t.TempDir(), "bad")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "compose.yaml")
			if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { m.must(t, "-p", "bad", "down") }) // usually there is none
			r := m.berth(t, "-f", file, "up", "-d", "--wait-timeout", "20")
			if r.code != 1 {
				t.Errorf("want exit 1: %s", r)
			}
			oneComplaint(t, r, test.want, test.hint)
			if after := m.inventory(t); after != before {
				t.Errorf("the machine was\n%s\nand is\n%s", before, after)
			}
			if _, err := fetch("http://127.0.0.1:8092/"); err != nil {
				t.Errorf("what ran before: %v", err)
			}
		})
	}

	t.Run("no file", func(t *testing.T) {
		r := m.berth(t, "-f", filepath.Join(t.TempDir(), "compose.yaml"), "up", "-d")
		if r.code != 1 {
			t.Errorf("want exit 1: %s", r)
		}
		oneComplaint(t, r, `compose\.yaml`, "")
	})
}

// oneComplaint wants one line that matches, and a hint if one is named.
func oneComplaint(t *testing.T, r result, want, hint string) {
	t.Helper()
	pattern := regexp.MustCompile(want)
	var lines []string
	for line := range strings.Lines(r.err) {
		if pattern.MatchString(line) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 {
		t.Errorf("want one line like %s: %s", want, r)
	}
	if !strings.Contains(r.err, hint) {
		t.Errorf("want a hint with %q: %s", hint, r)
	}
	for _, ugly := range []string{"goroutine", "panic", "%!", "failed to solve", "<nil>", "* "} {
		if strings.Contains(r.err, ugly) {
			t.Errorf("%q is no way to speak to people: %s", ugly, r)
		}
	}
}
