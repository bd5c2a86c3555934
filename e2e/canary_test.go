package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"berth/api"
	"berth/testbed"
)

// canaryWays are the ways in which the values of TestCanary come, how many by
// each.
var canaryWays = []struct {
	way string
	n   int
}{
	{"file", 10}, {"age", 3}, {"environment", 8}, {"x-env", 3}, {"templated", 2}, {"stored", 10}, {"global", 3}, {"rotated", 6}, {"removed", 3}, {"later", 2},
}

// canaryStack is the Compose file of TestCanary. REST and MORE are the secrets
// of app.
const canaryStack = `
services:
  app:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
    secrets:
      - {source: told, uid: "0"}
REST
    configs: [{source: conf, target: /etc/app.conf}]
    # Berth sees what it prints.
    healthcheck: {test: ["CMD-SHELL", "HEALTH"], interval: 200ms, retries: 2, start_period: 1s}
    post_start: [{command: ["sh", "-c", "HOOK"]}]
    deploy: {replicas: 2, update_config: {parallelism: 0, monitor: 1s}}
  other:
    image: busybox
    command: ["sh", "-c", "OTHER"]
    stop_signal: KILL
    restart: "no"
    secrets: [told]
    deploy: {update_config: {monitor: 1s}}
configs:
  conf: {content: "user app password {{secret \"told\"}} of {{.Service.Name}}", x-berth: {template: true}}
secrets:
  told: {file: told}
MORE
`

// TestCanary_NoSecretIsSeenOutsideOfItsContainers leads 50 random values through
// all that Berth does with secrets, with failures that have them in their
// reasons. Nothing in the folders of the agent, its log at debug level, the
// answers of its API, the output of its commands or its processes has one.
func TestCanary_NoSecretIsSeenOutsideOfItsContainers(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	c := newCanaries()
	v := &canaryStory{machine: m, c: c, t: t}
	v.prepare()
	v.start()
	v.deploy()
	v.rotate()
	v.fail()
	v.crash()
	v.backup()

	files, hits := c.search(t, v.own, m.root, m.run)
	programs, more := c.programs(m.root, m.run)
	hits = append(hits, more...)
	v.say("down", "--timeout", "1")
	v.say("secret", "ls")
	after, more := c.search(t, nil, m.root, m.run)
	hits = append(append(hits, more...), c.said()...)
	for _, hit := range hits[:min(len(hits), 20)] {
		t.Error(hit)
	}
	t.Logf("canary: %d values in %d forms, %d files (%d after down), %d answers and outputs, %d processes, %d hits",
		len(c.values), len(c.forms), files, after, c.heard(), programs/2, len(hits))
	if len(c.values) != 50 || files < 100 || c.heard() < 200 || programs < 6 {
		t.Error("that is less than there is to be looked at")
	}
	v.plant()
}

// canaryStory is one run of TestCanary.
type canaryStory struct {
	*machine
	c     *canaries
	t     *testing.T
	dir   string // of the Compose file
	via   string // --run of commands whose answers are kept
	agent *exec.Cmd
	own   []string // in paths of what containers have written themselves
}

// at is the value of a way.
func (v *canaryStory) at(way string, i int) string { return v.c.values[fmt.Sprintf("%s%d", way, i)] }

// prepare makes the values, and the files that have them.
func (v *canaryStory) prepare() {
	n := 0
	for _, w := range canaryWays {
		for i := range w.n {
			kind := []int{plainValue, awkwardValue, linesValue, binaryValue}[n%4]
			size := []int{8, 24, 100, 700, 3000, 9}[n%6]
			if kind == linesValue {
				size += 40
			}
			if kind == binaryValue && (w.way == "environment" || w.way == "x-env" || w.way == "templated") {
				kind = awkwardValue // no variable can have it
			}
			v.c.more(fmt.Sprintf("%s%d", w.way, i), kind, size)
			n++
		}
	}
	v.dir = filepath.Join(v.t.TempDir(), "canary")
	if err := os.Mkdir(v.dir, 0o755); err != nil {
		v.t.Fatal(err)
	}
	v.write("told", v.at("file", 0)+"\n")
	v.compose("true", "true", quiet)
	v.t.Cleanup(func() {
		if r := v.berth(v.t, "-p", "canary", "down", "--timeout", "1"); r.code != 0 {
			v.t.Error(r)
		}
	})
	v.via = v.c.listen(v.t, v.run)
}

func (v *canaryStory) write(name, text string) {
	v.t.Helper()
	if err := os.WriteFile(filepath.Join(v.dir, name), []byte(text), 0o600); err != nil {
		v.t.Fatal(err)
	}
}

// compose writes the Compose file.
func (v *canaryStory) compose(health, hook, other string) {
	v.t.Helper()
	var rest, more strings.Builder
	add := func(name, reference, source string) {
		fmt.Fprintf(&rest, "      - {source: %s%s}\n", name, reference)
		fmt.Fprintf(&more, "  %s: {%s}\n", name, source)
	}
	for _, w := range canaryWays {
		for i := range w.n {
			name := fmt.Sprintf("%s%d", w.way, i)
			switch w.way {
			case "file", "age":
				add(name, "", "file: "+name)
			case "environment":
				add(name, "", "environment: CANARY_"+name)
			case "x-env":
				add(name, fmt.Sprintf(", x-env: VALUE%d", i), fmt.Sprintf("environment: CANARY_ENV%d", i))
			case "templated":
				add(name, "", "file: "+name+", x-berth: {template: true}")
			case "stored", "global":
				add(name, "", "external: true")
			}
		}
	}
	v.write("compose.yaml", strings.NewReplacer("REST\n", rest.String(), "MORE\n", more.String(), "HEALTH", health, "HOOK", hook, "OTHER", other).Replace(canaryStack))
}

// start starts an agent that logs at debug level, without the variables that
// secrets come from.
func (v *canaryStory) start() {
	v.t.Helper()
	if err := os.MkdirAll(v.root, 0o711); err != nil {
		v.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(v.root, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer log.Close()
	v.agent = exec.Command(program(v.t, "berthd"), "--root", v.root, "--run", v.run, "--config", v.config, "--verbose")
	v.agent.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "GOTRACEBACK=all"}
	v.agent.Stdout, v.agent.Stderr = log, log
	if err := v.agent.Start(); err != nil {
		v.t.Fatal(err)
	}
	eventually(v.t, 20*time.Second, func() error {
		conn, err := net.DialTimeout("unix", api.Socket(v.run), time.Second)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// end ends the agent by a signal.
func (v *canaryStory) end(signal syscall.Signal) {
	v.t.Helper()
	if err := v.agent.Process.Signal(signal); err != nil {
		v.t.Fatal(err)
	}
	_ = v.agent.Wait() // it was killed
}

// tell runs a command with stdin over the API that is recorded, and keeps what
// it prints.
func (v *canaryStory) tell(stdin string, args ...string) result {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), commandLimit)
	defer cancel()
	global := []string{"--root", v.root, "--run", v.via, "--config", v.config, "-f", filepath.Join(v.dir, "compose.yaml")}
	cmd := exec.CommandContext(ctx, program(v.t, "berth"), append(global, args...)...)
	cmd.Env = os.Environ()
	for i := range 8 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("CANARY_environment%d=%s", i, v.at("environment", i)))
	}
	for i := range 3 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("CANARY_ENV%d=%s", i, v.at("x-env", i)))
	}
	cmd.Stdin = strings.NewReader(stdin)
	r := finish(v.t, cmd, args)
	v.c.keep("stdout of "+strings.Join(args[:1], " "), []byte(r.out))
	v.c.keep("stderr of "+strings.Join(args[:1], " "), []byte(r.err))
	return r
}

// say is tell for what has to succeed.
func (v *canaryStory) say(args ...string) string {
	v.t.Helper()
	r := v.tell("", args...)
	if r.code != 0 {
		v.t.Fatal(r)
	}
	return r.out
}

// inside wants a container to have a value.
func (v *canaryStory) inside(value, script string) {
	v.t.Helper()
	r := v.berth(v.t, "-p", "canary", "exec", "app", "sh", "-c", script)
	if r.code != 0 || r.out != value {
		v.t.Fatalf("%s gives %.60q (%d), want %.60q\n%s", script, r.out, r.code, value, r.err)
	}
}

const quiet = "sleep 1000"

// deploy gives all secrets to the stack, in all ways, and asks all questions.
func (v *canaryStory) deploy() {
	for _, w := range canaryWays {
		for i := range w.n {
			name, value := fmt.Sprintf("%s%d", w.way, i), v.at(w.way, i)
			switch w.way {
			case "file":
				v.write(name, value)
			case "age":
				v.write(name, v.sealed(value))
			case "templated":
				v.write(name, `{{secret "told"}} and `+strings.ReplaceAll(value, "{{", ""))
			case "stored", "removed":
				v.store(value, "secret", "set", name, "-f", "-")
			case "global":
				v.store(value, "secret", "set", "--global", name, "-f", "-")
			}
		}
	}
	for i := range 3 {
		v.say("secret", "rm", fmt.Sprintf("removed%d", i))
	}
	v.compose("cat /run/secrets/told", "true", quiet)
	v.tell("", "plan") // exits 2: there is something to do
	v.tell("", "plan", "--format", "json")
	v.say("up", "-d")
	v.inside(v.at("stored", 4), "cat /run/secrets/stored4")
	v.inside(v.at("age", 1), "cat /run/secrets/age1")
	v.inside(v.at("x-env", 1), `printf %s "$VALUE1"`)
	v.inside("user app password "+v.at("file", 0)+" of app", "cat /etc/app.conf")
	v.ask()
}

func (v *canaryStory) store(value string, args ...string) {
	v.t.Helper()
	if r := v.tell(value, args...); r.code != 0 {
		v.t.Fatal(r)
	}
}

// sealed is a value as a file of a repository has it.
func (v *canaryStory) sealed(value string) string {
	to, err := age.ParseX25519Recipient(strings.TrimSpace(v.say("secret", "recipient", "-q")))
	if err != nil {
		v.t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err == nil {
		_, err = w.Write([]byte(value))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		v.t.Fatal(err)
	}
	return out.String()
}

// ask asks all that can be asked about the stack.
func (v *canaryStory) ask() {
	v.t.Helper()
	for _, args := range [][]string{
		{"ps", "-a", "--format", "json"},
		{"ls", "-a"},
		{"config"},
		{"config", "--format", "json"},
		{"config", "--environment"},
		{"config", "--variables"},
		{"config", "--hash", "*"},
		{"lint"},
		{"explain", "app"},
		{"explain", "other"},
		{"history"},
		{"rollout", "status"},
		{"secret", "ls"},
		{"secret", "inspect", "stored1"},
		{"configs", "ls"},
		{"stats", "--no-stream"},
		{"top"},
		{"images"},
		{"volume", "ls"},
		{"network", "ls"},
		{"events", "--json", "--since", "1h", "--until", time.Now().Add(time.Second).UTC().Format(time.RFC3339Nano)},
	} {
		if r := v.tell("", args...); r.code != 0 && args[0] != "explain" && args[0] != "lint" {
			v.t.Error(r)
		}
	}
	for _, id := range strings.Fields(v.say("ps", "-a", "-q")) {
		if text := v.say("inspect", id); !strings.Contains(text, "told") {
			v.t.Errorf("inspect: %s", text)
		}
	}
	// What a user says is repeated in events.
	v.tell("", "exec", "app", "true", v.at("stored", 2), "x"+v.at("file", 1)+"x")
	v.tell("", "secret", "set", "no name "+v.at("stored", 0), "-f", "/dev/null")
}

// rotate brings new values in all ways, and the old ones back.
func (v *canaryStory) rotate() {
	for i := range 3 {
		v.store(v.at("rotated", i), "secret", "rotate", fmt.Sprintf("stored%d", i), "-f", "-")
	}
	v.inside(v.at("rotated", 1), "cat /run/secrets/stored1")
	v.store(v.at("rotated", 3), "secret", "rotate", "--global", "global0", "-f", "-")
	v.say("secret", "rollback", "stored0")
	v.inside(v.at("stored", 0), "cat /run/secrets/stored0")
	v.write("file5", v.at("rotated", 4))
	v.write("age2", v.sealed(v.at("rotated", 5)))
	v.say("up", "-d")
	v.inside(v.at("rotated", 4), "cat /run/secrets/file5")
	v.say("rollback")
	v.inside(v.at("file", 5), "cat /run/secrets/file5")
	v.ask()
}

// fail deploys what fails with a secret on its lips: in the output of a health
// test, of a hook, in its last line, in the name of a program.
func (v *canaryStory) fail() {
	cat := `cat /run/secrets/told; exit 1`
	for what, c := range map[string][3]string{
		"a health test": {cat, "true", quiet},
		"a hook":        {"true", `cat /run/secrets/stored4 /run/secrets/told >&2; exit 3`, quiet},
		"a last line":   {"true", "true", `cat /run/secrets/told; exit 7`},
	} {
		v.compose(c[0], c[1], c[2])
		r := v.tell("", "up", "-d", "--wait-timeout", "20")
		if r.code == 0 || !strings.Contains(r.err, "<redacted>") {
			v.t.Errorf("%s: it has to fail, and to say that it can't say why: %s", what, r)
		}
		v.ask()
	}
	v.own = append(v.own, strings.Fields(v.say("ps", "-a", "-q", "other"))...) // its log is its own
	v.own = append(v.own, filepath.Join(v.root, "logs"))
	v.compose("cat /run/secrets/told", "true", quiet)
	v.write("late", v.at("later", 0))
	v.say("up", "-d")
}

// crash ends the agent in ways that it can't prepare for.
func (v *canaryStory) crash() {
	v.end(syscall.SIGKILL)
	v.start()
	v.ask()
	v.write("file6", v.at("later", 1))
	cut := v.begin(v.t, "-f", filepath.Join(v.dir, "compose.yaml"), "up", "-d") // without its variables it fails
	v.end(syscall.SIGQUIT)                                                      // the stacks of all goroutines
	<-cut.done
	v.start()
	v.say("up", "-d")
	v.inside(v.at("later", 1), "cat /run/secrets/file6")
	log, err := os.ReadFile(filepath.Join(v.root, "agent.log"))
	if err != nil || !bytes.Contains(log, []byte("goroutine ")) || !bytes.Contains(log, []byte("level=DEBUG")) && !bytes.Contains(log, []byte("level=INFO")) {
		v.t.Errorf("the log has no crash, or is none: %v", err)
	}
}

// backup takes the store out, in again, and gives it a new identity.
func (v *canaryStory) backup() {
	v.write("phrase", "a passphrase of the test")
	file := filepath.Join(v.root, "export.age")
	v.say("secret", "export", "--passphrase-file", filepath.Join(v.dir, "phrase"), "-o", file)
	v.say("secret", "rekey")
	v.say("secret", "import", "--passphrase-file", filepath.Join(v.dir, "phrase"), file)
	v.say("up", "-d", "--force-recreate")
	v.inside(v.at("stored", 4), "cat /run/secrets/stored4")
	v.ask()
}

// plant puts values where none may be: the search has to find them.
func (v *canaryStory) plant() {
	value := v.at("file", 3)
	for name, text := range map[string]string{
		"root/in/a file": "before " + value + " behind",
		"root/base64":    base64.StdEncoding.EncodeToString([]byte("me:" + value + "!")),
		"run/hex":        hex.EncodeToString([]byte(value)),
		"run/quoted":     fmt.Sprintf("%q", v.at("file", 1)),
		"root/" + hex.EncodeToString([]byte(v.at("file", 0))): "",
	} {
		dir := v.t.TempDir()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			v.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			v.t.Fatal(err)
		}
		if _, hits := v.c.search(v.t, nil, dir); len(hits) == 0 {
			v.t.Errorf("%s with %.60q is not found", name, text)
		}
	}
	before := len(v.c.said())
	v.c.keep("planted", []byte(`{"detail":"it is `+value+`"}`))
	if hits := v.c.said(); len(hits) != before+1 {
		v.t.Errorf("an answer with a value is not found: %v", hits)
	}
	if unix.Getuid() != 0 {
		v.t.Error("without root not all files are seen")
	}
}
